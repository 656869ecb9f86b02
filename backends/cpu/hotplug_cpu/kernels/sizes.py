"""Sizes that kernels and those who call them agree on. Imports no Numba.

A row of activations rounded to bytes is a block of X_BLOCK bytes for every 32 of them, and after
the blocks four planes, each with a number per block: f32 scale[n], f32 sum[n], f32 first[n],
f32 second[n]. The sums are those of the bytes, of a block and of its halves, times the scale.
Scale and sum stand in the blocks too, for weights whose blocks are read one by one; weights in
super-blocks take several from a plane at once.
"""

from __future__ import annotations

__all__ = ["BLOCK", "X_BLOCK", "X_BYTES", "X_HALVES", "X_SUM", "X_SUMS", "x_row_bytes"]

BLOCK = 32
"""Elements of a block, of the legacy formats and of activations."""

X_BLOCK = 48
"""Bytes of a block of activations; what lies in it is said in `legacy`."""

X_SUM = 8
"""Where in it the sum is."""

X_BYTES = 16
"""Where in it the bytes begin."""

X_SUMS, X_HALVES = 4, (8, 12)
"""Bytes per block from the first plane to the one of sums, and to those of sums of halves."""

_X_PLANES = 16


def x_row_bytes(blocks: int) -> int:
    """Bytes of a row of that many blocks."""
    return blocks * (X_BLOCK + _X_PLANES)
