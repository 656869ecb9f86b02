"""IQ formats of 1 to 3 bits: 256 elements as points of a codebook, with signs and group scales.

The formats are those of ggml (`ggml-common.h`, and `dequantize_row_iq*` in `ggml-quants.c`). They
are only read: their encoders search the codebook with an importance matrix. A point stands for 4 or
8 consecutive elements; `hotplug.quants.grids` lists the points. ggml's field names are d (scale),
qs (low, points), qh (high).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hotplug.quants import grids
from hotplug.quants.blocks import BlockCodec, Bytes, Floats, Records, column

__all__ = [
    "CODECS", "IQ1_M", "IQ1_S", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ3_S", "IQ3_XXS",
    "set_iq1_m_scale",
]  # fmt: skip

IQ2_XXS = np.dtype(
    [("scale", "<f2"), ("groups", np.dtype([("points", "u1", (4,)), ("signs", "<u4")]), (8,))]
)
"""8 groups of 4 points of 8: x = scale * (s + 1/2) / 4 * level.

`signs` holds s in its upper 4 bits, below it for each point 7 bits that are set for the elements
to be negated, the first lowest; the eighth is set if that makes their number even.
"""

IQ2_XS = np.dtype([("scale", "<f2"), ("points", "<u2", (32,)), ("scales", "u1", (8,))])
"""16 groups of 2 points of 8: x = scale * (s + 1/2) / 4 * level.

The lower 9 bits of `points` number a point, the upper 7 are its signs as in iq2_xxs. The halves of
byte i of `scales` are s of groups 2 * i and 2 * i + 1.
"""

IQ2_S = np.dtype(
    [
        ("scale", "<f2"),
        ("low", "u1", (32,)),
        ("signs", "u1", (32,)),
        ("high", "u1", (8,)),
        ("scales", "u1", (8,)),
    ]
)
"""As iq2_xs, with 10 bits a point, the upper two in pairs in `high`, and 8 signs a point."""

IQ3_XXS = np.dtype([("scale", "<f2"), ("points", "u1", (64,)), ("signs", "<u4", (8,))])
"""8 groups of 8 points of 4: x = scale * (s + 1/2) / 2 * level; `signs` as in iq2_xxs."""

IQ3_S = np.dtype(
    [
        ("scale", "<f2"),
        ("low", "u1", (64,)),
        ("high", "u1", (8,)),
        ("signs", "u1", (32,)),
        ("scales", "u1", (4,)),
    ]
)
"""8 groups of 8 points of 4: x = scale * (2 s + 1) * level.

Bit k of byte i of `high` is the ninth bit of point 8 * i + k; every element has a bit in `signs`.
"""

IQ1_S = np.dtype([("scale", "<f2"), ("low", "u1", (32,)), ("groups", "<u2", (8,))])
"""8 groups of 4 points of 8: x = scale * (2 s + 1) * (level + shift), shift 1/8 or -1/8.

A word of `groups` holds the upper 3 bits of each point, the first lowest, then 3 bits of s, and a
bit that is set if the shift is -1/8.
"""

IQ1_M = np.dtype([("low", "u1", (32,)), ("high", "u1", (16,)), ("scales", "<u2", (4,))])
"""16 groups of 2 points of 8: as iq1_s, but each point has a shift.

The halves of byte i of `high` hold the upper 3 bits and the shift's bit of points 2 * i and
2 * i + 1. A word of `scales` holds s of 4 groups, 3 bits each, and above them 4 bits of the f16
scale, the lowest in the first word.
"""

_NIBBLES = np.array([0, 4], np.uint8)
_PAIRS = np.array([0, 2, 4, 6], np.uint8)
_BITS = np.arange(8, dtype=np.uint8)
_SEVENS = np.array([0, 7, 14, 21], np.uint32)
_THREES = np.array([0, 3, 6, 9], np.uint16)
_SCALE_BITS = np.array([0, 4, 8, 12], np.uint16)
_SHIFT = np.array([0.125, -0.125], np.float32)

_SIGNS = np.where(np.arange(256)[:, np.newaxis] >> _BITS & 1, np.float32(-1), np.float32(1))
"""Factors on 8 elements by sign byte."""


def _even_signs() -> Floats:
    """Factors on 8 elements by 7 bits, of which the eighth makes the number of signs even."""
    byte = np.arange(128)
    odd = np.bitwise_xor.reduce(byte[:, np.newaxis] >> _BITS, axis=-1) & 1
    signs: Floats = _SIGNS.take(byte | odd << 7, axis=0)
    return signs


_EVEN_SIGNS = _even_signs()


def _spread(packed: Bytes, shifts: Bytes) -> Bytes:
    """Bit fields of bytes [n, k] one after the other, [n, k * fields]; upper bits not masked."""
    return (packed[:, :, np.newaxis] >> shifts).reshape(len(packed), -1)


def _group_scales(packed: Bytes) -> Floats:
    """Two numbers of 4 bits a byte, [n, k] -> float32 [n, 2 * k]."""
    return (_spread(packed, _NIBBLES) & np.uint8(15)).astype(np.float32)


def _numbers(low: Bytes, high: Bytes, bits: int) -> npt.NDArray[np.uint16]:
    """Points' numbers: 8 bits and above them the lower `bits` of another byte each."""
    upper = (high & np.uint8((1 << bits) - 1)).astype(np.uint16) << np.uint16(8)
    numbers: npt.NDArray[np.uint16] = low | upper
    return numbers


