"""Reference of the ops that make, move, pick and convert elements: views, rows, arrangement."""

from __future__ import annotations

import numpy as np

from hotplug.dtypes import get
from hotplug.node import Node
from hotplug.testing.oracle.table import Array, reference
from hotplug.testing.oracle.values import convert

__all__: list[str] = []


@reference("fill")
def _fill(*, value: float, dtype: str, shape: tuple[int, ...]) -> Array:
    return convert(np.full(shape, value), get(dtype))


@reference("arange")
def _arange(*, start: float, stop: float, step: float, dtype: str) -> Array:
    count = max(0, int(np.ceil((stop - start) / step)))
    return convert(start + step * np.arange(count), get(dtype))


@reference("reshape", typed=True)
def _reshape(node: Node, x: Array, *, shape: tuple[int, ...]) -> Array:
    del shape  # may leave a length open, which the rule has closed
    return x.reshape(node.shape)


@reference("permute")
def _permute(x: Array, *, axes: tuple[int, ...]) -> Array:
    return x.transpose(axes)


@reference("transpose")
def _transpose(x: Array, *, axis0: int, axis1: int) -> Array:
    return np.swapaxes(x, axis0, axis1)


@reference("slice")
def _slice(
    x: Array, *, starts: tuple[int, ...], stops: tuple[int, ...], steps: tuple[int, ...] | None
) -> Array:
    steps = steps or (1,) * x.ndim
    return x[tuple(slice(*box) for box in zip(starts, stops, steps, strict=True))]


@reference("take")
def _take(table: Array, indices: Array) -> Array:
    result = np.zeros(indices.shape + table.shape[1:], table.dtype)
    for at in np.ndindex(indices.shape):
        if 0 <= indices[at] < len(table):
            result[at] = table[indices[at]]
    return result


@reference("index_select")
def _index_select(table: Array, indices: Array) -> Array:
    return _take(table, indices)


@reference("scatter_rows", typed=True)
def _scatter_rows(node: Node, table: Array, indices: Array, rows: Array) -> Array:
    target, source = node.operands[0].dtype, node.operands[2].dtype
    encoded = rows if source == target else convert(rows, target)
    result = table.copy()
    for row, index in enumerate(indices):
        if 0 <= index < len(table):
            result[index] = encoded[row]
    return result


@reference("cast", typed=True)
def _cast(node: Node, x: Array, *, dtype: str) -> Array:
    # Blocks that stay what they are are not encoded anew: that could move their scales.
    return x if node.operands[0].dtype == get(dtype) else convert(x, get(dtype))


@reference("contiguous")
def _contiguous(x: Array) -> Array:
    return x.copy()


@reference("concat")
def _concat(*tensors: Array, axis: int) -> Array:
    return np.concatenate(tensors, axis=axis)


@reference("repeat")
def _repeat(x: Array, *, repeats: tuple[int, ...]) -> Array:
    return np.tile(x, repeats)


@reference("pad", typed=True)
def _pad(
    node: Node,
    x: Array,
    *,
    before: tuple[int, ...],
    after: tuple[int, ...],
    mode: str,
    value: float,
) -> Array:
    widths = tuple(zip(before, after, strict=True))
    if mode == "circular":
        return np.pad(x, widths, mode="wrap")
    result = np.full(node.shape, convert(np.full((), value), node.dtype), x.dtype)
    inner = tuple(slice(b, b + n) for b, n in zip(before, x.shape, strict=True))
    result[inner] = x
    return result


@reference("pad_reflect")
def _pad_reflect(x: Array, *, before: int, after: int) -> Array:
    widths = [(0, 0)] * (x.ndim - 1) + [(before, after)]
    return np.pad(x, widths, mode="reflect")


@reference("roll")
def _roll(x: Array, *, shifts: tuple[int, ...]) -> Array:
    return np.roll(x, shifts, axis=tuple(range(x.ndim)))


@reference("triangular")
def _triangular(x: Array, *, part: str, diagonal: int, value: float) -> Array:
    row = np.arange(x.shape[-2])[:, None]
    column = np.arange(x.shape[-1])[None, :]
    kept = column <= row + diagonal if part == "lower" else column >= row + diagonal
    return np.where(kept, x, value)


@reference("diag")
def _diag(x: Array) -> Array:
    length = x.shape[-1]
    result = np.zeros((*x.shape, length), x.dtype)
    for index in range(length):
        result[..., index, index] = x[..., index]
    return result
