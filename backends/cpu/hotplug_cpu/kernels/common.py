"""What kernels over rows have in common."""

from __future__ import annotations

from typing import Any

from numba import types

from hotplug_cpu.jit import simd

__all__ = ["index_of", "share"]


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
