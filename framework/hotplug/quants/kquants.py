"""K-quants: super-blocks of 256 elements whose groups have small integer scales of their own.

The formats are those of ggml (`ggml-common.h`, and `dequantize_row_q*_K` in `ggml-quants.c`). Their
encoders search for scales as `quantize_row_q*_K_ref` do there, without an importance matrix, and
leave as much error; few blocks of q2_k and q3_k come out alike, which take the search of the other
formats, and most of q4_k to q8_k, whose sums are taken in another order. ggml's field names are d
(scale), dmin (minimum_scale), qs (low), qh or hmask (high).
"""

from __future__ import annotations

import numpy as np

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
from hotplug.quants.fitting import fit_affine, fit_signed, round_to_steps

__all__ = ["CODECS", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_K"]

Q2_K = np.dtype(
    [("scales", "u1", (16,)), ("low", "u1", (64,)), ("scale", "<f2"), ("minimum_scale", "<f2")]
)
"""16 groups of 16: x = scale * s * q - minimum_scale * m, q of 2 bits.

A byte of `scales` holds s in its lower and m in its upper half. The four bit pairs of byte i of
each half of `low` belong to elements i, i + 32, i + 64 and i + 96 of that half.
"""

Q3_K = np.dtype(
    [("high", "u1", (32,)), ("low", "u1", (64,)), ("scales", "u1", (12,)), ("scale", "<f2")]
)
"""16 groups of 16: x = scale * (s - 32) * (q - 4), q of 3 bits, s of 6.

`low` as in q2_k. Bit k of byte i of `high` is the third bit of element 32 * k + i.
"""

Q4_K = np.dtype(
    [("scale", "<f2"), ("minimum_scale", "<f2"), ("scales", "u1", (12,)), ("low", "u1", (128,))]
)
"""8 groups of 32: x = scale * s * q - minimum_scale * m, q of 4 bits, s and m of 6.

The halves of byte i of each quarter of `low` belong to elements i and i + 32 of that quarter.
"""

Q5_K = np.dtype(
    [
        ("scale", "<f2"),
        ("minimum_scale", "<f2"),
        ("scales", "u1", (12,)),
        ("high", "u1", (32,)),
        ("low", "u1", (128,)),
    ]
)
"""As q4_k with q of 5 bits: bit k of byte i of `high` is the fifth of element 32 * k + i."""

Q6_K = np.dtype(
    [("low", "u1", (128,)), ("high", "u1", (64,)), ("scales", "i1", (16,)), ("scale", "<f2")]
)
"""16 groups of 16: x = scale * s * (q - 32), q of 6 bits, s of 8.

The halves of byte i of each half of `low` belong to elements i and i + 64 of that half; the four
bit pairs of byte i of each half of `high` to elements i, i + 32, i + 64 and i + 96.
"""

Q8_K = np.dtype([("scale", "<f4"), ("quants", "i1", (256,)), ("sums", "<i2", (16,))])
"""x = scale * q. `sums` are those of 16 q each, kept for dot products with the other K-quants."""


# How many more levels than there are a group's range is tried as.
_TRIALS_Q2_K = _TRIALS_Q5_K = tuple(trial / 10 for trial in range(-5, 11))
_TRIALS_Q4_K = tuple(trial / 10 for trial in range(-10, 11))


def _in_groups(quants: Bytes, groups: int) -> Floats:
    return quants.reshape(len(quants), groups, 256 // groups).astype(np.float32)


def _scale_groups(values: Floats, scales: Floats, minima: Floats | None = None) -> Floats:
    """Values [n, groups, size] * scales [n, groups] - minima [n, groups], as [n, 256]."""
    values *= scales[:, :, np.newaxis]
    if minima is not None:
        values -= minima[:, :, np.newaxis]
    return values.reshape(len(values), 256)


def _halves(packed: Bytes, bits: int) -> Bytes:
    return split_planes(packed.reshape(len(packed), 2, -1), bits).reshape(-1, 256)


def _high_bits(high: Bytes) -> Bytes:
    return split_planes(high[:, np.newaxis, :], 1).reshape(-1, 256)


def _decode_q2_k(records: Records) -> Floats:
    nibbles = records["scales"]
    scales = column(records["scale"]) * (nibbles & np.uint8(15)).astype(np.float32)
    minima = column(records["minimum_scale"]) * (nibbles >> np.uint8(4)).astype(np.float32)
    return _scale_groups(_in_groups(_halves(records["low"], 2), 16), scales, minima)


def _decode_q3_k(records: Records) -> Floats:
    quants = _halves(records["low"], 2) | (_high_bits(records["high"]) << np.uint8(2))
    values = _in_groups(quants, 16)
    values -= np.float32(4)
    scales = _six_bit_scales(records["scales"]).astype(np.float32) - np.float32(32)
    return _scale_groups(values, column(records["scale"]) * scales)


def _six_bit_scales(packed: Bytes) -> Bytes:
    """16 numbers of 6 bits from 12 bytes [n, 12], as q3_k packs them.

    Numbers 0-7 have their low four bits in the lower halves of bytes 0-7, numbers 8-15 in the
    upper halves. The four bit pairs of byte 8 + i are the high bits of i, i + 4, i + 8 and i + 12.
    """
    low = split_planes(packed[:, np.newaxis, :8], 4).reshape(-1, 16)
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, np.newaxis]
    high = (packed[:, np.newaxis, 8:] >> shifts) & np.uint8(3)
    return low | (high.reshape(-1, 16) << np.uint8(4))


def _six_bit_scales_and_minima(packed: Bytes) -> tuple[Bytes, Bytes]:
    """8 scales and 8 minima of 6 bits from 12 bytes [n, 12], as q4_k and q5_k pack them.

    Bytes 0-3 and 4-7 hold the first four scales and minima in their lower six bits. The lower
    halves of bytes 8-11 are the low four bits of the last four scales, the upper halves those of
    the last four minima; their high bits are the upper two bits of bytes 0-3 and 4-7.
    """
    first, second, last = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    six = np.uint8(0x3F)
    top = np.uint8(0x30)
    late_scales = (last & np.uint8(15)) | ((first >> np.uint8(2)) & top)
    late_minima = (last >> np.uint8(4)) | ((second >> np.uint8(2)) & top)
    scales = np.concatenate([first & six, late_scales], axis=-1)
    minima = np.concatenate([second & six, late_minima], axis=-1)
    return scales, minima


def _decode_q4_k_or_q5_k(records: Records) -> Floats:
    low = records["low"].reshape(len(records), 4, 32)
    quants = split_planes(low, 4).reshape(-1, 256)
    if "high" in (records.dtype.names or ()):
        quants |= _high_bits(records["high"]) << np.uint8(4)
    scales, minima = _six_bit_scales_and_minima(records["scales"])
    return _scale_groups(
        _in_groups(quants, 8),
        column(records["scale"]) * scales.astype(np.float32),
        column(records["minimum_scale"]) * minima.astype(np.float32),
    )


def _decode_q6_k(records: Records) -> Floats:
    quants = _halves(records["low"], 4) | (_halves(records["high"], 2) << np.uint8(4))
    values = _in_groups(quants, 16)
    values -= np.float32(32)
    scales = column(records["scale"]) * records["scales"].astype(np.float32)
    return _scale_groups(values, scales)


def _decode_q8_k(records: Records) -> Floats:
    values = records["quants"].astype(np.float32)
    values *= column(records["scale"])
    return values


def _encode_q2_k(values: Floats) -> Records:
    records = new_records(len(values), Q2_K)
    groups = values.reshape(-1, 16)
    scale, minimum = _fit_groups(groups, 3, _TRIALS_Q2_K, base=False)
    steps, offsets = _store_scales(records, scale, minimum, 15)
    records["scales"] = steps | (offsets << np.uint8(4))
    records["low"] = _join_halves(_affine_quants(records, groups, steps, offsets, 3), 2)
    return records


def _encode_q4_k(values: Floats) -> Records:
    records = new_records(len(values), Q4_K)
    quants = _encode_eight_groups(records, values, 15, _TRIALS_Q4_K)
    records["low"] = join_planes(quants.reshape(-1, 4, 2, 32)).reshape(-1, 128)
    return records


def _encode_q5_k(values: Floats) -> Records:
    records = new_records(len(values), Q5_K)
    quants = _encode_eight_groups(records, values, 31, _TRIALS_Q5_K)
    low = (quants & np.uint8(15)).reshape(-1, 4, 2, 32)
    records["low"] = join_planes(low).reshape(-1, 128)
    records["high"] = join_planes((quants >> np.uint8(4)).reshape(-1, 1, 8, 32))[:, 0]
    return records


def _encode_eight_groups(
    records: Records, values: Floats, levels: int, trials: tuple[float, ...]
) -> Bytes:
    """Quants [n, 256] of q4_k and q5_k; stores all but them."""
    groups = values.reshape(-1, 32)
    scale, minimum = _fit_groups(groups, levels, trials, base=True)
    steps, offsets = _store_scales(records, scale, minimum, 63)
    records["scales"] = _pack_scales_and_minima(steps, offsets)
    return _affine_quants(records, groups, steps, offsets, levels)


def _fit_groups(
    groups: Floats, levels: int, trials: tuple[float, ...], *, base: bool
) -> tuple[Floats, Floats]:
    """Scales and minima of groups, a row [n, groups in a block] for each block."""
    blocks = groups.size // 256
    scale, minimum = fit_affine(groups, levels, trials, base=base)
    return scale.reshape(blocks, -1), minimum.reshape(blocks, -1)


def _store_scales(
    records: Records, scale: Floats, minimum: Floats, levels: int
) -> tuple[Bytes, Bytes]:
    """Store the scales of scales and minima; both as whole numbers of them, [n, groups]."""
    numbers = []
    for field, values in (("scale", scale), ("minimum_scale", minimum)):
        step = values.max(axis=-1, keepdims=True) / np.float32(levels)
        records[field] = step[:, 0]
        numbers.append(round_to_steps(values, step, 0, levels).astype(np.uint8))
    return numbers[0], numbers[1]


def _affine_quants(
    records: Records, groups: Floats, steps: Bytes, offsets: Bytes, levels: int
) -> Bytes:
    """Quants [n, 256] for the scales and minima that were stored, which are rounded."""
    scale = column(records["scale"]) * steps.astype(np.float32)
    minimum = column(records["minimum_scale"]) * offsets.astype(np.float32)
    raised = groups + minimum.reshape(-1, 1)
    quants = round_to_steps(raised, scale.reshape(-1, 1), 0, levels)
    return quants.astype(np.uint8).reshape(-1, 256)


def _pack_scales_and_minima(scales: Bytes, minima: Bytes) -> Bytes:
    """Undoes `_six_bit_scales_and_minima`."""
    low, two = np.uint8(15), np.uint8(2)
    top = np.uint8(0xC0)
    first = scales[:, :4] | ((scales[:, 4:] << two) & top)
    second = minima[:, :4] | ((minima[:, 4:] << two) & top)
    last = (scales[:, 4:] & low) | (minima[:, 4:] << np.uint8(4))
    return np.concatenate([first, second, last], axis=-1)


def _encode_q3_k(values: Floats) -> Records:
    records = new_records(len(values), Q3_K)
    quants, steps = _signed_quants(records, values, 4, 32)
    records["scales"] = _pack_six_bit_scales((steps + np.float32(32)).astype(np.uint8))
    records["low"] = _join_halves(quants & np.uint8(3), 2)
    records["high"] = join_planes((quants >> np.uint8(2)).reshape(-1, 1, 8, 32))[:, 0]
    return records


def _encode_q6_k(values: Floats) -> Records:
    records = new_records(len(values), Q6_K)
    quants, steps = _signed_quants(records, values, 32, 128)
    records["scales"] = steps.astype(np.int8)
    records["low"] = _join_halves(quants & np.uint8(15), 4)
    records["high"] = _join_halves(quants >> np.uint8(4), 2)
    return records


def _signed_quants(
    records: Records, values: Floats, limit: int, steps: int
) -> tuple[Bytes, Floats]:
    """Quants [n, 256] plus the limit, and scales of 16 groups as whole numbers; stores theirs."""
    groups = values.reshape(-1, 16)
    scales = fit_signed(groups, limit).reshape(-1, 16)
    records["scale"] = extreme_values(scales)[:, 0] / np.float32(-steps)
    inverse = -steps * reciprocal(extreme_values(scales))
    numbers = np.clip(np.rint(scales * inverse), -steps, steps - 1)
    size = (column(records["scale"]) * numbers).reshape(-1, 1)
    quants = round_to_steps(groups, size, -limit, limit - 1) + np.float32(limit)
    return quants.astype(np.uint8).reshape(-1, 256), numbers


def _pack_six_bit_scales(scales: Bytes) -> Bytes:
    """Undoes `_six_bit_scales`."""
    low = join_planes((scales & np.uint8(15)).reshape(-1, 1, 2, 8))[:, 0]
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, np.newaxis]
    high = (scales >> np.uint8(4)).reshape(-1, 4, 4) << shifts
    return np.concatenate([low, np.bitwise_or.reduce(high, axis=1)], axis=-1)


