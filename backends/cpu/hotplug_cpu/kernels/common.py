"""What kernels over rows have in common."""

from __future__ import annotations

from typing import Any

from numba import types

from hotplug_cpu.jit import simd
from hotplug_cpu.kernels.layouts import store_transposed

__all__ = ["index_of", "share", "transpose_rows"]


@simd.inline
def share(count: int, thread: int, threads: int) -> Any:
    """First and last + 1 of the things that a thread does."""
    return count * thread // threads, count * (thread + 1) // threads


@simd.inline
def index_of(indices: int, position: int, wide: int) -> Any:
    """A number of an array of i32, or of i64 if `wide`."""
    if wide:
        return simd.load_i64(indices + 8 * position)
    return types.int64(simd.load_i32(indices + 4 * position))


@simd.inline
def transpose_rows(source: int, row_bytes: int, target: int, stride: int) -> None:
    """Eight rows of 8 floats, `row_bytes` apart, as f32[8][8 rows], `stride` bytes apart."""
    rows = (
        simd.load_f32x8(source),
        simd.load_f32x8(source + row_bytes),
        simd.load_f32x8(source + 2 * row_bytes),
        simd.load_f32x8(source + 3 * row_bytes),
        simd.load_f32x8(source + 4 * row_bytes),
        simd.load_f32x8(source + 5 * row_bytes),
        simd.load_f32x8(source + 6 * row_bytes),
        simd.load_f32x8(source + 7 * row_bytes),
    )
    store_transposed(target, stride, rows)
