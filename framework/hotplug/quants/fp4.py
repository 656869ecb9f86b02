"""MXFP4 and NVFP4: 4-bit floats (E2M1) with a shared 8-bit float scale.

MXFP4 is the format of the OCP Microscaling specification 1.0 with its bytes laid out as in ggml;
NVFP4 is NVIDIA's, as ggml lays it out (`quantize_row_mxfp4_ref` and `quantize_row_nvfp4_ref` in
`ggml-quants.c`). As there, the table of E2M1 holds doubled values, which are whole, and scales are
halved to make up for it.
"""

from __future__ import annotations

import numpy as np

from hotplug.quants.blocks import (
    BlockCodec,
    Bytes,
    Floats,
    Records,
    join_planes,
    new_records,
    split_planes,
)

__all__ = ["CODECS", "MXFP4", "NVFP4"]

MXFP4 = np.dtype([("scale", "u1"), ("low", "u1", (16,))])
"""32 elements: x = 2 ** (scale - 127) * E2M1[q].

Byte i of `low` holds q of element i, and above it that of element i + 16.
"""

NVFP4 = np.dtype([("scales", "u1", (4,)), ("low", "u1", (32,))])
"""4 groups of 16: x = E4M3[scale of the group] * E2M1[q], the sign bit of E4M3 unused.

Bytes 8 * g to 8 * g + 7 of `low` are those of group g; byte i of them holds q of its elements i
and i + 8.
"""

_MAGNITUDES = np.array([0, 1, 2, 3, 4, 6, 8, 12], np.float32)
_E2M1_DOUBLED = np.concatenate([_MAGNITUDES, -_MAGNITUDES])
# -0.0 and 0 are one value to ggml, which takes the table from integers.
_E2M1_DOUBLED[8] = 0
_BORDERS = (_MAGNITUDES[:-1] + _MAGNITUDES[1:]) / np.float32(2)
_SIGN_BIT = np.uint8(3)
_LARGEST_E4M3 = np.float32(448)


def _halved_e8m0() -> Floats:
    """2 ** (byte - 128) for every byte; the first two are subnormal in float32."""
    return np.ldexp(np.float32(1), np.arange(256) - 128).astype(np.float32)


def _halved_e4m3() -> Floats:
    """Half of the unsigned E4M3 value of every byte.

    0x7F, which is NaN, reads as 0, and bit 7 is ignored except there, as in ggml.
    """
    byte = np.arange(256)
    exponent = (byte >> 3) & 15
    mantissa = byte & 7
    subnormal = np.ldexp(mantissa.astype(np.float32), -10)
    normal = np.ldexp((8 + mantissa).astype(np.float32), exponent - 11)
    table = np.where(exponent == 0, subnormal, normal)
    table[0x7F] = 0
    return table


_E8M0 = _halved_e8m0()
_E4M3 = _halved_e4m3()


def _decode_mxfp4(records: Records) -> Floats:
    packed = records["low"][:, np.newaxis, :]
    values = _E2M1_DOUBLED.take(split_planes(packed, 4).reshape(-1, 32))
    values *= _E8M0.take(records["scale"])[:, np.newaxis]
    return values


def _encode_mxfp4(values: Floats) -> Records:
    records = new_records(len(values), MXFP4)
    largest = np.abs(values).max(axis=-1, keepdims=True)
    # The largest magnitude lands in [4, 8), of which E2M1 holds 4 and 6. Magnitudes below 2**-125
    # take the smallest scale; ggml lets their exponent wrap around to a huge one.
    exponent = np.floor(np.log2(largest)) + np.float32(125)
    scale = np.where(largest > 0, np.maximum(exponent, 0), 0).astype(np.uint8)
    records["scale"] = scale[:, 0]
    records["low"] = _pack(_nearest(values, _E8M0.take(scale)), 16)[:, 0]
    return records


def _decode_nvfp4(records: Records) -> Floats:
    packed = records["low"].reshape(len(records), 4, 8)
    values = _E2M1_DOUBLED.take(split_planes(packed, 4).reshape(-1, 4, 16))
    values *= _E4M3.take(records["scales"])[:, :, np.newaxis]
    return values.reshape(-1, 64)


def _encode_nvfp4(values: Floats) -> Records:
    records = new_records(len(values), NVFP4)
    groups = values.reshape(-1, 4, 16)
    scales = _to_e4m3(np.abs(groups).max(axis=-1) / np.float32(6))
    records["scales"] = scales
    quants = _nearest(groups, _E4M3.take(scales)[:, :, np.newaxis])
    records["low"] = _pack(quants, 8).reshape(-1, 32)
    return records


def _nearest(values: Floats, scale: Floats) -> Bytes:
    """Number of the nearest E2M1 value; of two as near, the one of smaller magnitude.

    Borders times scale are exact in float32, as is the comparison, so this agrees with a search
    for the least distance. A scale of 0 leaves nothing but zero.
    """
    magnitude = np.where(scale > 0, np.abs(values), 0)
    quants = np.zeros(values.shape, np.uint8)
    for border in _BORDERS:
        quants += magnitude > scale * border
    negative = (values < 0) & (quants > 0)
    return quants | (negative.view(np.uint8) << _SIGN_BIT)


def _pack(quants: Bytes, width: int) -> Bytes:
    return join_planes(quants.reshape(len(quants), -1, 2, width))


def _to_e4m3(scales: Floats) -> Bytes:
    """Nearest unsigned E4M3 byte of numbers that are at least 0, up to 448; halves go up.

    ggml differs in two places: it takes 448 for all from 256 on, and 7 * 2**-9 for what is nearer
    to 2**-6.
    """
    held = np.minimum(scales, _LARGEST_E4M3)
    _, exponent = np.frexp(held)
    # held < 2 ** exponent. E4M3 has eight steps to a power of two, none below 2 ** -9.
    step_exponent = np.where(held > 0, np.maximum(exponent - 4, -9), -9)
    steps = np.floor(np.ldexp(held, -step_exponent) + np.float32(0.5)).astype(np.int32)
    # From 2 ** -6 on steps has four bits, the first of them implied; adding it carries it, and a
    # number rounded up to the next power of two, into the exponent.
    encoded: Bytes = ((step_exponent + 9) * 8 + steps).astype(np.uint8)
    return encoded


CODECS = {
    "mxfp4": BlockCodec(MXFP4, _decode_mxfp4, _encode_mxfp4),
    "nvfp4": BlockCodec(NVFP4, _decode_nvfp4, _encode_nvfp4),
}
