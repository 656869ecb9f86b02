"""Fused multiply-add and sums that are rounded once (PTX ISA, "fma")."""

from __future__ import annotations

import numpy as np

from hotplug.testing.ptx.types import Value

__all__ = ["fma_double", "fma_narrow", "lost_in_product", "lost_in_sum"]

_TWO_TO_128 = 2.0**128
_TIE_BITS = {"f2": (1 << 42) - 1, "f4": (1 << 29) - 1}
_SMALLEST_NORMAL = {"f2": 2.0**-14, "f4": 2.0**-126}


def fma_narrow(a: Value, b: Value, c: Value) -> Value:
    """Sum of a product and a number, rounded once, for float32 and float16.

    In float64 the product is exact, and the sum is rounded to 53 bits. Rounding that again gives
    another result than one rounding only if the sum lies exactly between two values of the narrow
    type: such sums are looked for, and moved off the middle in the direction of what was lost.
    """
    dtype = a.dtype
    product = np.multiply(a, b, dtype=np.float64)
    total = np.add(product, c, dtype=np.float64)
    result = total.astype(dtype)
    mask = _TIE_BITS[dtype.str[1:]]
    doubtful = (total.view(np.int64) & mask) == (mask + 1) >> 1
    small = np.abs(result) < _SMALLEST_NORMAL[dtype.str[1:]]
    if small.any():
        doubtful = doubtful | (small & (total != 0))
    if not doubtful.any():
        return result
    if doubtful.ndim == 0:
        return _round_once(product, c, total, result)
    result[doubtful] = _round_once(
        *(np.broadcast_to(x, total.shape)[doubtful] for x in (product, c, total, result))
    )
    return result


def _round_once(product: Value, addend: Value, total: Value, result: Value) -> Value:
    lost = lost_in_sum(product, addend.astype(np.float64), total)
    if not lost.any():
        return result
    narrow = result.dtype
    above = np.nextafter(total, np.inf).astype(narrow).astype(np.float64)
    below = np.nextafter(total, -np.inf).astype(narrow).astype(np.float64)
    if narrow == np.float32:  # the first value that is too large counts as one more step
        above = np.clip(above, -_TWO_TO_128, _TWO_TO_128)
        below = np.clip(below, -_TWO_TO_128, _TWO_TO_128)
    middle = (above != below) & ((above + below) * 0.5 == total)
    chosen = np.where(lost > 0, above, below).astype(narrow)
    return np.where(middle & (lost != 0), chosen, result)


def lost_in_sum(a: Value, b: Value, total: Value) -> Value:
    """What a rounded sum has lost, exactly (Knuth's TwoSum)."""
    part = total - a
    return (a - (total - part)) + (b - part)


def lost_in_product(a: Value, b: Value, product: Value) -> Value:
    """What a rounded product of float64 has lost, exactly (Dekker)."""
    a_high, a_low = _split(a)
    b_high, b_low = _split(b)
    return ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _split(a: Value) -> tuple[Value, Value]:
    """A float64 as a sum of two of 26 bits (Veltkamp)."""
    scaled = a * 134217729.0
    high = scaled - (scaled - a)
    return high, a - high


def fma_double(a: Value, b: Value, c: Value) -> Value:
    """Sum of a product and a number of float64, rounded once.

    After Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums" (2008). Exact where
    no step over- or underflows, which is for products between about 1e-260 and 1e290; outside of
    that the product is rounded too.
    """
    product = a * b
    plain = product + c
    product_lost = lost_in_product(a, b, product)
    low = c + product_lost
    low_lost = lost_in_sum(c, product_lost, low)
    high = product + low
    high_lost = lost_in_sum(product, low, high)
    exact = high + _add_odd(high_lost, low_lost)
    size = np.abs(product)
    safe = (size < 1e290) & (size > 1e-260) & (np.abs(a) < 1e290) & (np.abs(b) < 1e290)
    return np.where(safe & np.isfinite(exact), exact, plain)


def _add_odd(a: Value, b: Value) -> Value:
    """Sum rounded to odd: an inexact sum has its last bit set."""
    total = np.asarray(a + b)
    lost = lost_in_sum(a, b, total)
    bits = total.view(np.int64)
    fix = (lost != 0) & ((bits & 1) == 0)
    away = (lost > 0) == (total > 0)
    return np.where(fix, np.where(away, bits + 1, bits - 1).view(np.float64), total)[()]
