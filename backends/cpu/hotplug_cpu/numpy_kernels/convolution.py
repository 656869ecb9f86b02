"""Convolution as products with the rows that `im2col` makes, by pieces, and pooling."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from hotplug_cpu.numpy_kernels.table import kernel as kernel_of
from hotplug_cpu.tensor_view import AnyArray, TensorView

__all__: list[str] = []

Ints = tuple[int, ...]

_COLUMNS = 1 << 19
"""Elements of columns that are made at once: 2 MB, still in the cache when they are multiplied. A
tenth to a third faster than 16 MB."""


def _padded(x: AnyArray, padding: Ints, value: float = 0) -> AnyArray:
    """(batch, channels, *spatial) with a constant at both ends of each spatial axis."""
    if not any(padding):
        return x
    widths = [(0, 0), (0, 0), *((p, p) for p in padding)]
    return np.pad(x, widths, constant_values=np.asarray(value).astype(x.dtype))


def _windows(x: AnyArray, kernel: Ints, stride: Ints, dilation: Ints) -> AnyArray:
    """What a kernel covers at each place: a view (batch, channels, *places, *kernel)."""
    rank = len(kernel)
    gaps = dilation or (1,) * rank
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, gaps, strict=True))
    view = np.lib.stride_tricks.sliding_window_view(x, reach, axis=tuple(range(2, 2 + rank)))
    steps = (slice(None, None, s) for s in stride or (1,) * rank)
    return view[(slice(None), slice(None), *steps, *(slice(None, None, d) for d in gaps))]


def _pieces(batches: int, first: int, share: int) -> Iterator[tuple[int, slice]]:
    """A batch and a range of the first spatial axis at a time, of limited size."""
    count = max(1, _COLUMNS // max(1, share))
    for batch in range(batches):
        for at in range(0, first, count):
            yield batch, slice(at, min(at + count, first))


def _wide(*operands: TensorView) -> np.dtype[np.floating]:
    f64 = all(x.dtype.name == "f64" for x in operands)
    return np.dtype(np.float64 if f64 else np.float32)


@kernel_of("conv")
def _conv(
    out: TensorView,
    x: TensorView,
    w: TensorView,
    *,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
) -> None:
    outputs, inputs, *lengths = w.shape
    kernel = tuple(lengths)
    dtype = _wide(x, w)
    rows = w.numbers().astype(dtype, copy=False).reshape(groups, outputs // groups, -1)
    values = _padded(x.numbers().astype(dtype, copy=False), padding)
    windows = _windows(values, kernel, stride, dilation)
    first, *others = out.shape[2:]
    share = math.prod(others) * x.shape[1] * math.prod(kernel)
    for batch, places in _pieces(out.shape[0], first, share):
        part = windows[batch, :, places]
        columns = np.moveaxis(part, range(1, 1 + len(kernel)), range(-len(kernel), 0))
        products = rows @ columns.reshape(groups, inputs * math.prod(kernel), -1)
        out.array[batch, :, places] = products.reshape(outputs, -1, *others)


@kernel_of("conv_transpose")
def _conv_transpose(
    out: TensorView,
    x: TensorView,
    w: TensorView,
    *,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
) -> None:
    channels, outputs, *lengths = w.shape
    kernel = tuple(lengths)
    dtype = _wide(x, w)
    columns = w.numbers().astype(dtype, copy=False)
    columns = columns.reshape(groups, channels // groups, -1).swapaxes(1, 2)
    values = x.numbers().astype(dtype, copy=False)
    for batch in range(out.shape[0]):
        flat = values[batch].reshape(groups, channels // groups, -1)
        parts = (columns @ flat).reshape(groups * outputs, *kernel, *x.shape[2:])
        out.array[batch] = _gathered(parts, out.shape[2:], kernel, stride, padding, dilation)


def _gathered(
    parts: AnyArray, shape: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints
) -> AnyArray:
    """Sums of (channels, *kernel, *places) where each element belongs: (channels, *shape)."""
    rank = len(kernel)
    steps, gaps, ends = stride or (1,) * rank, dilation or (1,) * rank, padding or (0,) * rank
    lengths = [n + 2 * p for n, p in zip(shape, ends, strict=True)]
    room = np.zeros((len(parts), *lengths), parts.dtype)
    places = parts.shape[1 + rank :]
    for at in np.ndindex(kernel):
        target = tuple(
            slice(i * d, i * d + (n - 1) * s + 1, s)
            for i, n, s, d in zip(at, places, steps, gaps, strict=True)
        )
        room[(slice(None), *target)] += parts[(slice(None), *at)]
    inner = tuple(slice(p, p + n) for p, n in zip(ends, shape, strict=True))
    return room[(slice(None), *inner)]


@kernel_of("im2col")
def _im2col(
    out: TensorView,
    x: TensorView,
    *,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
) -> None:
    windows = _windows(_padded(x.array, padding), kernel, stride, dilation)
    rows = np.moveaxis(windows, 1, 1 + len(kernel))
    np.copyto(out.array, rows.reshape(out.shape))


@kernel_of("col2im")
def _col2im(
    out: TensorView,
    columns: TensorView,
    *,
    shape: Ints,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
) -> None:
    rank = len(kernel)
    values = columns.numbers()
    parts = values.reshape(*values.shape[:-1], out.shape[1], *kernel)
    parts = np.moveaxis(parts, range(1, 1 + rank), range(-rank, 0))
    result = np.empty(out.shape, values.dtype)
    for batch in range(len(parts)):
        result[batch] = _gathered(parts[batch], shape, kernel, stride, padding, dilation)
    out.store(result)


@kernel_of("max_pool")
def _max_pool(out: TensorView, x: TensorView, *, kernel: Ints, stride: Ints, padding: Ints) -> None:
    values = _padded(x.numbers(), padding, -np.inf)
    windows = _windows(values, kernel, stride or kernel, ())
    out.store(windows.max(axis=tuple(range(-len(kernel), 0))))


@kernel_of("avg_pool")
def _avg_pool(
    out: TensorView,
    x: TensorView,
    *,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    count_include_pad: bool,
) -> None:
    axes = tuple(range(-len(kernel), 0))
    windows = _windows(_padded(x.numbers(), padding), kernel, stride or kernel, ())
    total = windows.sum(axis=axes, dtype=np.float64)
    if count_include_pad:
        out.store(total / math.prod(kernel))
        return
    inside = _padded(np.ones((1, 1, *x.shape[2:])), padding)
    out.store(total / _windows(inside, kernel, stride or kernel, ()).sum(axis=axes))
