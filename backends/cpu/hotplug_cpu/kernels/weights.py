"""Quantised weights as panels of bytes: what `gemm_int8` multiplies.

A kernel here is called as `kernel(source, row_bytes, rows, blocks, panel)`: it unpacks `blocks`
blocks of ROWS rows, of which the first begins at `source` and the next ones lie `row_bytes` apart.
Where there are fewer `rows` the last one is repeated. Layouts: see `panels`.
"""

from __future__ import annotations

from typing import Any

from numba import float32

from hotplug_cpu.jit import forms, simd
from hotplug_cpu.kernels.blocks import (
    bytes_of_q2_k,
    bytes_of_q3_k,
    bytes_of_q4_k,
    bytes_of_q5_k,
    bytes_of_q6_k,
    lookup_iq4_nl_moved,
    minimum_of_k4,
    scale_of_iq4_xs,
    scale_of_k4,
    scale_of_q3_k,
)
from hotplug_cpu.kernels.layouts import store_columns
from hotplug_cpu.kernels.legacy import PANEL_QUANTS
from hotplug_cpu.kernels.panels import BLOCK, HALVES_HEAD, PANEL_BLOCK, PANEL_HEAD, ROWS

__all__ = ["KERNELS"]

_inline = simd.inline
_WIDE_OFFSET = forms.WIDE_OFFSET
_WIDE, _FOUR, _THIRTY_TWO = float32(-_WIDE_OFFSET), float32(-4), float32(-32)
_NEXT = 4 * ROWS


def _unpacker(block_bytes: int, offsets: Any, quants: Any) -> Any:
    """A kernel for blocks that begin with a scale; `offsets(rows, scales)` gives their offsets."""

    @_inline
    def unpack(source: int, row_bytes: int, rows: int, blocks: int, panel: int) -> int:
        last = rows - 1
        a1 = source + min(1, last) * row_bytes
        a2 = source + min(2, last) * row_bytes
        a3 = source + min(3, last) * row_bytes
        a4 = source + min(4, last) * row_bytes
        a5 = source + min(5, last) * row_bytes
        a6 = source + min(6, last) * row_bytes
        a7 = source + min(7, last) * row_bytes
        for number in range(blocks):
            at = number * block_bytes
            places = (source + at, a1 + at, a2 + at, a3 + at, a4 + at, a5 + at, a6 + at, a7 + at)
            for row in range(ROWS):
                simd.prefetch(source + at + (row + ROWS) * row_bytes)
            scales = simd.gather_f16(places)
            simd.store_f32x8(panel, scales)
            simd.store_f32x8(panel + 4 * ROWS, offsets(places, scales))
            store_columns(
                panel + 8 * ROWS,
                (
                    quants(places[0]),
                    quants(places[1]),
                    quants(places[2]),
                    quants(places[3]),
                    quants(places[4]),
                    quants(places[5]),
                    quants(places[6]),
                    quants(places[7]),
                ),
            )
            panel += PANEL_BLOCK
        return 0

    return unpack


@_inline
def _minima(places: tuple[int, ...], _scales: Any) -> Any:
    """Those that follow the scale."""
    return simd.gather_f16(
        (
            places[0] + 2,
            places[1] + 2,
            places[2] + 2,
            places[3] + 2,
            places[4] + 2,
            places[5] + 2,
            places[6] + 2,
            places[7] + 2,
        )
    )


def _centre(middle: int) -> Any:
    factor = float32(-middle)

    @_inline
    def offsets(_places: tuple[int, ...], scales: Any) -> Any:
        return scales * simd.splat_f32(factor)

    return offsets


