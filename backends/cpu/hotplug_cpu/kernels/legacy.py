"""Blocks of 32 weights in ggml's first formats, and blocks of 32 activations rounded to bytes.

A block of activations is X_BLOCK bytes: f32 scale, f32 scale * sum, i32 sum, 4 bytes unused,
32 bytes; `sum` is that of the bytes. What follows the blocks of a row is said in `sizes`.
"""

from __future__ import annotations

from typing import Any

from numba import types

from hotplug_cpu.jit import forms, reductions, simd
from hotplug_cpu.jit.vectors import (
    I8,
    address,
    at_offset,
    i8x32,
    instruction,
    load,
    splat,
    vector,
)
from hotplug_cpu.kernels.blocks import IQ4_NL
from hotplug_cpu.kernels.sizes import X_BLOCK, X_BYTES, X_HALVES, X_SUM, X_SUMS

__all__ = [
    "BLOCK_BYTES", "LEVELS", "PANEL_QUANTS", "SIGNED", "UNSIGNED", "WITH_MINIMUM", "ZERO",
    "quantise_block",
]  # fmt: skip

_inline = simd.inline
_f32 = types.float32
_LARGEST = _f32(127.0)
_NONE = _f32(0.0)


def _nibbles(place: int) -> Any:
    def quants(builder: Any, block: Any) -> Any:
        return simd.nibbles_at(builder, at_offset(builder, block, place))

    return quants


def _nibbles_and_bits(place: int) -> Any:
    """Low halves, and before them the fifth bits."""

    def quants(builder: Any, block: Any) -> Any:
        low = simd.nibbles_at(builder, at_offset(builder, block, place))
        return builder.or_(low, simd.bits_at(builder, at_offset(builder, block, place - 4)))

    return quants


def _q8_0(builder: Any, block: Any) -> Any:
    return load(builder, at_offset(builder, block, 2), vector(I8, 32))


def _q8_0_moved(builder: Any, block: Any) -> Any:
    return builder.add(_q8_0(builder, block), splat(forms.WIDE_OFFSET, I8, 32))


def _iq4_nl(builder: Any, block: Any) -> Any:
    return forms.lookup(builder, IQ4_NL, simd.nibbles_at(builder, at_offset(builder, block, 2)))


def _iq4_nl_moved(builder: Any, block: Any) -> Any:
    nibbles = simd.nibbles_at(builder, at_offset(builder, block, 2))
    return forms.lookup(builder, forms.moved(IQ4_NL), nibbles)


UNSIGNED = {
    "q4_0": _nibbles(2),
    "q4_1": _nibbles(4),
    "q5_0": _nibbles_and_bits(6),
    "q5_1": _nibbles_and_bits(8),
}
"""What writes code for the 32 numbers of a block: (builder, block) -> i8x32."""

LEVELS = {"q8_0": _q8_0, "iq4_nl": _iq4_nl}
"""The same of dtypes whose numbers are signed."""

SIGNED = {"q8_0": _q8_0_moved, "iq4_nl": _iq4_nl_moved}
"""Those with `forms.WIDE_OFFSET` added, as `add_dots_i8` wants them."""

PANEL_QUANTS = {
    name: instruction(i8x32, address)(quants) for name, quants in (UNSIGNED | SIGNED).items()
}
"""Instructions for what wide products take."""

BLOCK_BYTES = {"q4_0": 18, "q4_1": 20, "q5_0": 22, "q5_1": 24, "q8_0": 34, "iq4_nl": 18}

WITH_MINIMUM = ("q4_1", "q5_1")
"""Blocks that begin with scale and minimum; the others have a scale alone."""

ZERO = {"q4_0": 8, "q5_0": 16, "q8_0": 0, "iq4_nl": 0}
"""The number that stands for zero in blocks without a minimum."""


@_inline
def quantise_block(a: Any, b: Any, c: Any, d: Any, row: int, blocks: int, index: int) -> None:
    """32 floats as block number `index` of a row of activations, with its part of the planes."""
    largest = reductions.largest_magnitude((a, b, c, d))
    factor = simd.splat_f32(_LARGEST / largest if largest > _NONE else _NONE)
    numbers = simd.round_to_i8((a * factor, b * factor, c * factor, d * factor))
    scale = largest / _LARGEST
    first, second = reductions.sums_of_halves(simd.to_f32(simd.dot_u7(simd.splat_i8(1), numbers)))
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
