"""Matrix products. Weights are decoded by pieces of a few rows, so that little memory is used."""

from __future__ import annotations

import math

import numpy as np

from hotplug.tensor import TensorType
from hotplug_cpu.numpy_kernels.pieces import PIECE, part_at
from hotplug_cpu.numpy_kernels.table import kernel
from hotplug_cpu.tensor_view import AnyArray, TensorView

__all__: list[str] = []

_CACHED = 1 << 18
"""Elements of weights that are decoded at once for a few columns: 1 MB, which is still in the
cache when it is multiplied. No slower than `PIECE` on an idle machine, and several times as fast on
a busy one, where new pages of memory are dear."""

_FEW = 32
"""Columns up to which the product takes less time than memory does."""


@kernel("matmul")
def _matmul(
    out: TensorView, a: TensorView, b: TensorView, *, transpose_b: bool, precision: str
) -> None:
    del precision  # float32 is more than asked for
    rows = b if transpose_b else _transposed(b)
    if out.dtype.name == "f64":
        np.matmul(a.array, rows.array.swapaxes(-1, -2), out=out.array)
    elif b.dtype.name == "f32":
        np.matmul(a.float32(), rows.array.swapaxes(-1, -2), out=out.array)
    else:
        _multiply_rows(out.array, a.float32(), rows)


def _transposed(b: TensorView) -> TensorView:
    *lead, rows, columns = b.shape
    return TensorView(TensorType(b.dtype, (*lead, columns, rows)), b.array.swapaxes(-1, -2))


def _multiply_rows(out: AnyArray, a: AnyArray, b: TensorView) -> None:
    """Products of a (..., m, k) with the rows of b (..., n, k)."""
    if len(b.shape) == 2:
        _multiply(out, a, b)
        return
    lead = out.shape[:-2]
    a = np.broadcast_to(a, lead + a.shape[-2:])
    for at in np.ndindex(lead):
        _multiply(out[at], a[at], part_at(b, at, 2))


def _multiply(out: AnyArray, a: AnyArray, b: TensorView) -> None:
    """Products of a (..., m, k) with the rows of one matrix b (n, k)."""
    columns = a.reshape(math.prod(a.shape[:-1]), a.shape[-1]).T
    limit = _CACHED if columns.shape[1] <= _FEW else PIECE
    for rows in b.pieces(0, limit):
        # Weights on the left: for a few columns BLAS is then up to three times as fast.
        products = b.part(rows).float32() @ columns
        out[..., rows] = products.T.reshape(*out.shape[:-1], len(products))


@kernel("matmul_grouped")
def _matmul_grouped(
    out: TensorView, x: TensorView, w: TensorView, ids: TensorView, *, precision: str
) -> None:
    del precision  # float32 is more than asked for
    tokens = np.broadcast_to(x.float32(), (*ids.shape, x.shape[-1]))
    np.copyto(out.array, 0)
    for expert in np.unique(ids.array):
        if 0 <= expert < w.shape[0]:
            places = ids.array == expert
            products = np.empty((np.count_nonzero(places), w.shape[1]), np.float32)
            _multiply(products, tokens[places], w.part(int(expert)))
            out.array[places] = products


@kernel("outer")
def _outer(out: TensorView, a: TensorView, b: TensorView) -> None:
    out.store(a.numbers()[..., :, None] * b.numbers()[..., None, :])


@kernel("solve_triangular")
def _solve_triangular(
    out: TensorView, a: TensorView, b: TensorView, *, lower: bool, unit_diagonal: bool
) -> None:
    dtype = out.array.dtype
    rows = a.numbers().astype(dtype, copy=False)
    result = np.array(np.broadcast_to(b.numbers().astype(dtype, copy=False), out.shape))
    n = a.shape[-1]
    for row in range(n) if lower else range(n - 1, -1, -1):
        if not unit_diagonal:
            result[..., row, :] /= rows[..., row, row, None]
        # Take the row that is known now out of all that are not.
        others = slice(row + 1, n) if lower else slice(0, row)
        result[..., others, :] -= rows[..., others, row, None] * result[..., None, row, :]
    np.copyto(out.array, result)
