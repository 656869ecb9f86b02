"""Plain dtypes: bytes to numbers and back, with every conversion rounded once.

Numbers travel in the NumPy dtype that holds them exactly; bf16 travels as float32, whose upper half
it is. Conversions follow these rules, whatever the platform:

- to a float: round to nearest, halves to even; what is too large becomes infinite; NaN stays NaN.
- to an integer: truncate toward zero, then take the nearest number that the dtype holds; NaN is 0.
  C leaves the last two undefined, the Python array API leaves them to the implementation.
- to bool: everything but zero is true, NaN too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hotplug.dtypes import DType, Kind
from hotplug.quants.blocks import Bytes, Floats

__all__ = ["bf16_to_float32", "float32_to_bf16", "load", "store"]

_BF16 = "bf16"
_QUIET = np.uint16(0x0040)


def load(data: Bytes, dtype: DType) -> npt.NDArray[Any]:
    """Numbers held by the flat bytes of a plain dtype; where it can, over the same memory."""
    if dtype.kind is Kind.BOOL:
        return np.not_equal(data, 0)
    if dtype.name == _BF16:
        return bf16_to_float32(data.view("<u2"))
    return data.view(_element(dtype))


def store(values: npt.NDArray[Any], dtype: DType) -> Bytes:
    """Flat bytes of a plain dtype that hold flat numbers, converted as the module says."""
    return _convert(values, dtype).view(np.uint8)


def _convert(values: npt.NDArray[Any], dtype: DType) -> npt.NDArray[Any]:
    if dtype.kind is Kind.BOOL:
        truth: npt.NDArray[np.bool_] = np.not_equal(values, 0)
        return truth
    if dtype.name == _BF16:
        return float32_to_bf16(_to_float32_for_bf16(values)).astype("<u2", copy=False)
    if dtype.kind is Kind.FLOAT:
        return values.astype(_element(dtype), copy=False)
    if values.dtype.kind == "f":
        return _truncate(values, _element(dtype))
    return _saturate(values, _element(dtype))


def _element(dtype: DType) -> np.dtype[Any]:
    assert dtype.numpy is not None, "bf16 alone has no NumPy dtype, and is dealt with before"
    return np.dtype(dtype.numpy)


def bf16_to_float32(halves: npt.NDArray[np.uint16]) -> Floats:
    """The float32 whose upper half each bf16 is."""
    return (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)


def float32_to_bf16(values: Floats) -> npt.NDArray[np.uint16]:
    """Round to nearest, halves to even. NaN keeps its sign and payload, and is made quiet."""
    bits = values.view(np.uint32)
    lowest_kept = (bits >> np.uint32(16)) & np.uint32(1)
    # Adding just under half, and one more if the result would be odd, carries where it must; the
    # largest NaN would carry into the sign, so NaN goes its own way.
    rounded = ((bits + np.uint32(0x7FFF) + lowest_kept) >> np.uint32(16)).astype(np.uint16)
    is_nan = np.isnan(values)
    rounded[is_nan] = (bits[is_nan] >> np.uint32(16)).astype(np.uint16) | _QUIET
    return rounded


def _to_float32_for_bf16(values: npt.NDArray[Any]) -> Floats:
    """Float32 that rounds to the same bf16 as `values` do."""
    if values.dtype.kind != "f":
        values = _to_float64_for_bf16(values)
    if values.dtype.itemsize <= np.dtype(np.float32).itemsize:
        return values.astype(np.float32)
    return _round_to_odd(values.astype(np.float64))


def _round_to_odd(values: npt.NDArray[np.float64]) -> Floats:
    """Truncate to float32, and set the last bit of what was not exact.

    The last bit then says that something followed, so that rounding on to fewer bits gives what
    rounding once would (Boldo and Melquiond, 2008).
    """
    nearest = values.astype(np.float32)
    bits = nearest.view(np.uint32)
    back = nearest.astype(np.float64)
    bits -= np.abs(back) > np.abs(values)
    bits |= (back < values) | (back > values)
    return nearest


def _to_float64_for_bf16(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Float64 that rounds to the same bf16 as integers do; exact below 2**40.

    Above, bf16 keeps nothing below 2**32, so that 16 bits can shrink to one that says whether any
    of them was set.
    """
    if values.dtype.itemsize < np.dtype(np.int64).itemsize:
        return values.astype(np.float64)
    negative = values < 0
    magnitude = values.astype(np.uint64)
    magnitude[negative] = ~magnitude[negative] + np.uint64(1)
    low = magnitude & np.uint64(0xFFFF)
    crowded = (magnitude >> np.uint64(40) != 0) & (low != 0)
    magnitude[crowded] = (magnitude[crowded] ^ low[crowded]) | np.uint64(0x10000)
    wide = magnitude.astype(np.float64)
    return np.where(negative, -wide, wide)


def _truncate(values: npt.NDArray[Any], target: np.dtype[Any]) -> npt.NDArray[Any]:
    """Floats to integers; float64 holds the limits of every integer dtype or their neighbours."""
    whole = np.trunc(values.astype(np.float64))
    limit = 2.0 ** (8 * target.itemsize - 1)
    bounds = np.iinfo(target)
    inside = (whole >= -limit) & (whole < limit)
    converted = np.where(inside, whole, 0).astype(target)
    converted[whole >= limit] = bounds.max
    converted[whole < -limit] = bounds.min
    return converted


def _saturate(values: npt.NDArray[Any], target: np.dtype[Any]) -> npt.NDArray[Any]:
    """Integers or bools to integers."""
    if np.can_cast(values.dtype, target):
        return values.astype(target, copy=False)
    source, bounds = np.iinfo(values.dtype), np.iinfo(target)
    low, high = max(source.min, bounds.min), min(source.max, bounds.max)
    return values.clip(low, high).astype(target)
