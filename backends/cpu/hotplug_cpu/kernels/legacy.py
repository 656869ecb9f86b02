"""Blocks of 32 weights in ggml's first formats, and blocks of 32 activations rounded to bytes.

A block of activations is X_BLOCK bytes: f32 scale, f32 scale * sum, i32 sum, 4 bytes unused,
32 bytes; `sum` is that of the bytes.
"""

from __future__ import annotations

from typing import Any

from numba import types

from hotplug_cpu.jit import simd
from hotplug_cpu.kernels.sizes import X_BYTES, X_SUM

__all__ = ["BLOCK_BYTES", "QUANTS", "WITH_MINIMUM", "ZERO", "quantise_block"]

_inline = simd.inline
_f32 = types.float32
_LARGEST = _f32(127.0)
_NONE = _f32(0.0)


@_inline
def _q4_0(block: int) -> Any:
    return simd.load_nibbles(block + 2)


@_inline
def _q4_1(block: int) -> Any:
    return simd.load_nibbles(block + 4)


@_inline
def _q5_0(block: int) -> Any:
    return simd.load_nibbles(block + 6) | simd.load_bits(block + 2)


@_inline
def _q5_1(block: int) -> Any:
    return simd.load_nibbles(block + 8) | simd.load_bits(block + 4)


@_inline
def _q8_0(block: int) -> Any:
    return simd.load_i8x32(block + 2)


QUANTS = {"q4_0": _q4_0, "q4_1": _q4_1, "q5_0": _q5_0, "q5_1": _q5_1, "q8_0": _q8_0}
"""The 32 numbers of a block, by dtype: unsigned but for q8_0."""

BLOCK_BYTES = {"q4_0": 18, "q4_1": 20, "q5_0": 22, "q5_1": 24, "q8_0": 34}

WITH_MINIMUM = ("q4_1", "q5_1")
"""Blocks that begin with scale and minimum; the others have a scale alone."""

ZERO = {"q4_0": 8, "q5_0": 16, "q8_0": 0}
"""The number that stands for zero in blocks without a minimum."""


@_inline
def quantise_block(a: Any, b: Any, c: Any, d: Any, target: int) -> None:
    """32 floats as a block of activations."""
    largest = simd.max_of(
        simd.maximum(
            simd.maximum(simd.absolute(a), simd.absolute(b)),
            simd.maximum(simd.absolute(c), simd.absolute(d)),
        )
    )
    factor = simd.splat_f32(_LARGEST / largest if largest > _NONE else _NONE)
    numbers = simd.round_to_i8((a * factor, b * factor, c * factor, d * factor))
    scale = largest / _LARGEST
    total = simd.sum_of(simd.to_f32(simd.dot_u7(simd.splat_i8(1), numbers)))
    simd.store_f32(target, scale)
    simd.store_f32(target + 4, scale * total)
    simd.store_i32(target + X_SUM, types.int32(total))
    simd.store_i8x32(target + X_BYTES, numbers)
