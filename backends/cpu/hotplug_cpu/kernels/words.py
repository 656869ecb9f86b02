"""Words of 16 bits: activations, and weights in f16, bf16 and Q8_0, what `gemm_i16` multiplies.

A block of 32 numbers becomes integers and a scale. No sum of products of two blocks overflows 32
bits, since it is at most the product of their lengths as vectors (Cauchy-Schwarz):

- Weights are multiples of a power of two, the largest of 13 bits. So the 8 or 11 bits that a weight
  has are kept, but of those that are far smaller than the block's largest. Of Q8_0 words are bytes.
- Activations have words up to LARGEST, or less where the block would be longer than LONGEST.

Blocks with a number that is not finite have the scale NaN.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from hotplug_cpu.jit import forms, reductions, simd
from hotplug_cpu.jit.simd import four_f32x8
from hotplug_cpu.jit.vectors import (
    F32,
    I8,
    I16,
    I32,
    address,
    at_offset,
    broadcast,
    call,
    concatenate,
    f32,
    instruction,
    load,
    splat,
    store,
    vector,
)
from hotplug_cpu.kernels.common import transpose_rows
from hotplug_cpu.kernels.panels import BLOCK, ROWS, WORDS_BLOCK
from hotplug_cpu.kernels.shares import next_unit
from hotplug_cpu.kernels.wide import PANEL

__all__ = ["KERNELS"]

_inline = simd.inline
_BITS = 13
_LARGEST = 32767.0
# Weights of 11 bits in 13 are 8188 at most, and a block of them 8188 * sqrt(32) long. 2^31 divided
# by that is 46363, and rounding makes a block longer by sqrt(32) / 2 at most.
_LONGEST = 46360.0
_ENDLESS = 0x7F800000  # bits of infinity; those of NaN are above
_MANTISSA = 23
_NEXT = 4 * PANEL
_ROW = 2 * BLOCK


@instruction(f32, address, four_f32x8)
def _store_weights(builder: Any, at: Any, values: Any) -> Any:
    """32 weights as words; returns their scale."""
    parts = [builder.extract_value(values, n) for n in range(4)]
    bits = reductions.largest_bits(builder, parts)
    exponent = builder.and_(bits, ir.Constant(I32, _ENDLESS))
    scale = builder.sub(exponent, ir.Constant(I32, (_BITS - 1) << _MANTISSA))
    factor = builder.bitcast(builder.sub(ir.Constant(I32, 254 << _MANTISSA), scale), F32)
    small = builder.icmp_signed("<", bits, ir.Constant(I32, _BITS << _MANTISSA))
    return _finish(builder, at, parts, (bits, small, builder.bitcast(scale, F32), factor))


@instruction(f32, address, four_f32x8)
def _store_activations(builder: Any, at: Any, values: Any) -> Any:
    """32 activations as words; returns their scale."""
    parts = [builder.extract_value(values, n) for n in range(4)]
    bits = reductions.largest_bits(builder, parts)
    largest, one = builder.bitcast(bits, F32), ir.Constant(F32, 1.0)
    by = broadcast(builder, builder.fdiv(one, largest), 8)
    parts = [builder.fmul(part, by) for part in parts]
    squares = splat(0.0, F32, 8)
    for part in parts:
        squares = forms.fused_multiply_add(builder, part, part, squares)
    length = call(builder, "llvm.sqrt.f32", F32, reductions.sum_elements(builder, squares))
    step = builder.fmul(length, ir.Constant(F32, 1 / _LONGEST))
    least = ir.Constant(F32, 1 / _LARGEST)
    step = builder.select(builder.fcmp_ordered(">", step, least), step, least)
    scale, factor = builder.fmul(largest, step), builder.fdiv(one, step)
    small = builder.icmp_signed("<", bits, ir.Constant(I32, 16 << _MANTISSA))
    return _finish(builder, at, parts, (bits, small, scale, factor))


def _finish(builder: Any, at: Any, parts: list[Any], numbers: tuple[Any, ...]) -> Any:
    """Parts times a factor as words; returns their scale.

    `numbers` are the bits of the largest, whether it is so small that there is no scale, the scale
    and the factor.
    """
    bits, small, scale, factor = numbers
    endless = builder.icmp_signed(">=", bits, ir.Constant(I32, _ENDLESS))
    zero = ir.Constant(F32, 0.0)
    factor = builder.select(builder.or_(small, endless), zero, factor)
    factor = broadcast(builder, factor, 8)
    words = []
    for part in parts:
        raised = builder.fadd(builder.fmul(part, factor), splat(simd.ROUNDER, F32, 8))
        words.append(builder.trunc(builder.bitcast(raised, vector(I32, 8)), vector(I16, 8)))
    store(builder, at, concatenate(builder, words))
    nan = ir.Constant(F32, float("nan"))
    return builder.select(endless, nan, builder.select(small, zero, scale))


@_inline
def quantise_words(
    thread: int,  # noqa: ARG001 - all kernels take it
    threads: int,
    counter: int,
    x: int,
    x_stride: int,
    tokens: int,
    blocks: int,
    words: int,
) -> None:
    """Activations (T, K) f32 as blocks of words."""
    token = next_unit(counter, tokens, threads)
    while token < tokens:
        source = x + token * x_stride
        target = words + token * blocks * WORDS_BLOCK
        for _ in range(blocks):
            parts = (
                simd.load_f32x8(source),
                simd.load_f32x8(source + 32),
                simd.load_f32x8(source + 64),
                simd.load_f32x8(source + 96),
            )
            simd.store_f32(target, _store_activations(target + 4, parts))
            source += 4 * BLOCK
            target += WORDS_BLOCK
        token = next_unit(counter, tokens, threads)


@instruction(types.int64)
def _room(builder: Any) -> Any:
    """Address of memory of this call's own: ROWS rows of a block of words."""
    return simd.room_at(builder, ir.ArrayType(I16, BLOCK * ROWS))


