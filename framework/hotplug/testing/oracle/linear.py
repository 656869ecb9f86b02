"""Reference of matrix products."""

from __future__ import annotations

import numpy as np

from hotplug.testing.oracle.table import Array, Floats, reference

__all__: list[str] = []


@reference("matmul")
def _matmul(a: Floats, b: Floats, *, transpose_b: bool, precision: str) -> Floats:
    del precision  # it widens the bound of comparison, not the meaning
    return np.asarray(a @ (np.swapaxes(b, -1, -2) if transpose_b else b))


@reference("matmul_grouped")
def _matmul_grouped(x: Floats, w: Floats, ids: Array, *, precision: str) -> Floats:
    del precision
    tokens, used = ids.shape
    result = np.zeros((tokens, used, w.shape[1]))
    for token, slot in np.ndindex(tokens, used):
        expert = ids[token, slot]
        if 0 <= expert < len(w):
            result[token, slot] = w[expert] @ x[token, slot if x.shape[1] > 1 else 0]
    return result


@reference("outer")
def _outer(a: Floats, b: Floats) -> Floats:
    return a[..., :, None] * b[..., None, :]


@reference("solve_triangular")
def _solve_triangular(a: Floats, b: Floats, *, lower: bool, unit_diagonal: bool) -> Floats:
    n = b.shape[-2]
    result = np.zeros((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), *b.shape[-2:]))
    for row in range(n) if lower else reversed(range(n)):
        known = slice(0, row) if lower else slice(row + 1, n)
        rest = b[..., row, :] - (a[..., row, None, known] @ result[..., known, :])[..., 0, :]
        result[..., row, :] = rest if unit_diagonal else rest / a[..., row, row, None]
    return result
