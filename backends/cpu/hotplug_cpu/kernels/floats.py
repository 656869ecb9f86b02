"""Weights of any type as panels of floats: what `gemm_f32` multiplies.

A kernel here is called as `kernel(source, row_bytes, rows, count, panel)`: it makes floats of the
first `count` weights of ROWS rows, of which the first begins at `source` and the next ones lie
`row_bytes` apart. Where there are fewer `rows` the last one is repeated. Layout: see `panels`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import float32, types

from hotplug_cpu.jit import simd
from hotplug_cpu.jit.vectors import F32, instruction
from hotplug_cpu.kernels.blocks import (
    bytes_of_q2_k,
    bytes_of_q3_k,
    bytes_of_q4_k,
    bytes_of_q5_k,
    bytes_of_q6_k,
    lookup_iq4_nl,
    minimum_of_k4,
    scale_of_iq4_xs,
    scale_of_k4,
    scale_of_q3_k,
)
from hotplug_cpu.kernels.common import transpose_rows
from hotplug_cpu.kernels.layouts import store_transposed
from hotplug_cpu.kernels.panels import BLOCK, ROWS
from hotplug_cpu.kernels.wide import PANEL

__all__ = ["DECODE", "KERNELS"]

_inline = simd.inline
_NEXT = 4 * PANEL


@instruction(types.int64)
def _room(builder: Any) -> Any:
    """Address of memory of this call's: ROWS rows of a block of floats."""
    return simd.room_at(builder, ir.ArrayType(F32, BLOCK * ROWS))