@instruction(f32, address, address)
def _store_bytes(builder: Any, at: Any, block: Any) -> Any:
    """A block of Q8_0 as words, which are its bytes; returns their scale."""
    numbers = load(builder, at_offset(builder, block, 2), vector(I8, BLOCK))
    store(builder, at, builder.sext(numbers, vector(I16, BLOCK)))
    half = load(builder, block, I16)
    wide = builder.insert_element(splat(0, I16, 8), half, ir.Constant(I32, 0))
    return builder.extract_element(forms.half_to_float(builder, wide), ir.Constant(I32, 0))


def _of_two_bytes(load_eight: Any) -> Any:
    @_inline
    def words(at: int, block: int) -> Any:
        parts = (
            load_eight(block),
            load_eight(block + 16),
            load_eight(block + 32),
            load_eight(block + 48),
        )
        return _store_weights(at, parts)

    return words


def _unpacker(block_bytes: int, words: Any) -> Any:
    """A kernel as those of `weights`; `words(at, block)` stores a block's and returns the scale."""

    @_inline
    def unpack(source: int, row_bytes: int, rows: int, blocks: int, panel: int) -> int:
        room = _room()
        for _ in range(blocks):
            for row in range(ROWS):
                block = source + min(row, rows - 1) * row_bytes
                simd.store_f32(panel + 4 * row, words(room + _ROW * row, block))
            panel += _NEXT
            for at in (room, room + 32):
                transpose_rows(at, _ROW, panel, _NEXT)
                panel += 8 * _NEXT
            source += block_bytes
        return 0

    return unpack


KERNELS = {
    "quantise_words": quantise_words,
    "words_f16": _unpacker(2 * BLOCK, _of_two_bytes(simd.load_f16x8)),
    "words_bf16": _unpacker(2 * BLOCK, _of_two_bytes(simd.load_bf16x8)),
    "words_q8_0": _unpacker(34, _store_bytes),
}