def _unpacker_k(block_bytes: int, factors: Any, quants: Any, head: int = PANEL_HEAD) -> Any:
    """A kernel for blocks of 256; `factors(block, part, place)` writes scales and offsets."""

    @_inline
    def unpack(source: int, row_bytes: int, rows: int, blocks: int, panel: int) -> int:
        last = rows - 1
        for number in range(blocks):
            part = number % 8
            start = source + number // 8 * block_bytes
            for row in range(ROWS):
                block = start + min(row, last) * row_bytes
                simd.prefetch(block + ROWS * row_bytes + number % 8 * block_bytes // 8)
                factors(block, part, panel + 4 * row)
            store_columns(
                panel + head,
                (
                    quants(start, part),
                    quants(start + min(1, last) * row_bytes, part),
                    quants(start + min(2, last) * row_bytes, part),
                    quants(start + min(3, last) * row_bytes, part),
                    quants(start + min(4, last) * row_bytes, part),
                    quants(start + min(5, last) * row_bytes, part),
                    quants(start + min(6, last) * row_bytes, part),
                    quants(start + min(7, last) * row_bytes, part),
                ),
            )
            panel += head + BLOCK * ROWS
        return 0

    return unpack


@_inline
def _factors_k4(block: int, part: int, place: int) -> None:
    d, m = simd.load_f16(block), -simd.load_f16(block + 2)
    simd.store_f32(place, d * float32(scale_of_k4(block + 4, part)))
    simd.store_f32(place + _NEXT, m * float32(minimum_of_k4(block + 4, part)))


@_inline
def _factors_iq4_xs(block: int, part: int, place: int) -> None:
    scale = simd.load_f16(block) * float32(scale_of_iq4_xs(block, part))
    simd.store_f32(place, scale)
    simd.store_f32(place + _NEXT, scale * _WIDE)


@_inline
def _factors_q2_k(block: int, part: int, place: int) -> None:
    d, m = simd.load_f16(block + 80), -simd.load_f16(block + 82)
    for half in (0, 1):
        packed = simd.load_u8(block + 2 * part + half)
        simd.store_f32(place + half * _NEXT, d * float32(packed & 15))
        simd.store_f32(place + (2 + half) * _NEXT, m * float32(packed >> 4))


@_inline
def _factors_q3_k(block: int, part: int, place: int) -> None:
    d = simd.load_f16(block + 108)
    for half in (0, 1):
        scale = d * float32(scale_of_q3_k(block + 96, 2 * part + half))
        simd.store_f32(place + half * _NEXT, scale)
        simd.store_f32(place + (2 + half) * _NEXT, scale * _FOUR)


@_inline
def _factors_q6_k(block: int, part: int, place: int) -> None:
    d = simd.load_f16(block + 208)
    for half in (0, 1):
        scale = d * float32(simd.load_i8(block + 192 + 2 * part + half))
        simd.store_f32(place + half * _NEXT, scale)
        simd.store_f32(place + (2 + half) * _NEXT, scale * _THIRTY_TWO)


@_inline
def _q2_k(block: int, part: int) -> Any:
    return bytes_of_q2_k(block + 16, part)


@_inline
def _q3_k(block: int, part: int) -> Any:
    return bytes_of_q3_k(block, block + 32, part)


@_inline
def _iq4_xs(block: int, part: int) -> Any:
    return lookup_iq4_nl_moved(simd.load_nibbles(block + 8 + 16 * part))


@_inline
def _q4_k(block: int, part: int) -> Any:
    return bytes_of_q4_k(block + 16, part)


@_inline
def _q5_k(block: int, part: int) -> Any:
    return bytes_of_q5_k(block + 16, block + 48, part)


KERNELS = {
    "weights_q4_0": _unpacker(18, _centre(8), PANEL_QUANTS["q4_0"]),
    "weights_q4_1": _unpacker(20, _minima, PANEL_QUANTS["q4_1"]),
    "weights_q5_0": _unpacker(22, _centre(16), PANEL_QUANTS["q5_0"]),
    "weights_q5_1": _unpacker(24, _minima, PANEL_QUANTS["q5_1"]),
    "weights_q8_0": _unpacker(34, _centre(_WIDE_OFFSET), PANEL_QUANTS["q8_0"]),
    "weights_iq4_nl": _unpacker(18, _centre(_WIDE_OFFSET), PANEL_QUANTS["iq4_nl"]),
    "weights_q4_k": _unpacker_k(144, _factors_k4, _q4_k),
    "weights_q5_k": _unpacker_k(176, _factors_k4, _q5_k),
    "weights_iq4_xs": _unpacker_k(136, _factors_iq4_xs, _iq4_xs),
    "weights_q2_k": _unpacker_k(84, _factors_q2_k, _q2_k, HALVES_HEAD),
    "weights_q3_k": _unpacker_k(110, _factors_q3_k, _q3_k, HALVES_HEAD),
    "weights_q6_k": _unpacker_k(210, _factors_q6_k, bytes_of_q6_k, HALVES_HEAD),
}
