"""Rotary position embedding: a table of factors, and heads turned by it.

All strides are bytes, all counts elements.
"""

from __future__ import annotations

from typing import Any

from numba import types

from hotplug_cpu.jit import simd
from hotplug_cpu.kernels.common import index_of, share

__all__ = ["KERNELS"]

_inline = simd.inline
_f32 = types.float32

_HALF_PI_HIGH, _HALF_PI_LOW = 1.5707963267341256, 6.077100506506192e-11
"""pi / 2 in two parts, the first with 33 bits (fdlibm), so that its multiples are exact."""


@_inline
def _sine_cosine(angle: float) -> Any:
    """Sine and cosine within 1e-15 for angles up to 10^6: Taylor series about multiples of pi/2."""
    turns = angle * 0.6366197723675814
    quarter = int(turns + 0.5) if turns >= 0 else -int(0.5 - turns)
    x = (angle - quarter * _HALF_PI_HIGH) - quarter * _HALF_PI_LOW
    y = x * x
    sine = -1.0 / 1307674368000.0
    sine = sine * y + 1.0 / 6227020800.0
    sine = sine * y - 1.0 / 39916800.0
    sine = sine * y + 1.0 / 362880.0
    sine = sine * y - 1.0 / 5040.0
    sine = sine * y + 1.0 / 120.0
    sine = sine * y - 1.0 / 6.0
    sine = sine * y * x + x
    cosine = 1.0 / 20922789888000.0
    cosine = cosine * y - 1.0 / 87178291200.0
    cosine = cosine * y + 1.0 / 479001600.0
    cosine = cosine * y - 1.0 / 3628800.0
    cosine = cosine * y + 1.0 / 40320.0
    cosine = cosine * y - 1.0 / 720.0
    cosine = cosine * y + 1.0 / 24.0
    cosine = cosine * y - 0.5
    cosine = cosine * y + 1.0
    if quarter & 1:
        sine, cosine = cosine, -sine
    if quarter & 2:
        sine, cosine = -sine, -cosine
    return sine, cosine


@_inline
def rope_table(
    thread: int,
    threads: int,
    positions: int,
    wide: int,
    tokens: int,
    frequencies: int,
    factors: int,
    pairs: int,
    magnitude: int,
    half: int,
    out: int,
) -> None:
    """For each token `2 * pairs` factors of an element itself, then as many of its partner.

    Args:
        thread: number of this thread.
        threads: number of threads.
        positions: address of i32, or of i64 if `wide`.
        wide: whether positions have 64 bits.
        tokens: number of positions.
        frequencies: f64 (pairs,), radians for each position.
        factors: f32 (pairs,) that divide the frequencies, or 0.
        pairs: pairs of a head.
        magnitude: f32 bits of a factor on everything.
        half: whether pairs lie half a head apart, and not side by side.
        out: f32 (tokens, 2, 2 * pairs).
    """
    first, last = share(tokens, thread, threads)
    size = simd.float_of(magnitude)
    for token in range(first, last):
        position = float(index_of(positions, token, wide))
        own = out + token * 16 * pairs
        partner = own + 8 * pairs
        for pair in range(pairs):
            angle = position * simd.load_f64(frequencies + 8 * pair)
            if factors != 0:
                angle /= float(simd.load_f32(factors + 4 * pair))
            sine, cosine = _sine_cosine(angle)
            a, b = 8 * pair, 8 * pair + 4
            if half:
                a, b = 4 * pair, 4 * (pair + pairs)
            simd.store_f32(own + a, _f32(cosine) * size)
            simd.store_f32(own + b, _f32(cosine) * size)
            simd.store_f32(partner + a, _f32(-sine) * size)
            simd.store_f32(partner + b, _f32(sine) * size)


@_inline
def _put(out: int, at: int, value: Any, narrow: int) -> None:
    if narrow:
        simd.store_f16x8(out + at // 2, value)
    else:
        simd.store_f32x8(out + at, value)


@_inline
def rope(
    thread: int,
    threads: int,
    x: int,
    x_token: int,
    x_head: int,
    tokens: int,
    heads: int,
    length: int,
    table: int,
    turned: int,
    half: int,
    out: int,
    out_token: int,
    out_head: int,
    indices: int,
    wide: int,
    out_rows: int,
    narrow: int,
) -> None:
    """Heads turned by a table of `rope_table`, into rows of their own or rows of a cache.

    Args:
        thread: number of this thread.
        threads: number of threads. They share heads, so that of equal indices the last one wins.
        x: f32 (tokens, heads, length) with the strides given.
        x_token: bytes from a token to the next.
        x_head: bytes from a head to the next.
        tokens: number of tokens.
        heads: number of heads.
        length: elements of a head, a multiple of 8.
        table: what `rope_table` wrote.
        turned: how many leading elements are turned; a multiple of 8, of 16 if `half`.
        half: as for the table.
        out: f32, or f16 if `narrow`.
        out_token: bytes from one row to the next.
        out_head: bytes from a head to the next.
        indices: row of each token, or 0 if token and row are the same.
        wide: whether indices have 64 bits.
        out_rows: rows that there are; a token with another index is dropped.
        narrow: whether the result is stored as f16.
    """
    first, last = share(heads, thread, threads)
    middle = 2 * turned
    for token in range(tokens):
        row = index_of(indices, token, wide) if indices != 0 else token
        if 0 <= row < out_rows:
            own = table + token * 8 * turned
            partner = own + 4 * turned
            for head in range(first, last):
                source = x + token * x_token + head * x_head
                target = out + row * out_token + head * out_head
                for at in range(0, 4 * turned, 32):
                    value = simd.load_f32x8(source + at)
                    if half:
                        other = simd.load_f32x8(
                            source + (at + middle if at < middle else at - middle)
                        )
                    else:
                        other = simd.swap_pairs(value)
                    value = value * simd.load_f32x8(own + at)
                    _put(target, at, simd.fma(other, simd.load_f32x8(partner + at), value), narrow)
                for at in range(4 * turned, 4 * length, 32):
                    _put(target, at, simd.load_f32x8(source + at), narrow)


KERNELS = {"rope": rope, "rope_table": rope_table}