def _scaled(points: Floats, signs: Floats, scales: Floats) -> Floats:
    """Points and signs of [n, ...] 256 elements, times scales [n, groups]: [n, 256]."""
    count, groups = scales.shape
    values = points.reshape(count, groups, -1)
    values *= signs.reshape(values.shape)
    values *= scales[:, :, np.newaxis]
    return values.reshape(count, 256)


def _decode_iq2_xxs(records: Records) -> Floats:
    groups = records["groups"]
    signs, steps = _split_sign_words(groups["signs"])
    scales = column(records["scale"]) * (steps + np.float32(0.5)) * np.float32(0.25)
    return _scaled(grids.IQ2_XXS.take(groups["points"], axis=0), signs, scales)


def _split_sign_words(words: npt.NDArray[np.uint32]) -> tuple[Floats, Floats]:
    """Factors of 4 times 8 elements a word, and the group scales above them."""
    signs = (words[:, :, np.newaxis] >> _SEVENS) & np.uint32(127)
    return _EVEN_SIGNS.take(signs, axis=0), (words >> np.uint32(28)).astype(np.float32)


def _decode_iq2_xs(records: Records) -> Floats:
    points = records["points"]
    steps = _group_scales(records["scales"])
    scales = column(records["scale"]) * (steps + np.float32(0.5)) * np.float32(0.25)
    signs = _EVEN_SIGNS.take(points >> np.uint16(9), axis=0)
    return _scaled(grids.IQ2_XS.take(points & np.uint16(511), axis=0), signs, scales)


def _decode_iq2_s(records: Records) -> Floats:
    numbers = _numbers(records["low"], _spread(records["high"], _PAIRS), 2)
    steps = _group_scales(records["scales"])
    scales = column(records["scale"]) * (steps + np.float32(0.5)) * np.float32(0.25)
    signs = _SIGNS.take(records["signs"], axis=0)
    return _scaled(grids.IQ2_S.take(numbers, axis=0), signs, scales)


def _decode_iq3_xxs(records: Records) -> Floats:
    signs, steps = _split_sign_words(records["signs"])
    scales = column(records["scale"]) * (steps + np.float32(0.5)) * np.float32(0.5)
    return _scaled(grids.IQ3_XXS.take(records["points"], axis=0), signs, scales)


def _decode_iq3_s(records: Records) -> Floats:
    numbers = _numbers(records["low"], _spread(records["high"], _BITS), 1)
    steps = _group_scales(records["scales"])
    scales = column(records["scale"]) * (np.float32(2) * steps + np.float32(1))
    signs = _SIGNS.take(records["signs"], axis=0)
    return _scaled(grids.IQ3_S.take(numbers, axis=0), signs, scales)


def _decode_iq1_s(records: Records) -> Floats:
    count, groups = len(records), records["groups"]
    high = (groups[:, :, np.newaxis] >> _THREES).astype(np.uint8).reshape(count, 32)
    steps = ((groups >> np.uint16(12)) & np.uint16(7)).astype(np.float32)
    values = grids.IQ1.take(_numbers(records["low"], high, 3), axis=0).reshape(count, 8, 32)
    values += _SHIFT.take(groups >> np.uint16(15))[:, :, np.newaxis]
    values *= _odd_scales(column(records["scale"]), steps)
    return values.reshape(count, 256)


def _decode_iq1_m(records: Records) -> Floats:
    count, words = len(records), records["scales"]
    high = _spread(records["high"], _NIBBLES)
    steps = ((words[:, :, np.newaxis] >> _THREES) & np.uint16(7)).reshape(count, 16)
    values = grids.IQ1.take(_numbers(records["low"], high, 3), axis=0)
    values += _SHIFT.take((high >> np.uint8(3)) & np.uint8(1))[:, :, np.newaxis]
    values = values.reshape(count, 16, 16)
    values *= _odd_scales(_iq1_m_scale(words), steps.astype(np.float32))
    return values.reshape(count, 256)


def _odd_scales(scale: Floats, steps: Floats) -> Floats:
    return (scale * (np.float32(2) * steps + np.float32(1)))[:, :, np.newaxis]


def _iq1_m_scale(words: npt.NDArray[np.uint16]) -> Floats:
    """The f16 whose 4 parts are the upper bits of 4 words: float32 [n, 1]."""
    bits = np.bitwise_or.reduce((words >> np.uint16(12)) << _SCALE_BITS, axis=-1)
    return column(bits.view(np.float16))


def set_iq1_m_scale(records: Records, scale: npt.NDArray[np.float16]) -> None:
    """Store the scales [n] of iq1_m blocks, whose bits lie apart."""
    parts = scale.view(np.uint16)[:, np.newaxis] >> _SCALE_BITS
    records["scales"] = (records["scales"] & np.uint16(0xFFF)) | (parts << np.uint16(12))


CODECS = {
    "iq2_xxs": BlockCodec(IQ2_XXS, _decode_iq2_xxs),
    "iq2_xs": BlockCodec(IQ2_XS, _decode_iq2_xs),
    "iq2_s": BlockCodec(IQ2_S, _decode_iq2_s),
    "iq3_xxs": BlockCodec(IQ3_XXS, _decode_iq3_xxs),
    "iq3_s": BlockCodec(IQ3_S, _decode_iq3_s),
    "iq1_s": BlockCodec(IQ1_S, _decode_iq1_s),
    "iq1_m": BlockCodec(IQ1_M, _decode_iq1_m),
}
