"""Reading blocks of quantised weights: 32 bytes, and what turns them into numbers.

Functions take the address of a row, or of a whole block in it, and the number of a *part*: 32
weights. In the K formats eight parts make a block of 256. Formats: ggml's `ggml-common.h`.
"""

from __future__ import annotations

from typing import Any

from hotplug_cpu.jit import forms, simd
from hotplug_cpu.jit.vectors import i8x32, instruction

__all__ = [
    "IQ4_NL",
    "bytes_of_q2_k",
    "bytes_of_q3_k",
    "bytes_of_q4_k",
    "bytes_of_q5_k",
    "bytes_of_q6_k",
    "lookup_iq4_nl",
    "lookup_iq4_nl_moved",
    "minimum_of_k4",
    "scale_of_iq4_xs",
    "scale_of_k4",
    "scale_of_q3_k",
]

_inline = simd.inline

IQ4_NL = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


@instruction(i8x32, i8x32)
def lookup_iq4_nl(builder: Any, nibbles: Any) -> Any:
    """What the numbers 0..15 stand for in IQ4_NL and IQ4_XS."""
    return forms.lookup(builder, IQ4_NL, nibbles)


@instruction(i8x32, i8x32)
def lookup_iq4_nl_moved(builder: Any, nibbles: Any) -> Any:
    """The same with `forms.WIDE_OFFSET` added, modulo 256."""
    return forms.lookup(builder, forms.moved(IQ4_NL), nibbles)


@_inline
def scale_of_k4(scales: int, part: int) -> Any:
    """The 6-bit scale of a part, from the 12 bytes of Q4_K and Q5_K."""
    if part < 4:
        return simd.load_u8(scales + part) & 63
    return (simd.load_u8(scales + part + 4) & 15) | (simd.load_u8(scales + part - 4) >> 6 << 4)


@_inline
def minimum_of_k4(scales: int, part: int) -> Any:
    """The 6-bit minimum of a part, from the 12 bytes of Q4_K and Q5_K."""
    if part < 4:
        return simd.load_u8(scales + part + 4) & 63
    return (simd.load_u8(scales + part + 4) >> 4) | (simd.load_u8(scales + part) >> 6 << 4)


@_inline
def scale_of_q3_k(scales: int, group: int) -> Any:
    """The signed scale of a group of 16, from the 12 bytes of Q3_K."""
    low = simd.load_u8(scales + group % 8) >> (group // 8 * 4) & 15
    high = simd.load_u8(scales + 8 + group % 4) >> (group // 4 * 2) & 3
    return (low | high << 4) - 32


@_inline
def scale_of_iq4_xs(block: int, part: int) -> Any:
    """The signed scale of a part, from a block of IQ4_XS."""
    low = simd.load_u8(block + 4 + part // 2) >> (part % 2 * 4) & 15
    high = simd.load_u8(block + 2 + part // 4) >> (part % 4 * 2) & 3
    return (low | high << 4) - 32


@_inline
def bytes_of_q4_k(quants: int, part: int) -> Any:
    """0..15, from the 128 bytes of Q4_K."""
    packed = simd.load_i8x32(quants + part // 2 * 32)
    return simd.shift_right(packed, part % 2 * 4) & simd.splat_i8(15)


@_inline
def bytes_of_q5_k(high: int, quants: int, part: int) -> Any:
    """0..31, from the fifth bits and the 128 bytes of Q5_K."""
    bits = simd.shift_right(simd.load_i8x32(high), part) & simd.splat_i8(1)
    return bytes_of_q4_k(quants, part) | simd.shift_left(bits, 4)


@_inline
def bytes_of_q6_k(block: int, part: int) -> Any:
    """0..63, from a block of Q6_K."""
    half, quarter = part // 4, part % 4
    low = simd.load_i8x32(block + 64 * half + quarter % 2 * 32)
    low = simd.shift_right(low, quarter // 2 * 4) & simd.splat_i8(15)
    high = simd.load_i8x32(block + 128 + 32 * half)
    high = simd.shift_right(high, 2 * quarter) & simd.splat_i8(3)
    return low | simd.shift_left(high, 4)


@_inline
def bytes_of_q2_k(quants: int, part: int) -> Any:
    """0..3, from the 64 bytes of Q2_K and Q3_K."""
    packed = simd.load_i8x32(quants + part // 4 * 32)
    return simd.shift_right(packed, part % 4 * 2) & simd.splat_i8(3)


@_inline
def bytes_of_q3_k(high: int, quants: int, part: int) -> Any:
    """0..7, four more than the weight, from the third bits and the 64 bytes of Q3_K."""
    bits = simd.shift_right(simd.load_i8x32(high), part) & simd.splat_i8(1)
    return bytes_of_q2_k(quants, part) | simd.shift_left(bits, 2)
