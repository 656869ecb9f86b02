"""Convolution over one to three spatial axes, its parts, and pooling.

Tensors lie as in PyTorch and ONNX: (batch, channels, *spatial). The number of spatial axes is that
of the kernel. Parameters have a number for each spatial axis, or () for the default on all.
"""

from __future__ import annotations

import math

from hotplug.dtypes import Kind, get
from hotplug.node import Node
from hotplug.ops.checks import require, require_float, require_plain
from hotplug.ops.spec import op
from hotplug.tensor import TensorType

__all__ = ["avg_pool", "col2im", "conv", "conv_transpose", "im2col", "max_pool"]


def _per_axis(name: str, values: tuple[int, ...], rank: int, default: int) -> tuple[int, ...]:
    """A parameter's number for each spatial axis."""
    if not values:
        return (default,) * rank
    require(len(values) == rank, f"{name} {values} needs {rank} numbers")
    require(all(n >= default for n in values), f"{name} {values} must not be below {default}")
    return values


def _places(
    spatial: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> tuple[int, ...]:
    """How often a kernel fits along each axis; padding is added at both ends."""
    rank = len(kernel)
    require(1 <= rank <= 3, f"kernel {kernel} must have one to three axes")
    require(len(spatial) == rank, f"kernel {kernel} over {len(spatial)} spatial axes")
    require(all(n > 0 for n in kernel), f"kernel {kernel} must be positive")
    stride = _per_axis("stride", stride, rank, 1)
    padding = _per_axis("padding", padding, rank, 0)
    dilation = _per_axis("dilation", dilation, rank, 1)
    places = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(spatial, kernel, stride, padding, dilation, strict=True)
    )
    require(all(n > 0 for n in places), f"kernel {kernel} is larger than padded axes {spatial}")
    return places


def _check_operands(x: Node, w: Node) -> None:
    require_float(x, w)
    require(len(x.shape) == len(w.shape) >= 3, f"{x.type} and {w.type} must be of one rank, 3 to 5")


def _product_type(x: Node, w: Node, shape: tuple[int, ...]) -> TensorType:
    both_f64 = x.dtype.name == w.dtype.name == "f64"
    return TensorType(get("f64" if both_f64 else "f32"), shape)


def _conv_flops(node: Node) -> int:
    return 2 * node.type.size * math.prod(node.operands[1].shape[1:])


@op("conv", flops=_conv_flops)
def conv(
    x: Node,
    w: Node,
    *,
    stride: tuple[int, ...] = (),
    padding: tuple[int, ...] = (),
    dilation: tuple[int, ...] = (),
    groups: int = 1,
) -> TensorType:
    """Convolution (cross-correlation) as PyTorch's conv1d, conv2d and conv3d.

    y[b, o, p] = sum over c and k of w[o, c, k] x[b, g C + c, stride p + dilation k - padding], with
    zeros outside of x and g the group of o.

    Args:
        x: (batch, groups * C, *spatial), floats.
        w: (out, C, *kernel), floats; out is a multiple of groups.
        stride: step from one place of the kernel to the next; 1 by default.
        padding: zeros at either end; 0 by default.
        dilation: step from one element of the kernel to the next; 1 by default.
        groups: channels are split into so many groups, each with its share of the outputs; as many
            as x has channels is a depthwise convolution.

    Returns:
        (batch, out, *places), f64 if both operands are, else f32.
    """
    _check_operands(x, w)
    require(groups > 0 and w.shape[0] % groups == 0, f"{w.shape[0]} outputs in {groups} groups")
    require(x.shape[1] == groups * w.shape[1], f"{x.type} with {w.type} in {groups} groups")
    places = _places(x.shape[2:], w.shape[2:], stride, padding, dilation)
    return _product_type(x, w, (x.shape[0], w.shape[0], *places))


def _conv_transpose_flops(node: Node) -> int:
    x, w = node.operands
    return 2 * x.type.size * math.prod(w.shape[1:])


@op("conv_transpose", flops=_conv_transpose_flops)
def conv_transpose(
    x: Node,
    w: Node,
    *,
    stride: tuple[int, ...] = (),
    padding: tuple[int, ...] = (),
    dilation: tuple[int, ...] = (),
    groups: int = 1,
) -> TensorType:
    """Transposed convolution as PyTorch's conv_transpose1d, 2d and 3d.

    Each x[b, c, p] adds w[c, o, k] times itself to y[b, g O + o, stride p + dilation k - padding],
    where that lies inside of y; g is the group of c.

    Args:
        x: (batch, channels, *spatial), floats; channels is a multiple of groups.
        w: (channels, O, *kernel), floats.
        stride: as in `conv`, as are the others.
        padding: elements dropped at either end of the result.
        dilation: step from one element of the kernel to the next.
        groups: channels are split into so many groups, each with O outputs of its own.

    Returns:
        (batch, groups * O, *lengths), f64 if both operands are, else f32; a length is
        (n - 1) stride + dilation (kernel - 1) + 1 - 2 padding.
    """
    _check_operands(x, w)
    require(groups > 0 and x.shape[1] % groups == 0, f"{x.shape[1]} channels in {groups} groups")
    require(x.shape[1] == w.shape[0], f"{x.type} with {w.type}: channels differ")
    spatial, kernel = x.shape[2:], w.shape[2:]
    rank = len(kernel)
    strides = _per_axis("stride", stride, rank, 1)
    lengths = tuple(
        (n - 1) * s + d * (k - 1) + 1 - 2 * p
        for n, k, s, p, d in zip(
            spatial,
            kernel,
            strides,
            _per_axis("padding", padding, rank, 0),
            _per_axis("dilation", dilation, rank, 1),
            strict=True,
        )
    )
    require(rank <= 3, f"kernel {kernel} must have one to three axes")
    require(all(n > 0 for n in (*spatial, *kernel)), f"{x.type} and {w.type} must not be empty")
    require(all(n > 0 for n in lengths), f"padding {padding} leaves nothing of the result")
    return _product_type(x, w, (x.shape[0], groups * w.shape[1], *lengths))


