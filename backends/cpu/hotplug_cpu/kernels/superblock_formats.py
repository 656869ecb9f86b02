"""Formats of super-blocks, 256 weights with small scales in them: K-quants and IQ4_XS.

A weight is scale * q + minimum, both of them products of a factor of the super-block with a small
integer of a *group* of 16 or 32 weights. A *part* is 32 weights. What differs between formats is in
`FORMATS`, written as LLVM code: scales and minima come as vectors of eight groups, the q of a part
as 32 bytes. Of groups of 16, a vector holds the first ones of four parts and then the second ones,
so that a part's two scales are spread without crossing halves of a register. Formats: ggml's
`ggml-common.h`, told in `hotplug.quants`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from llvmlite import ir

from hotplug_cpu.jit import forms, simd
from hotplug_cpu.jit.vectors import (
    F32,
    I8,
    I16,
    I32,
    at_offset,
    broadcast,
    load,
    shuffle,
    splat,
    vector,
)
from hotplug_cpu.kernels.blocks import IQ4_NL

__all__ = ["FORMATS", "PARTS", "Format", "floats_of", "scaled"]

PARTS = 8
_FLOATS, _BYTES, _WORDS = vector(F32, 8), vector(I8, 32), vector(I32, 8)

_HALVES = (0, 2, 4, 6, 1, 3, 5, 7)
_RAISED = (0, 2, 4, 6 if forms.WIDE_UNSIGNED else 0)
"""How far the 2 bits of a part stay above the lowest ones, if products take such bytes."""

_RAISED_3 = (0, 2, 4, 0)
"""The same of 3 bits."""

Numbers: TypeAlias = "tuple[list[Any], list[Any]]"
"""Scales and minima, each one f32x8 per eight groups."""


@dataclass(frozen=True)
class Format:
    """How a super-block is read.

    Attributes:
        nbytes: its length.
        groups: 8 or 16.
        numbers: (builder, block) -> scales and minima.
        quants: (builder, block, part) -> q as 32 bytes, or their indices in `levels`. They are not
            always moved down to the lowest bits; then the scales make up for it.
        levels: what the indices stand for, signed. Then there are no minima.
    """

    nbytes: int
    groups: int
    numbers: Callable[[Any, Any], Numbers]
    quants: Callable[[Any, Any, int], Any]
    levels: tuple[int, ...] = ()


# --- parts of formats


def _bits(builder: Any, block: Any, offset: int, shift: int, mask: int) -> Any:
    """`mask` of 32 bytes shifted right, or left if `shift` is negative.

    What comes over from a byte's neighbour the mask takes away.
    """
    value = load(builder, at_offset(builder, block, offset), _BYTES)
    if shift:
        move = builder.lshr if shift > 0 else builder.shl
        value = move(builder.bitcast(value, vector(I16, 16)), splat(abs(shift), I16, 16))
    return builder.and_(builder.bitcast(value, _BYTES), splat(mask, I8, 32))


def _factors(builder: Any, block: Any, *offsets: int) -> list[Any]:
    """The f16 at some offsets, each as eight f32."""
    halves = splat(0, I16, 8)
    for lane, offset in enumerate(offsets):
        half = load(builder, at_offset(builder, block, offset), I16)
        halves = builder.insert_element(halves, half, ir.Constant(I32, lane))
    floats = forms.half_to_float(builder, halves)
    return [shuffle(builder, floats, floats, [lane] * 8) for lane in range(len(offsets))]


def floats_of(builder: Any, small: Any, *, signed: bool = False) -> list[Any]:
    """Small integers, eight or sixteen bytes, as vectors of floats."""
    widen = builder.sext if signed else builder.zext
    parts = [list(range(at, at + 8)) for at in range(0, small.type.count, 8)]
    return [
        builder.sitofp(widen(shuffle(builder, small, small, part), _WORDS), _FLOATS)
        for part in parts
    ]


def scaled(builder: Any, numbers: list[Any], factor: Any) -> list[Any]:
    return [builder.fmul(number, factor) for number in numbers]


def _times(builder: Any, factor: Any, numbers: Sequence[float]) -> Any:
    return builder.fmul(factor, ir.Constant(_FLOATS, list(numbers)))


def _by_halves(builder: Any, small: Any) -> Any:
    """16 bytes of groups in their order, in the order of the vectors."""
    return shuffle(builder, small, small, [start + lane for start in (0, 8) for lane in _HALVES])


def _word(builder: Any, block: Any, offset: int) -> Any:
    return load(builder, at_offset(builder, block, offset), I32)


def _field(builder: Any, word: Any, shift: int, mask: int) -> Any:
    """A field of each byte of a word; moved left if `shift` is negative."""
    move = builder.lshr if shift > 0 else builder.shl
    moved = move(word, ir.Constant(I32, abs(shift))) if shift else word
    return builder.and_(moved, ir.Constant(I32, mask * 0x01010101))


def _bytes_of(builder: Any, words: list[Any]) -> Any:
    value = ir.Constant(vector(I32, len(words)), ir.Undefined)
    for lane, word in enumerate(words):
        value = builder.insert_element(value, word, ir.Constant(I32, lane))
    return builder.bitcast(value, vector(I8, 4 * len(words)))


def _numbers_k4(builder: Any, block: Any) -> Numbers:
    """Of Q4_K and Q5_K: eight scales and eight minima of 6 bits in 12 bytes."""
    first, second, last = (_word(builder, block, 4 + 4 * index) for index in range(3))

    def six(low: Any, shift: int) -> Any:
        high = _field(builder, low, 2, 0x30)
        late = builder.or_(_field(builder, last, shift, 15), high)
        return _bytes_of(builder, [_field(builder, low, 0, 63), late])

    d, m = _factors(builder, block, 0, 2)
    m = builder.fsub(splat(0.0, F32, 8), m)
    scales, minima = (floats_of(builder, six(*of)) for of in ((first, 0), (second, 4)))
    return scaled(builder, scales, d), scaled(builder, minima, m)


def _numbers_q2_k(builder: Any, block: Any) -> Numbers:
    packed = _by_halves(builder, load(builder, block, vector(I8, 16)))
    low = builder.and_(packed, splat(15, I8, 16))
    high = builder.lshr(packed, splat(4, I8, 16))
    d, m = _factors(builder, block, 80, 82)
    d, m = _times(builder, d, _lowered(_RAISED)), builder.fsub(splat(0.0, F32, 8), m)
    scales, minima = floats_of(builder, low), floats_of(builder, high)
    return scaled(builder, scales, d), scaled(builder, minima, m)


def _numbers_q3_k(builder: Any, block: Any) -> Numbers:
    """16 scales of 6 bits in 12 bytes."""
    first, second, last = (_word(builder, block, 96 + 4 * index) for index in range(3))
    words = [
        builder.or_(
            _field(builder, (first, second)[index % 2], 4 * (index // 2), 15),
            _field(builder, last, 2 * index - 4, 0x30),
        )
        for index in range(4)
    ]
    small = builder.sub(_bytes_of(builder, words), splat(32, I8, 16))
    return _centred(builder, _by_halves(builder, small), block, 108, 4, _RAISED_3)


def _numbers_q6_k(builder: Any, block: Any) -> Numbers:
    small = load(builder, at_offset(builder, block, 192), vector(I8, 16))
    return _centred(builder, _by_halves(builder, small), block, 208, 32, (0, 0, 0, 0))


def _centred(
    builder: Any, small: Any, block: Any, factor_at: int, middle: int, raised: Sequence[int]
) -> Numbers:
    """Scales from small signed ones and a factor, and minima that make a q of `middle` zero."""
    (d,) = _factors(builder, block, factor_at)
    numbers = floats_of(builder, small, signed=True)
    minima = scaled(builder, numbers, _times(builder, d, [-middle] * 8))
    return scaled(builder, numbers, _times(builder, d, _lowered(raised))), minima


def _lowered(raised: Sequence[int]) -> list[float]:
    return [2.0**-shift for shift in raised] * 2


def _numbers_iq4_xs(builder: Any, block: Any) -> Numbers:
    """Eight scales of 6 bits, of which four are in a word and two in half a word."""
    high = builder.zext(load(builder, at_offset(builder, block, 2), I16), I32)

    def fields(word: Any, width: int) -> Any:
        shifts = ir.Constant(_WORDS, [width * lane for lane in range(8)])
        moved = builder.lshr(broadcast(builder, word, 8), shifts)
        return builder.and_(moved, splat((1 << width) - 1, I32, 8))

    six = builder.or_(
        fields(_word(builder, block, 4), 4),
        builder.shl(fields(high, 2), splat(4, I32, 8)),
    )
    scale = builder.sitofp(builder.sub(six, splat(32, I32, 8)), _FLOATS)
    (d,) = _factors(builder, block, 0)
    return scaled(builder, [scale], d), []


def _quants_q4_k(builder: Any, block: Any, part: int) -> Any:
    return _bits(builder, block, 16 + part // 2 * 32, part % 2 * 4, 15)


def _quants_q5_k(builder: Any, block: Any, part: int) -> Any:
    low = _bits(builder, block, 48 + part // 2 * 32, part % 2 * 4, 15)
    return builder.or_(low, _bits(builder, block, 16, part - 4, 16))


def _quants_q6_k(builder: Any, block: Any, part: int) -> Any:
    half, quarter = divmod(part, 4)
    low = _bits(builder, block, 64 * half + quarter % 2 * 32, quarter // 2 * 4, 15)
    return builder.or_(low, _bits(builder, block, 128 + 32 * half, 2 * quarter - 4, 0x30))


def _quants_q2_k(builder: Any, block: Any, part: int) -> Any:
    half, quarter = divmod(part, 4)
    raised = _RAISED[quarter]
    return _bits(builder, block, 16 + half * 32, quarter * 2 - raised, 3 << raised)


def _quants_q3_k(builder: Any, block: Any, part: int) -> Any:
    half, quarter = divmod(part, 4)
    raised = _RAISED_3[quarter]
    low = _bits(builder, block, 32 + half * 32, quarter * 2 - raised, 3 << raised)
    return builder.or_(low, _bits(builder, block, 0, part - 2 - raised, 4 << raised))


def _quants_iq4_xs(builder: Any, block: Any, part: int) -> Any:
    return simd.nibbles_at(builder, at_offset(builder, block, 8 + 16 * part))


FORMATS = {
    "q2_k": Format(84, 16, _numbers_q2_k, _quants_q2_k),
    "q3_k": Format(110, 16, _numbers_q3_k, _quants_q3_k),
    "q4_k": Format(144, 8, _numbers_k4, _quants_q4_k),
    "q5_k": Format(176, 8, _numbers_k4, _quants_q5_k),
    "q6_k": Format(210, 16, _numbers_q6_k, _quants_q6_k),
    "iq4_xs": Format(136, 8, _numbers_iq4_xs, _quants_iq4_xs, IQ4_NL),
}
