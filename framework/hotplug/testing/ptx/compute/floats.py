"""Floating point arithmetic (PTX ISA, "Floating point instructions")."""

from __future__ import annotations

from typing import Any

import numpy as np

from hotplug.testing.ptx.compute.fma import fma_double, lost_in_product, lost_in_sum
from hotplug.testing.ptx.types import Value

__all__ = [
    "cos",
    "directed",
    "ex2",
    "flush",
    "fma_directed",
    "larger",
    "lg2",
    "rcp",
    "rcp_double",
    "rsqrt",
    "saturate",
    "sin",
    "smaller",
    "sqrt",
    "tanh",
    "testp",
    "toward",
]

_TINY = {"f2": 2.0**-14, "f4": 2.0**-126, "f8": 2.0**-1022}


def flush(value: Value) -> Value:
    """Subnormal numbers become zeros of their sign (.ftz)."""
    small = np.abs(value) < _TINY[value.dtype.str[1:]]
    return np.where(small, np.copysign(value.dtype.type(0), value), value)


def saturate(value: Value) -> Value:
    """Within 0 to 1; NaN becomes 0 (.sat)."""
    one, zero = value.dtype.type(1), value.dtype.type(0)
    return np.fmin(np.fmax(value, zero), one) + zero


def smaller(a: Value, b: Value, *, nan: bool) -> Value:
    """The smaller one, -0 below +0; of a number and a NaN the number, or with `nan` the NaN."""
    result = np.minimum(a, b) if nan else np.fmin(a, b)
    zero = result == 0
    if zero.any():
        negative = zero & (a == b) & (np.signbit(a) | np.signbit(b))
        return np.where(negative, result.dtype.type(-0.0), result)
    return result


def larger(a: Value, b: Value, *, nan: bool) -> Value:
    """The larger one; see `smaller`."""
    result = np.maximum(a, b) if nan else np.fmax(a, b)
    zero = result == 0
    if zero.any():
        positive = zero & (a == b) & ~(np.signbit(a) & np.signbit(b))
        return np.where(positive, result.dtype.type(0.0), result)
    return result


def directed(opcode: str, a: Value, b: Value, rounding: str) -> Value:
    """A sum, difference, product or quotient in one of the directed roundings."""
    if opcode == "sub":
        opcode, b = "add", -b
    if a.dtype.itemsize == 8:
        return _directed_double(opcode, a, b, rounding)
    x, y = a.astype(np.float64), b.astype(np.float64)
    if opcode == "add":
        total = x + y
        return toward(total, lost_in_sum(x, y, total), a.dtype, rounding)
    if opcode == "mul":
        return toward(x * y, 0.0, a.dtype, rounding)
    quotient = a / b
    rest = (x - quotient.astype(np.float64) * y) * np.sign(y)
    return _step(quotient, rest, rounding)


def _directed_double(opcode: str, a: Value, b: Value, rounding: str) -> Value:
    if opcode == "add":
        total = a + b
        return _step(total, lost_in_sum(a, b, total), rounding)
    if opcode == "mul":
        product = a * b
        return _step(product, lost_in_product(a, b, product), rounding)
    quotient = a / b
    return _step(quotient, fma_double(-quotient, b, a) * np.sign(b), rounding)


def fma_directed(a: Value, b: Value, c: Value, rounding: str) -> Value:
    """A * b + c of float32 in one of the directed roundings."""
    product = np.multiply(a, b, dtype=np.float64)
    addend = c.astype(np.float64)
    total = product + addend
    return toward(total, lost_in_sum(product, addend, total), a.dtype, rounding)


def toward(total: Value, lost: Any, dtype: np.dtype[Any], rounding: str) -> Value:
    """Total + lost, both float64, rounded to a narrower type in a direction."""
    nearest = total.astype(dtype)
    return _step(nearest, (total - nearest.astype(np.float64)) + lost, rounding)


def _step(nearest: Value, difference: Value, rounding: str) -> Value:
    """The neighbour of the nearest value if that lies on the wrong side of the exact one.

    Args:
        nearest: the exact value rounded to nearest.
        difference: a number of the sign of the exact value less the nearest one.
        rounding: rz, rm or rp.
    """
    kind = nearest.dtype.type
    below = np.nextafter(nearest, kind(-np.inf))
    above = np.nextafter(nearest, kind(np.inf))
    if rounding == "rm":
        return np.where(difference < 0, below, nearest)
    if rounding == "rp":
        return np.where(difference > 0, above, nearest)
    inward = np.where(nearest > 0, below, above)
    outside = ((nearest > 0) & (difference < 0)) | ((nearest < 0) & (difference > 0))
    return np.where(outside, inward, nearest)


def rcp(value: Value) -> Value:
    """1 / value."""
    return value.dtype.type(1) / value


def rcp_double(value: Value) -> Value:
    """rcp.approx.ftz.f64: the lower half of the result is zero (PTX ISA, "rcp.approx.ftz.f64")."""
    whole = np.asarray(1.0 / flush(value))
    return (whole.view(np.uint64) & np.uint64(0xFFFFFFFF00000000)).view(np.float64)[()]


def sqrt(value: Value) -> Value:
    """Square root."""
    return np.sqrt(value)


def rsqrt(value: Value) -> Value:
    """1 / sqrt(value)."""
    return (1.0 / np.sqrt(value.astype(np.float64))).astype(value.dtype)


def sin(value: Value) -> Value:
    """Sine; devices' approximations are less exact."""
    return np.sin(value)


def cos(value: Value) -> Value:
    """Cosine; devices' approximations are less exact."""
    return np.cos(value)


def lg2(value: Value) -> Value:
    """Logarithm to base 2."""
    return np.log2(value)


def ex2(value: Value) -> Value:
    """Power of 2."""
    return np.exp2(value)


def tanh(value: Value) -> Value:
    """Hyperbolic tangent."""
    return np.tanh(value)


def testp(value: Value, kind: str) -> Value:
    """Whether a number is of a kind (PTX ISA, "testp")."""
    size = np.abs(value)
    finite = np.isfinite(value)
    normal = finite & (size >= _TINY[value.dtype.str[1:]])
    return {
        "finite": finite,
        "infinite": np.isinf(value),
        "number": ~np.isnan(value),
        "notanumber": np.isnan(value),
        "normal": normal,
        "subnormal": finite & ~normal & (size > 0),
    }[kind]