@op("im2col")
def im2col(
    x: Node,
    *,
    kernel: tuple[int, ...],
    stride: tuple[int, ...] = (),
    padding: tuple[int, ...] = (),
    dilation: tuple[int, ...] = (),
) -> TensorType:
    """What each place of a kernel covers, as rows: a convolution is their product with w's rows.

    PyTorch's unfold gives the same with the last two axes exchanged.

    Args:
        x: (batch, channels, *spatial), any plain dtype.
        kernel: lengths of the kernel.
        stride: as in `conv`, as are the others; what lies outside of x is 0.
        padding: zeros at either end.
        dilation: step from one element of the kernel to the next.

    Returns:
        (batch, *places, channels * prod(kernel)), the dtype of x; the kernel's last axis is
        innermost, channels are outermost.
    """
    require_plain(x)
    require(len(x.shape) >= 3, f"{x.type} must be (batch, channels, *spatial)")
    places = _places(x.shape[2:], kernel, stride, padding, dilation)
    return TensorType(x.dtype, (x.shape[0], *places, x.shape[1] * math.prod(kernel)))


def _columns_size(node: Node) -> int:
    return node.operands[0].type.size


@op("col2im", flops=_columns_size)
def col2im(
    columns: Node,
    *,
    shape: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...] = (),
    padding: tuple[int, ...] = (),
    dilation: tuple[int, ...] = (),
) -> TensorType:
    """Rows as `im2col` makes them, each element added where it came from (PyTorch's fold).

    Args:
        columns: (batch, *places, channels * prod(kernel)), floats.
        shape: the spatial lengths of the result.
        kernel: as in `im2col`, as are the others.
        stride: step from one place of the kernel to the next.
        padding: what was added at either end, and is dropped.
        dilation: step from one element of the kernel to the next.

    Returns:
        (batch, channels, *shape), the dtype of the columns.
    """
    require_float(columns)
    places = _places(shape, kernel, stride, padding, dilation)
    count = math.prod(kernel)
    fits = columns.shape[1:-1] == places and columns.shape[-1] % count == 0
    require(fits, f"{columns.type} are no columns of {shape}, which has places {places}")
    return TensorType(columns.dtype, (columns.shape[0], columns.shape[-1] // count, *shape))


def _pooled(
    x: Node, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]
) -> TensorType:
    require(x.dtype.kind is Kind.FLOAT, f"{x.type} must hold floats")
    require(len(x.shape) >= 3, f"{x.type} must be (batch, channels, *spatial)")
    places = _places(x.shape[2:], kernel, stride or kernel, padding, ())
    halves = all(2 * p <= k for p, k in zip(padding, kernel, strict=False))
    require(halves, f"padding {padding} exceeds half of kernel {kernel}")
    return TensorType(x.dtype, (*x.shape[:2], *places))


def _pool_flops(node: Node) -> int:
    return node.type.size * math.prod(node.param("kernel"))  # type: ignore[arg-type]


@op("max_pool", flops=_pool_flops)
def max_pool(
    x: Node,
    *,
    kernel: tuple[int, ...],
    stride: tuple[int, ...] = (),
    padding: tuple[int, ...] = (),
) -> TensorType:
    """The largest element that each place of a kernel covers; NaN where it covers one.

    Args:
        x: (batch, channels, *spatial), floats.
        kernel: lengths of the kernel.
        stride: step from one place to the next; the kernel's lengths by default.
        padding: what is added at either end and covered, but never chosen; half a kernel at most.

    Returns:
        (batch, channels, *places), the dtype of x.
    """
    return _pooled(x, kernel, stride, padding)


@op("avg_pool", flops=_pool_flops)
def avg_pool(
    x: Node,
    *,
    kernel: tuple[int, ...],
    stride: tuple[int, ...] = (),
    padding: tuple[int, ...] = (),
    count_include_pad: bool = True,
) -> TensorType:
    """The mean of what each place of a kernel covers.

    Args:
        x: (batch, channels, *spatial), floats.
        kernel: as in `max_pool`, as are stride and padding.
        stride: step from one place to the next.
        padding: zeros that are added at either end.
        count_include_pad: whether the divisor is the kernel's size, or only the number of elements
            of x that are covered. ggml does the former in two dimensions, the latter in one.

    Returns:
        (batch, channels, *places), the dtype of x.
    """
    return _pooled(x, kernel, stride, padding)
