"""Sums, extremes, order and probability along an axis, and what selects by rank."""

from __future__ import annotations

from hotplug.dtypes import Kind, get
from hotplug.node import Node
from hotplug.ops.checks import (
    broadcast,
    normal_axis,
    require,
    require_float,
    require_plain,
    require_rank,
    require_same_dtype,
    with_dtype,
)
from hotplug.ops.spec import op
from hotplug.tensor import TensorType

__all__ = [
    "argmax", "argmin", "argsort", "count_equal", "cumsum", "max", "mean", "min", "prod", "softmax",
    "sum", "top_k",
]  # fmt: skip


def _reduced(x: Node, axis: int, keepdims: bool) -> tuple[int, ...]:
    at = normal_axis(axis, len(x.shape))
    middle = (1,) if keepdims else ()
    return x.shape[:at] + middle + x.shape[at + 1 :]


def _input_size(node: Node) -> int:
    return node.operands[0].type.size


def _check_numbers(x: Node) -> None:
    require_plain(x)
    require(x.dtype.kind is not Kind.BOOL, "bool must be cast to numbers first")


def _check_not_empty(x: Node, axis: int) -> None:
    require(x.shape[normal_axis(axis, len(x.shape))] > 0, f"{x.type} is empty along axis {axis}")


@op("sum", flops=_input_size)
def sum(x: Node, *, axis: int = -1, keepdims: bool = False) -> TensorType:
    """Sum along an axis; integers wrap around."""
    _check_numbers(x)
    return TensorType(x.dtype, _reduced(x, axis, keepdims))


@op("prod", flops=_input_size)
def prod(x: Node, *, axis: int = -1, keepdims: bool = False) -> TensorType:
    """Product along an axis; integers wrap around."""
    _check_numbers(x)
    return TensorType(x.dtype, _reduced(x, axis, keepdims))


@op("mean", flops=_input_size)
def mean(x: Node, *, axis: int = -1, keepdims: bool = False) -> TensorType:
    """Arithmetic mean along an axis, of floats."""
    require_float(x)
    _check_not_empty(x, axis)
    return TensorType(x.dtype, _reduced(x, axis, keepdims))


@op("max", flops=_input_size)
def max(x: Node, *, axis: int = -1, keepdims: bool = False) -> TensorType:
    """Largest value along an axis; NaN if there is one."""
    _check_numbers(x)
    _check_not_empty(x, axis)
    return TensorType(x.dtype, _reduced(x, axis, keepdims))


@op("min", flops=_input_size)
def min(x: Node, *, axis: int = -1, keepdims: bool = False) -> TensorType:
    """Smallest value along an axis; NaN if there is one."""
    _check_numbers(x)
    _check_not_empty(x, axis)
    return TensorType(x.dtype, _reduced(x, axis, keepdims))


@op("argmax", flops=_input_size)
def argmax(x: Node, *, axis: int = -1) -> TensorType:
    """Index of the largest value along an axis, the first of equals; i32. NaN counts as largest."""
    _check_numbers(x)
    _check_not_empty(x, axis)
    return TensorType(get("i32"), _reduced(x, axis, keepdims=False))


@op("argmin", flops=_input_size)
def argmin(x: Node, *, axis: int = -1) -> TensorType:
    """Index of the smallest value along an axis, the first of equals; i32. NaN counts smallest."""
    _check_numbers(x)
    _check_not_empty(x, axis)
    return TensorType(get("i32"), _reduced(x, axis, keepdims=False))


@op("argsort", flops=lambda node: 10 * node.type.size)
def argsort(x: Node, *, descending: bool = False) -> TensorType:
    """Indices that sort the last axis; i32. Equal values keep their order, descending too.

    Where NaN comes is not defined; the same holds for `top_k`.
    """
    _check_numbers(x)
    return with_dtype(x, "i32")


@op("top_k", flops=_input_size)
def top_k(x: Node, *, k: int) -> TensorType:
    """Indices of the k largest values of the last axis, largest first; i32. Of equals the first."""
    _check_numbers(x)
    require(0 < k <= x.shape[-1], f"k {k} of {x.shape[-1]} values")
    return TensorType(get("i32"), (*x.shape[:-1], k))


@op("cumsum", inplace=(0,))
def cumsum(x: Node, *, axis: int = -1) -> TensorType:
    """Running sum along an axis; integers wrap around."""
    _check_numbers(x)
    normal_axis(axis, len(x.shape))
    return x.type


@op("count_equal", flops=_input_size)
def count_equal(a: Node, b: Node) -> TensorType:
    """How many elements of two tensors of one shape are equal; a scalar i64."""
    require_plain(a, b)
    require_same_dtype(a, b)
    require(a.shape == b.shape, f"{a.type} and {b.type} must have one shape")
    return TensorType(get("i64"), ())


@op("softmax", inplace=(0,), flops=lambda node: 10 * node.type.size)
def softmax(
    x: Node,
    mask: Node | None = None,
    sinks: Node | None = None,
    *,
    scale: float = 1.0,
    max_bias: float = 0.0,
) -> TensorType:
    """exp(s) / sum(exp(s)) over the last axis, with s = scale * x + slope * mask.

    Args:
        x: (..., heads, tokens, rows) or fewer axes.
        mask: broadcast to x; floats are added, bool True means visible. A row that sees nothing
            gives zeros.
        sinks: (heads,) f32: an extra score per head in the sum only; needs three axes.
        scale: factor on x.
        max_bias: ALiBi (arXiv 2108.12409): with it the mask is multiplied by the head's slope. With
            n = 2^floor(log2(heads)), head h < n has slope 2^(-max_bias (h + 1) / n), the others
            2^(-max_bias / 2 (2 (h - n) + 1) / n). Needs three axes and a float mask.
    """
    require_float(x)
    if mask is not None:
        require(broadcast(mask.shape, x.shape) == x.shape, f"mask {mask.type} for {x.type}")
        require(mask.dtype.kind in {Kind.FLOAT, Kind.BOOL}, f"mask {mask.type} is no mask")
    if sinks is not None:
        require_rank(sinks, 1)
        require(
            len(x.shape) >= 3 and sinks.shape == (x.shape[-3],), f"sinks {sinks.type} for {x.type}"
        )
    if max_bias:
        require(len(x.shape) >= 3, f"{x.type} has no heads axis for max_bias")
        require(
            mask is not None and mask.dtype.kind is Kind.FLOAT, "max_bias needs a mask of floats"
        )
    return x.type
