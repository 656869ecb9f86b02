"""The first GGUF block formats: 32 elements, one f16 scale, linear levels of 4, 5 or 8 bits.

The formats and the rounding of their encoders are those of ggml (`ggml-quants.c`, the `_ref`
functions). Its field names are d (scale), m (minimum), s (sum), qs (low, quants), qh (high).
"""

from __future__ import annotations

from functools import partial

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
    round_half_away,
    split_planes,
)

__all__ = ["CODECS", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q8_1"]

Q4_0 = np.dtype([("scale", "<f2"), ("low", "u1", (16,))])
"""x = scale * (q - 8). Byte i of `low` holds q of element i, and above it that of i + 16."""

Q4_1 = np.dtype([("scale", "<f2"), ("minimum", "<f2"), ("low", "u1", (16,))])
"""x = scale * q + minimum, packed as q4_0."""

Q5_0 = np.dtype([("scale", "<f2"), ("high", "u1", (4,)), ("low", "u1", (16,))])
"""x = scale * (q - 16). The low four bits of q as in q4_0; bit i of `high` is the fifth."""

Q5_1 = np.dtype([("scale", "<f2"), ("minimum", "<f2"), ("high", "u1", (4,)), ("low", "u1", (16,))])
"""x = scale * q + minimum, packed as q5_0."""

Q8_0 = np.dtype([("scale", "<f2"), ("quants", "i1", (32,))])
"""x = scale * q."""

Q8_1 = np.dtype([("scale", "<f2"), ("sum", "<f2"), ("quants", "i1", (32,))])
"""x = scale * q. `sum` is scale * (q[0] + ... + q[31]), for dot products with q4_1 and q5_1."""


def _decode_linear(records: Records) -> Floats:
    """Decode q4_0, q4_1, q5_0 and q5_1, which differ in the fields they have."""
    fields = records.dtype.names or ()
    quants = split_planes(records["low"][:, np.newaxis, :], 4).reshape(len(records), 32)
    if "high" in fields:
        quants |= np.unpackbits(records["high"], axis=-1, bitorder="little") << np.uint8(4)
    values = quants.astype(np.float32)
    if "minimum" not in fields:
        values -= np.float32(_levels(fields) // 2)
    values *= column(records["scale"])
    if "minimum" in fields:
        values += column(records["minimum"])
    return values


def _encode_linear(values: Floats, layout: np.dtype[np.void]) -> Records:
    """Encode q4_0, q4_1, q5_0 and q5_1, which differ in the fields they have."""
    fields = layout.names or ()
    records = new_records(len(values), layout)
    fit = _fit_with_minimum if "minimum" in fields else _fit_around_zero
    quants = fit(values, records, _levels(fields))
    records["low"] = join_planes((quants & np.uint8(15)).reshape(-1, 1, 2, 16))[:, 0]
    if "high" in fields:
        records["high"] = np.packbits(quants >> np.uint8(4), axis=-1, bitorder="little")
    return records


def _levels(fields: tuple[str, ...]) -> int:
    return 32 if "high" in fields else 16


def _fit_around_zero(values: Floats, records: Records, levels: int) -> Bytes:
    """Level 0 is the element of largest magnitude, whatever its sign; the middle level is 0."""
    half = levels // 2
    scale = extreme_values(values) / np.float32(-half)
    records["scale"] = scale[:, 0]
    return _level_numbers(values * reciprocal(scale) + np.float32(half + 0.5), levels)


def _fit_with_minimum(values: Floats, records: Records, levels: int) -> Bytes:
    """Levels go from the smallest to the largest element."""
    minimum = values.min(axis=-1, keepdims=True)
    scale = (values.max(axis=-1, keepdims=True) - minimum) / np.float32(levels - 1)
    records["scale"] = scale[:, 0]
    records["minimum"] = minimum[:, 0]
    return _level_numbers((values - minimum) * reciprocal(scale) + np.float32(0.5), levels)


def _level_numbers(shifted: Floats, levels: int) -> Bytes:
    """Whole part of numbers that are at least 0, held below `levels`."""
    return np.minimum(shifted, np.float32(levels - 1)).astype(np.uint8)


def _decode_q8(records: Records) -> Floats:
    values = records["quants"].astype(np.float32)
    values *= column(records["scale"])
    return values


def _encode_q8(values: Floats, layout: np.dtype[np.void]) -> Records:
    records = new_records(len(values), layout)
    scale = np.abs(values).max(axis=-1, keepdims=True) / np.float32(127)
    quants = round_half_away(values * reciprocal(scale)).astype(np.int8)
    records["scale"] = scale[:, 0]
    records["quants"] = quants
    if "sum" in (layout.names or ()):
        # ggml multiplies by the scale as it was before it was rounded to f16.
        records["sum"] = quants.sum(axis=-1, dtype=np.int32).astype(np.float32) * scale[:, 0]
    return records


def _linear(layout: np.dtype[np.void]) -> BlockCodec:
    return BlockCodec(layout, _decode_linear, partial(_encode_linear, layout=layout))


def _q8(layout: np.dtype[np.void]) -> BlockCodec:
    return BlockCodec(layout, _decode_q8, partial(_encode_q8, layout=layout))


CODECS = {
    "q4_0": _linear(Q4_0),
    "q4_1": _linear(Q4_1),
    "q5_0": _linear(Q5_0),
    "q5_1": _linear(Q5_1),
    "q8_0": _q8(Q8_0),
    "q8_1": _q8(Q8_1),
}
