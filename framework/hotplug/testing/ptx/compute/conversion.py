"""Conversions between types (PTX ISA, "cvt")."""

from __future__ import annotations

from typing import Any

import numpy as np

from hotplug.testing.ptx.compute.floats import toward
from hotplug.testing.ptx.compute.fma import lost_in_sum
from hotplug.testing.ptx.types import DTYPES, Value

__all__ = ["from_bf16", "from_integer", "integral", "to_bf16", "to_float", "to_integer"]

_ROUND = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


def integral(value: Value, rounding: str) -> Value:
    """A floating point number rounded to an integral one of its type."""
    return _ROUND[rounding](value)


def to_integer(value: Value, rounding: str, dtype: np.dtype[Any]) -> Value:
    """A floating point number as an integer, the nearest one where it does not fit.

    NaN becomes 0, or if one of both types has 64 bits, the integer with only the highest bit set.
    """
    limits = np.iinfo(dtype)
    whole = _ROUND[rounding](value).astype(np.float64)
    least, end = float(limits.min), float(limits.max + 1)
    inside = (whole >= least) & (whole < end)
    if inside.all():
        return whole.astype(dtype)
    zero = np.zeros((), dtype)
    result = np.where(inside, np.where(inside, whole, 0.0).astype(dtype), zero)
    result = np.where(whole < least, dtype.type(limits.min), result)
    result = np.where(whole >= end, dtype.type(limits.max), result)
    if value.dtype.itemsize == 8 or dtype.itemsize == 8:
        nan = np.array(1 << (8 * dtype.itemsize - 1), f"u{dtype.itemsize}").view(dtype)
        return np.where(np.isnan(value), nan, result)
    return result


def from_integer(value: Value, to: str, rounding: str) -> Value:
    """An integer as a floating point number."""
    dtype = np.dtype(DTYPES[to])
    if rounding == "rn":
        return value.astype(dtype)
    if value.dtype.itemsize < 8:
        return toward(value.astype(np.float64), 0.0, dtype, rounding)
    # Both halves are exact in float64, and so is their sum with what it loses.
    kind = value.dtype.type
    high = (value >> kind(32)).astype(np.float64) * 4294967296.0
    low = (value & kind(0xFFFFFFFF)).astype(np.float64)
    total = high + low
    return toward(total, lost_in_sum(high, low, total), dtype, rounding)


def to_float(value: Value, to: str, rounding: str) -> Value:
    """A floating point number as one of another type."""
    dtype = np.dtype(DTYPES[to])
    if rounding == "rn" or dtype.itemsize >= value.dtype.itemsize:
        return value.astype(dtype)
    return toward(value.astype(np.float64), 0.0, dtype, rounding)


def from_bf16(bits: Value) -> Value:
    """bf16's bits as float32, of which they are the upper half."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def to_bf16(value: Value, rounding: str) -> Value:
    """float32 as bf16's bits; NaN becomes 0x7fff."""
    bits = np.asarray(value).view(np.uint32)
    if rounding == "rn":
        bits = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    upper = (bits >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(value), np.uint16(0x7FFF), upper)
