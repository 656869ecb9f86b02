"""Rows taken from tables and put into them, and casts."""

from __future__ import annotations

import numpy as np

from hotplug.tensor import TensorType
from hotplug_cpu.numpy_kernels.pieces import PIECE
from hotplug_cpu.numpy_kernels.table import kernel
from hotplug_cpu.tensor_view import AnyArray, TensorView, convert

__all__: list[str] = []


@kernel("take")
def _take(out: TensorView, table: TensorView, indices: TensorView) -> None:
    index = indices.array.reshape(-1)
    known = (index >= 0) & (index < table.shape[0])
    rows = np.zeros((index.size, *table.shape[1:]), out.array.dtype)
    picked = _rows(table, index[known])
    rows[known] = picked.float32() if table.dtype.quantised else picked.array
    np.copyto(out.array, rows.reshape(out.shape))


@kernel("index_select")
def _index_select(out: TensorView, table: TensorView, indices: TensorView) -> None:
    for row, index in enumerate(indices.array):
        out.array[row] = table.array[index] if 0 <= index < table.shape[0] else 0


@kernel("scatter_rows")
def _scatter_rows(
    out: TensorView, table: TensorView, indices: TensorView, rows: TensorView
) -> None:
    if not _same_memory(out.array, table.array):
        np.copyto(out.array, table.array)
    index = indices.array
    known = (index >= 0) & (index < table.shape[0])
    # What is dropped is not encoded either: padding may hold what the dtype cannot.
    kept = _rows(rows, np.flatnonzero(known))
    # Of equal indices NumPy lets the last one win, as the op does.
    out.array[index[known]] = _stored_as(kept, out)


@kernel("cast")
def _cast(out: TensorView, x: TensorView, *, dtype: str) -> None:
    del dtype  # that of the result
    if len(x.shape) < 2:  # a single axis may be packed, and is small
        np.copyto(out.array, _stored_as(x, out))
        return
    for piece in x.pieces(0, PIECE):
        np.copyto(out.array[piece], _stored_as(x.part(piece), out))


def _stored_as(x: TensorView, like: TensorView) -> AnyArray:
    """Elements as another tensor stores its own; blocks that stay what they are go untouched."""
    return x.array if x.dtype == like.dtype else convert(x.numbers(), like.dtype)


def _rows(table: TensorView, index: AnyArray) -> TensorView:
    """A new tensor of some of the rows."""
    shape = (len(index), *table.shape[1:])
    return TensorView(TensorType(table.dtype, shape), table.array[index])


def _same_memory(a: AnyArray, b: AnyArray) -> bool:
    """Whether two arrays of one shape and dtype are the same elements."""
    return a.strides == b.strides and a.__array_interface__["data"] == b.__array_interface__["data"]
