"""Q1_0 and Q2_0: one f16 scale, and 1 or 2 bits an element, packed one after the other.

The formats are those of ggml (`quantize_row_q1_0_ref` and `quantize_row_q2_0_ref` in
`ggml-quants.c`). Element i is in byte i * bits // 8, lower bits first.
"""

from __future__ import annotations

import numpy as np

from hotplug.quants.blocks import (
    BlockCodec,
    Floats,
    Records,
    column,
    new_records,
    reciprocal,
    round_half_away,
)

__all__ = ["CODECS", "Q1_0", "Q2_0"]

Q1_0 = np.dtype([("scale", "<f2"), ("quants", "u1", (16,))])
"""128 elements: x = scale where the bit is set, else -scale."""

Q2_0 = np.dtype([("scale", "<f2"), ("quants", "u1", (16,))])
"""64 elements: x = scale * (q - 1), q of 2 bits."""

_PAIR_SHIFTS = np.array([0, 2, 4, 6], np.uint8)


def _decode_q1_0(records: Records) -> Floats:
    bits = np.unpackbits(records["quants"], axis=-1, bitorder="little")
    scale = column(records["scale"])
    return np.where(bits, scale, -scale)


def _encode_q1_0(values: Floats) -> Records:
    records = new_records(len(values), Q1_0)
    # A running sum adds in order, as ggml does; a plain sum adds in pairs and rounds otherwise.
    magnitude = np.cumsum(np.abs(values), axis=-1, dtype=np.float32)[:, -1]
    records["scale"] = magnitude / np.float32(128)
    records["quants"] = np.packbits(values >= 0, axis=-1, bitorder="little")
    return records


def _decode_q2_0(records: Records) -> Floats:
    pairs = (records["quants"][:, :, np.newaxis] >> _PAIR_SHIFTS) & np.uint8(3)
    values = pairs.reshape(len(records), 64).astype(np.float32)
    values -= np.float32(1)
    values *= column(records["scale"])
    return values


def _encode_q2_0(values: Floats) -> Records:
    records = new_records(len(values), Q2_0)
    scale = np.abs(values).max(axis=-1, keepdims=True)
    digits = (round_half_away(values * reciprocal(scale)) + np.float32(1)).astype(np.uint8)
    pairs = digits.reshape(len(values), 16, 4) << _PAIR_SHIFTS
    records["scale"] = scale[:, 0]
    records["quants"] = np.bitwise_or.reduce(pairs, axis=-1)
    return records


CODECS = {
    "q1_0": BlockCodec(Q1_0, _decode_q1_0, _encode_q1_0),
    "q2_0": BlockCodec(Q2_0, _decode_q2_0, _encode_q2_0),
}
