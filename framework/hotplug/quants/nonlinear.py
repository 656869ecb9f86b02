"""IQ4 formats: 4-bit indices into one table of unevenly spaced levels.

The formats and the search of their encoders are those of ggml (`quantize_iq4_nl` and
`quantize_iq4_xs` in `ggml-quants.c`, without an importance matrix). Sums are taken in another
order than there, so that a scale can differ in its last bit from one that ggml wrote.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hotplug.quants.blocks import (
    BlockCodec,
    Bytes,
    Floats,
    Records,
    column,
    extreme_values,
    join_planes,
    new_records,
    reciprocal,
    split_planes,
)

__all__ = ["CODECS", "IQ4_NL", "IQ4_XS", "LEVELS"]

IQ4_NL = np.dtype([("scale", "<f2"), ("low", "u1", (16,))])
"""x = scale * level[q]. Byte i of `low` holds q of element i, and above it that of i + 16."""

IQ4_XS = np.dtype(
    [("scale", "<f2"), ("scales_high", "<u2"), ("scales_low", "u1", (4,)), ("low", "u1", (128,))]
)
"""8 groups of 32: x = scale * (s - 32) * level[q], s of 6 bits; each group packed as iq4_nl.

The halves of byte i of `scales_low` are the low bits of s of groups 2 * i and 2 * i + 1; bits
2 * g and 2 * g + 1 of `scales_high` are the high bits of s of group g.
"""

LEVELS = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32
)
# Borders between levels are whole multiples of a half, so that a table over floor(2 * x) decides
# exactly which level is nearest to x; on a border the upper one is.
_HALF_STEPS = 256
_NEAREST = np.searchsorted(
    LEVELS[:-1] + LEVELS[1:], np.arange(-_HALF_STEPS, _HALF_STEPS), side="right"
).astype(np.uint8)

_SMALLEST_EXTREME = np.float32(1e-15)
_TRIALS = range(-7, 8)


def _nearest_levels(scaled: Floats) -> Bytes:
    halves = np.floor(scaled * np.float32(2))
    np.clip(halves, -_HALF_STEPS, _HALF_STEPS - 1, out=halves)
    levels: Bytes = _NEAREST.take(halves.astype(np.int16) + np.int16(_HALF_STEPS))
    return levels


def _decode_iq4_nl(records: Records) -> Floats:
    indices = split_planes(records["low"][:, np.newaxis, :], 4).reshape(-1, 32)
    values = LEVELS.take(indices)
    values *= column(records["scale"])
    return values


def _decode_iq4_xs(records: Records) -> Floats:
    count = len(records)
    indices = split_planes(records["low"].reshape(count, 8, 16), 4).reshape(count, 8, 32)
    nibbles = (records["scales_low"][:, :, np.newaxis] >> np.array([0, 4], np.uint8)) & np.uint8(15)
    shifts = np.arange(0, 16, 2, dtype=np.uint16)
    high = (records["scales_high"][:, np.newaxis] >> shifts) & np.uint16(3)
    group_scales = nibbles.reshape(count, 8) | (high << np.uint16(4))
    scales = column(records["scale"]) * (group_scales.astype(np.float32) - np.float32(32))
    values = LEVELS.take(indices)
    values *= scales[:, :, np.newaxis]
    return values.reshape(count, 256)


def _encode_iq4_nl(values: Floats) -> Records:
    records = new_records(len(values), IQ4_NL)
    scales = _fit_scales(values)
    records["scale"] = scales[:, 0]
    records["low"] = _pack(values * reciprocal(scales))[:, 0]
    return records


def _encode_iq4_xs(values: Floats) -> Records:
    count = len(values)
    records = new_records(count, IQ4_XS)
    groups = values.reshape(count * 8, 32)
    fitted = _fit_scales(groups).reshape(count, 8)
    scale = extreme_values(fitted) / np.float32(-32)
    steps = np.clip(np.rint(fitted * reciprocal(scale)), -32, 31)
    inverse = reciprocal(scale * steps).reshape(-1, 1)
    records["scale"] = scale[:, 0]
    _store_group_scales(records, (steps + np.float32(32)).astype(np.uint16))
    records["low"] = _pack(groups * inverse).reshape(count, 128)
    return records


def _store_group_scales(records: Records, numbers: npt.NDArray[np.uint16]) -> None:
    low = (numbers & np.uint16(15)).astype(np.uint8)
    records["scales_low"] = low[:, 0::2] | (low[:, 1::2] << np.uint8(4))
    high = (numbers >> np.uint16(4)) << np.arange(0, 16, 2, dtype=np.uint16)
    records["scales_high"] = np.bitwise_or.reduce(high, axis=-1)


def _pack(scaled: Floats) -> Bytes:
    return join_planes(_nearest_levels(scaled).reshape(-1, 1, 2, 16))


def _fit_scales(groups: Floats) -> Floats:
    """Scale of each group [n, 32] that leaves the least error, weighted by the squares: [n, 1].

    Every trial maps the element of largest magnitude to a number near the outermost level, rounds
    all elements to levels, and asks which scale fits these levels best.
    """
    extreme = extreme_values(groups)
    product, norm = _project(groups, reciprocal(extreme / -LEVELS[0]))
    scale = product * reciprocal(norm)
    gain = scale * product
    for trial in _TRIALS:
        inverse = (np.float32(trial) + LEVELS[0]) * reciprocal(extreme)
        product, norm = _project(groups, inverse)
        better = product * product > gain * norm
        scale = np.where(better, product * reciprocal(norm), scale)
        gain = np.where(better, scale * product, gain)
    scale[np.abs(extreme) < _SMALLEST_EXTREME] = 0
    return scale


def _project(groups: Floats, inverse: Floats) -> tuple[Floats, Floats]:
    """Weighted products of each group with its levels, and of the levels with themselves."""
    levels = LEVELS.take(_nearest_levels(groups * inverse))
    weighted = groups * groups * levels
    product = (weighted * groups).sum(axis=-1, keepdims=True)
    norm = (weighted * levels).sum(axis=-1, keepdims=True)
    return product, norm


CODECS = {
    "iq4_nl": BlockCodec(IQ4_NL, _decode_iq4_nl, _encode_iq4_nl),
    "iq4_xs": BlockCodec(IQ4_XS, _decode_iq4_xs, _encode_iq4_xs),
}
