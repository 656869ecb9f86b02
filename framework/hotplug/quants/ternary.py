"""TQ formats: 256 elements of -1, 0 or 1, times one f16 scale.

The formats are those of ggml (`quantize_row_tq1_0_ref` and `quantize_row_tq2_0_ref` in
`ggml-quants.c`), made for BitNet and TriLM models.
"""

from __future__ import annotations

import numpy as np

from hotplug.quants.blocks import (
    BlockCodec,
    Bytes,
    Floats,
    Records,
    column,
    join_planes,
    new_records,
    reciprocal,
    round_half_away,
    split_planes,
)

__all__ = ["CODECS", "TQ1_0", "TQ2_0"]

TQ1_0 = np.dtype(
    [("fives", "u1", (32,)), ("more_fives", "u1", (16,)), ("fours", "u1", (4,)), ("scale", "<f2")]
)
"""x = scale * (t - 1), t a digit of base 3, five of them a byte (ggml: qs, qs, qh, d).

Byte i of `fives` holds elements i, i + 32, ... i + 128, the first one leading; `more_fives` goes
on from element 160 in steps of 16; `fours` from 240 in steps of 4, with the last digit unused. Five
digits make a number below 243, stored as ceil(number * 256 / 243), so that multiplying the byte by
3 brings the leading digit above the byte and leaves the rest in it.
"""

TQ2_0 = np.dtype([("quants", "u1", (64,)), ("scale", "<f2")])
"""x = scale * (q - 1), q of 2 bits.

The four bit pairs of byte i of each half of `quants` belong to elements i, i + 32, i + 64 and
i + 96 of that half.
"""

_DIGITS = 5
# (field, elements it holds): each field holds digits of elements that lie its own length apart.
_TQ1_FIELDS = (
    ("fives", slice(0, 160)),
    ("more_fives", slice(160, 240)),
    ("fours", slice(240, 256)),
)


def _digit_table() -> Bytes:
    """[5, 256]: digit k, counted from the leading one, of every byte."""
    rest = np.arange(256)
    table = np.empty((_DIGITS, 256), np.uint8)
    for digits in table:
        digits[:], rest = np.divmod(rest * 3, 256)
    return table


_DIGIT_OF = _digit_table()


def _decode_tq1_0(records: Records) -> Floats:
    values = np.empty((len(records), 256), np.float32)
    for field, elements in _TQ1_FIELDS:
        packed = records[field]
        part = values[:, elements].reshape(len(records), -1, packed.shape[-1])
        for index in range(part.shape[1]):
            part[:, index] = _DIGIT_OF[index].take(packed)
    values -= np.float32(1)
    values *= column(records["scale"])
    return values


def _encode_tq1_0(values: Floats) -> Records:
    records = new_records(len(values), TQ1_0)
    digits = _ternary_digits(values, records)
    for field, elements in _TQ1_FIELDS:
        width = records[field].shape[-1]
        records[field] = _pack_digits(digits[:, elements].reshape(len(values), -1, width))
    return records


def _pack_digits(digits: Bytes) -> Bytes:
    """[n, up to 5, width] -> [n, width]; missing digits are 0."""
    count = digits.shape[1]
    weights = 3 ** np.arange(_DIGITS - 1, _DIGITS - 1 - count, -1, dtype=np.uint16)
    numbers = (digits * weights[:, np.newaxis]).sum(axis=1, dtype=np.uint16)
    packed: Bytes = ((numbers * np.uint16(256) + np.uint16(242)) // np.uint16(243)).astype(np.uint8)
    return packed


def _decode_tq2_0(records: Records) -> Floats:
    packed = records["quants"].reshape(len(records), 2, 32)
    values = split_planes(packed, 2).reshape(-1, 256).astype(np.float32)
    values -= np.float32(1)
    values *= column(records["scale"])
    return values


def _encode_tq2_0(values: Floats) -> Records:
    records = new_records(len(values), TQ2_0)
    digits = _ternary_digits(values, records)
    records["quants"] = join_planes(digits.reshape(-1, 2, 4, 32)).reshape(-1, 64)
    return records


def _ternary_digits(values: Floats, records: Records) -> Bytes:
    """0, 1 or 2 for each element; stores the largest magnitude as the scale."""
    scale = np.abs(values).max(axis=-1, keepdims=True)
    records["scale"] = scale[:, 0]
    return (round_half_away(values * reciprocal(scale)) + np.float32(1)).astype(np.uint8)


CODECS = {
    "tq1_0": BlockCodec(TQ1_0, _decode_tq1_0, _encode_tq1_0),
    "tq2_0": BlockCodec(TQ2_0, _decode_tq2_0, _encode_tq2_0),
}