def _join_halves(quants: Bytes, bits: int) -> Bytes:
    """Undoes `_halves`."""
    return join_planes(quants.reshape(len(quants), 2, 8 // bits, -1)).reshape(len(quants), -1)


def _encode_q8_k(values: Floats) -> Records:
    records = new_records(len(values), Q8_K)
    extreme = extreme_values(values)
    extreme[extreme == 0] = np.inf
    inverse = np.float32(-127) / extreme
    quants = np.clip(np.rint(values * inverse), -127, 127)
    records["scale"] = reciprocal(inverse)[:, 0]
    records["quants"] = quants
    records["sums"] = quants.reshape(-1, 16, 16).sum(axis=-1)
    return records


CODECS = {
    "q2_k": BlockCodec(Q2_K, _decode_q2_k, _encode_q2_k),
    "q3_k": BlockCodec(Q3_K, _decode_q3_k, _encode_q3_k),
    "q4_k": BlockCodec(Q4_K, _decode_q4_k_or_q5_k, _encode_q4_k),
    "q5_k": BlockCodec(Q5_K, _decode_q4_k_or_q5_k, _encode_q5_k),
    "q6_k": BlockCodec(Q6_K, _decode_q6_k, _encode_q6_k),
    "q8_k": BlockCodec(Q8_K, _decode_q8_k, _encode_q8_k),
}
