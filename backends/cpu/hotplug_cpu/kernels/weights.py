"""Quantised weights as panels of bytes: what `gemm_int8` multiplies.

A kernel here is called as `kernel(source, row_bytes, rows, blocks, panel)`: it unpacks `blocks`
blocks of ROWS rows, of which the first begins at `source` and the next ones lie `row_bytes` apart.
Where there are fewer `rows` the last one is repeated. Layouts: see `panels`.
"""

from __future__ import annotations

from typing import Any

from numba import float32

from hotplug_cpu.jit import forms, simd
from hotplug_cpu.kernels.panels import PANEL_BLOCK, ROWS
from hotplug_cpu.kernels.tiles import store_columns

__all__ = ["KERNELS"]

_inline = simd.inline
_WIDE_OFFSET = forms.WIDE_OFFSET


def _unpacker(block_bytes: int, scale: Any, offset: Any, quants: Any) -> Any:
    """A kernel for blocks that have a scale and an offset of their own."""

    @_inline
    def unpack(source: int, row_bytes: int, rows: int, blocks: int, panel: int) -> int:
        last = rows - 1
        a1 = min(1, last) * row_bytes
        a2 = min(2, last) * row_bytes
        a3 = min(3, last) * row_bytes
        a4 = min(4, last) * row_bytes
        a5 = min(5, last) * row_bytes
        a6 = min(6, last) * row_bytes
        a7 = min(7, last) * row_bytes
        for _ in range(blocks):
            for row in range(ROWS):
                block = source + min(row, last) * row_bytes
                d = scale(block)
                simd.store_f32(panel + 4 * row, d)
                simd.store_f32(panel + 4 * (ROWS + row), offset(block, d))
            store_columns(
                panel + 8 * ROWS,
                (
                    quants(source),
                    quants(source + a1),
                    quants(source + a2),
                    quants(source + a3),
                    quants(source + a4),
                    quants(source + a5),
                    quants(source + a6),
                    quants(source + a7),
                ),
            )
            source += block_bytes
            panel += PANEL_BLOCK
        return 0

    return unpack


@_inline
def _scale(block: int) -> Any:
    return simd.load_f16(block)


@_inline
def _minimum(block: int, _scale: float) -> Any:
    return simd.load_f16(block + 2)


def _centre(middle: int) -> Any:
    factor = float32(-middle)

    @_inline
    def offset(_block: int, scale: float) -> Any:
        return scale * factor

    return offset


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
    return simd.load_i8x32(block + 2) + simd.splat_i8(_WIDE_OFFSET)


KERNELS = {
    "weights_q4_0": _unpacker(18, _scale, _centre(8), _q4_0),
    "weights_q4_1": _unpacker(20, _scale, _minimum, _q4_1),
    "weights_q5_0": _unpacker(22, _scale, _centre(16), _q5_0),
    "weights_q5_1": _unpacker(24, _scale, _minimum, _q5_1),
    "weights_q8_0": _unpacker(34, _scale, _centre(_WIDE_OFFSET), _q8_0),
}
