"""Floats as words of 16 bits: activations, and weights in f16 and bf16, what `gemm_i16` multiplies.

A block of 32 numbers becomes integers of -LARGEST..LARGEST and a scale. LARGEST is so chosen that
no sum of a block's products overflows 32 bits. Blocks with a number that is not finite have the
scale NaN.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from hotplug_cpu.jit import simd
from hotplug_cpu.jit.simd import four_f32x8
from hotplug_cpu.jit.vectors import (
    F32,
    I16,
    I32,
    address,
    broadcast,
    concatenate,
    f32,
    instruction,
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
_LARGEST = 8191.0
_INFINITY = 0x7F800000
_SMALLEST = 2.0**-126
_NEXT = 4 * PANEL
_ROW = 2 * BLOCK


@instruction(f32, address, four_f32x8)
def _store_words(builder: Any, at: Any, values: Any) -> Any:
    """32 floats as words; returns their scale."""
    parts = [builder.extract_value(values, n) for n in range(4)]
    bits = simd.largest_bits(builder, parts)
    scale = builder.fmul(builder.bitcast(bits, F32), ir.Constant(F32, 1 / _LARGEST))
    small = builder.fcmp_ordered("<", scale, ir.Constant(F32, _SMALLEST))
    factor = builder.fdiv(ir.Constant(F32, 1.0), scale)
    endless = builder.icmp_signed(">=", bits, ir.Constant(I32, _INFINITY))
    nothing = builder.or_(small, endless)
    zero = ir.Constant(F32, 0.0)
    factor = broadcast(builder, builder.select(nothing, zero, factor), 8)
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
            simd.store_f32(target, _store_words(target + 4, parts))
            source += 4 * BLOCK
            target += WORDS_BLOCK
        token = next_unit(counter, tokens, threads)


@instruction(types.int64)
def _room(builder: Any) -> Any:
    """Address of memory of this call's own: ROWS rows of a block of words."""
    return simd.room_at(builder, ir.ArrayType(I16, BLOCK * ROWS))


def _unpacker(load_eight: Any) -> Any:
    """A kernel as those of `weights`, for numbers of two bytes."""

    @_inline
    def unpack(source: int, row_bytes: int, rows: int, blocks: int, panel: int) -> int:
        room = _room()
        for _ in range(blocks):
            for row in range(ROWS):
                at = source + min(row, rows - 1) * row_bytes
                parts = (
                    load_eight(at),
                    load_eight(at + 16),
                    load_eight(at + 32),
                    load_eight(at + 48),
                )
                simd.store_f32(panel + 4 * row, _store_words(room + _ROW * row, parts))
            panel += _NEXT
            for at in (room, room + 32):
                transpose_rows(at, _ROW, panel, _NEXT)
                panel += 8 * _NEXT
            source += 2 * BLOCK
        return 0

    return unpack


KERNELS = {
    "quantise_words": quantise_words,
    "words_f16": _unpacker(simd.load_f16x8),
    "words_bf16": _unpacker(simd.load_bf16x8),
}