def _plain(size: int, load_vector: Any, load_number: Any) -> Any:
    """A kernel for weights that are not quantised, any number of them."""

    @_inline
    def unpack(source: int, row_bytes: int, rows: int, count: int, panel: int) -> int:
        last = rows - 1
        a1 = min(1, last) * row_bytes
        a2 = min(2, last) * row_bytes
        a3 = min(3, last) * row_bytes
        a4 = min(4, last) * row_bytes
        a5 = min(5, last) * row_bytes
        a6 = min(6, last) * row_bytes
        a7 = min(7, last) * row_bytes
        for _ in range(count // 8):
            for row in range(ROWS):
                simd.prefetch(source + (row + ROWS) * row_bytes)
            store_transposed(
                panel,
                _NEXT,
                (
                    load_vector(source),
                    load_vector(source + a1),
                    load_vector(source + a2),
                    load_vector(source + a3),
                    load_vector(source + a4),
                    load_vector(source + a5),
                    load_vector(source + a6),
                    load_vector(source + a7),
                ),
            )
            source += 8 * size
            panel += 8 * _NEXT
        for _ in range(count % 8):
            for row in range(ROWS):
                simd.store_f32(panel + 4 * row, load_number(source + min(row, last) * row_bytes))
            source += size
            panel += _NEXT
        return 0

    return unpack


def _blocks(decode: Any) -> Any:
    """A kernel for quantised weights, of which `decode(row, part, target)` makes floats."""

    @_inline
    def unpack(source: int, row_bytes: int, rows: int, count: int, panel: int) -> int:
        room = _room()
        for part in range(count // BLOCK):
            for row in range(ROWS):
                decode(source + min(row, rows - 1) * row_bytes, part, room + 4 * BLOCK * row)
            for at in range(room, room + 4 * BLOCK, 32):
                transpose_rows(at, 4 * BLOCK, panel, _NEXT)
                panel += 8 * _NEXT
        return 0

    return unpack


@_inline
def _store(at: int, values: Any, low: float, high: float, minimum: tuple[float, float]) -> None:
    """32 bytes times the scales of their halves plus the minima of these."""
    a, b, c, d = simd.floats_of_i8(values)
    scale, offset = simd.splat_f32(low), simd.splat_f32(minimum[0])
    simd.store_f32x8(at, simd.fma(a, scale, offset))
    simd.store_f32x8(at + 32, simd.fma(b, scale, offset))
    scale, offset = simd.splat_f32(high), simd.splat_f32(minimum[1])
    simd.store_f32x8(at + 64, simd.fma(c, scale, offset))
    simd.store_f32x8(at + 96, simd.fma(d, scale, offset))


@_inline
def _store_centred(at: int, values: Any, middle: int, low: float, high: float) -> None:
    zero = float32(0.0)
    _store(at, values - simd.splat_i8(middle), low, high, (zero, zero))


# --- blocks of 32


@_inline
def _q4_0(row: int, part: int, target: int) -> None:
    block = row + 18 * part
    d = simd.load_f16(block)
    _store_centred(target, simd.load_nibbles(block + 2), 8, d, d)


@_inline
def _q4_1(row: int, part: int, target: int) -> None:
    block = row + 20 * part
    d, m = simd.load_f16(block), simd.load_f16(block + 2)
    _store(target, simd.load_nibbles(block + 4), d, d, (m, m))


@_inline
def _q5_0(row: int, part: int, target: int) -> None:
    block = row + 22 * part
    d = simd.load_f16(block)
    values = simd.load_nibbles(block + 6) | simd.load_bits(block + 2)
    _store_centred(target, values, 16, d, d)


@_inline
def _q5_1(row: int, part: int, target: int) -> None:
    block = row + 24 * part
    d, m = simd.load_f16(block), simd.load_f16(block + 2)
    values = simd.load_nibbles(block + 8) | simd.load_bits(block + 4)
    _store(target, values, d, d, (m, m))


@_inline
def _q8_0(row: int, part: int, target: int) -> None:
    block = row + 34 * part
    d = simd.load_f16(block)
    _store_centred(target, simd.load_i8x32(block + 2), 0, d, d)


@_inline
def _iq4_nl(row: int, part: int, target: int) -> None:
    block = row + 18 * part
    d = simd.load_f16(block)
    _store_centred(target, lookup_iq4_nl(simd.load_nibbles(block + 2)), 0, d, d)


# --- blocks of 256


@_inline
def _store_k4(block: int, part: int, values: Any, target: int) -> None:
    d = simd.load_f16(block) * float32(scale_of_k4(block + 4, part))
    m = -simd.load_f16(block + 2) * float32(minimum_of_k4(block + 4, part))
    _store(target, values, d, d, (m, m))


@_inline
def _q4_k(row: int, part: int, target: int) -> None:
    block, part = row + part // 8 * 144, part % 8
    _store_k4(block, part, bytes_of_q4_k(block + 16, part), target)


@_inline
def _q5_k(row: int, part: int, target: int) -> None:
    block, part = row + part // 8 * 176, part % 8
    _store_k4(block, part, bytes_of_q5_k(block + 16, block + 48, part), target)


@_inline
def _q6_k(row: int, part: int, target: int) -> None:
    block, part = row + part // 8 * 210, part % 8
    d = simd.load_f16(block + 208)
    low = d * float32(simd.load_i8(block + 192 + 2 * part))
    high = d * float32(simd.load_i8(block + 193 + 2 * part))
    _store_centred(target, bytes_of_q6_k(block, part), 32, low, high)


@_inline
def _q2_k(row: int, part: int, target: int) -> None:
    block, part = row + part // 8 * 84, part % 8
    d, m = simd.load_f16(block + 80), -simd.load_f16(block + 82)
    low, high = simd.load_u8(block + 2 * part), simd.load_u8(block + 2 * part + 1)
    minima = m * float32(low >> 4), m * float32(high >> 4)
    values = bytes_of_q2_k(block + 16, part)
    _store(target, values, d * float32(low & 15), d * float32(high & 15), minima)


@_inline
def _q3_k(row: int, part: int, target: int) -> None:
    block, part = row + part // 8 * 110, part % 8
    d = simd.load_f16(block + 108)
    low = d * float32(scale_of_q3_k(block + 96, 2 * part))
    high = d * float32(scale_of_q3_k(block + 96, 2 * part + 1))
    _store_centred(target, bytes_of_q3_k(block, block + 32, part), 4, low, high)


@_inline
def _iq4_xs(row: int, part: int, target: int) -> None:
    block, part = row + part // 8 * 136, part % 8
    d = simd.load_f16(block) * float32(scale_of_iq4_xs(block, part))
    values = lookup_iq4_nl(simd.load_nibbles(block + 8 + 16 * part))
    _store_centred(target, values, 0, d, d)


DECODE = {
    "q4_0": _q4_0,
    "q4_1": _q4_1,
    "q5_0": _q5_0,
    "q5_1": _q5_1,
    "q8_0": _q8_0,
    "iq4_nl": _iq4_nl,
    "q2_k": _q2_k,
    "q3_k": _q3_k,
    "q4_k": _q4_k,
    "q5_k": _q5_k,
    "q6_k": _q6_k,
    "iq4_xs": _iq4_xs,
}
"""What makes 32 floats of a part of a row: (row, part, target)."""

KERNELS = {
    "floats_f32": _plain(4, simd.load_f32x8, simd.load_f32),
    "floats_f16": _plain(2, simd.load_f16x8, simd.load_f16),
    "floats_bf16": _plain(2, simd.load_bf16x8, simd.load_bf16),
    **{f"floats_{name}": _blocks(decode) for name, decode in DECODE.items()},
}
