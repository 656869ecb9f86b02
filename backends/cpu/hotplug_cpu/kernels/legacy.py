"""Blocks of 32 weights in ggml's first formats, and blocks of 32 activations rounded to bytes.

A block of activations is X_BLOCK bytes: f32 scale, f32 scale * sum, i32 sum, 4 bytes unused,
32 bytes; `sum` is that of the bytes. What follows the blocks of a row is said in `sizes`.
"""

from __future__ import annotations

from typing import Any

from numba import types

from hotplug_cpu.jit import forms, simd
from hotplug_cpu.kernels.sizes import X_BLOCK, X_BYTES, X_HALVES, X_SUM, X_SUMS
from hotplug_cpu.kernels.tiles import lookup_iq4_nl, lookup_iq4_nl_moved

__all__ = ["BLOCK_BYTES", "QUANTS", "SIGNED", "WITH_MINIMUM", "ZERO", "quantise_block"]

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


@_inline
def _iq4_nl(block: int) -> Any:
    return lookup_iq4_nl(simd.load_nibbles(block + 2))


@_inline
def _q8_0_moved(block: int) -> Any:
    return simd.load_i8x32(block + 2) + simd.splat_i8(forms.WIDE_OFFSET)


@_inline
def _iq4_nl_moved(block: int) -> Any:
    return lookup_iq4_nl_moved(simd.load_nibbles(block + 2))


QUANTS = {
    "q4_0": _q4_0,
    "q4_1": _q4_1,
    "q5_0": _q5_0,
    "q5_1": _q5_1,
    "q8_0": _q8_0,
    "iq4_nl": _iq4_nl,
}
"""The 32 numbers of a block, by dtype: unsigned but for those in SIGNED."""

SIGNED = {"q8_0": _q8_0_moved, "iq4_nl": _iq4_nl_moved}
"""The same with `forms.WIDE_OFFSET` added, of dtypes whose numbers are signed."""

BLOCK_BYTES = {"q4_0": 18, "q4_1": 20, "q5_0": 22, "q5_1": 24, "q8_0": 34, "iq4_nl": 18}

WITH_MINIMUM = ("q4_1", "q5_1")
"""Blocks that begin with scale and minimum; the others have a scale alone."""

ZERO = {"q4_0": 8, "q5_0": 16, "q8_0": 0, "iq4_nl": 0}
"""The number that stands for zero in blocks without a minimum."""


@_inline
def quantise_block(a: Any, b: Any, c: Any, d: Any, row: int, blocks: int, index: int) -> None:
    """32 floats as block number `index` of a row of activations, with its part of the planes."""
    largest = simd.max_of(
        simd.maximum(
            simd.maximum(simd.absolute(a), simd.absolute(b)),
            simd.maximum(simd.absolute(c), simd.absolute(d)),
        )
    )
    factor = simd.splat_f32(_LARGEST / largest if largest > _NONE else _NONE)
    numbers = simd.round_to_i8((a * factor, b * factor, c * factor, d * factor))
    scale = largest / _LARGEST
    first, second = simd.sums_of_halves(simd.to_f32(simd.dot_u7(simd.splat_i8(1), numbers)))
    total = first + second
    target = row + index * X_BLOCK
    simd.store_f32(target, scale)
    simd.store_f32(target + 4, scale * total)
    simd.store_i32(target + X_SUM, types.int32(total))
    simd.store_i8x32(target + X_BYTES, numbers)
    plane = row + blocks * X_BLOCK + 4 * index
    simd.store_f32(plane, scale)
    simd.store_f32(plane + blocks * X_SUMS, scale * total)
    simd.store_f32(plane + blocks * X_HALVES[0], scale * first)
    simd.store_f32(plane + blocks * X_HALVES[1], scale * second)
