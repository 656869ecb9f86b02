"""Integer arithmetic (PTX ISA, "Integer arithmetic instructions")."""

from __future__ import annotations

from typing import Any

import numpy as np

from hotplug.testing.ptx.types import Value

__all__ = [
    "add_carry",
    "clamp",
    "divide",
    "dp2a",
    "dp4a",
    "high_product",
    "remainder",
    "shift_left",
    "shift_right",
    "subtract_borrow",
]


def divide(a: Value, b: Value) -> Value:
    """Integer quotient, rounded toward zero; all bits set where b is 0, as devices do."""
    quotient = (a - np.fmod(a, b)) // b
    zero = b == 0
    return np.where(zero, ~np.zeros_like(quotient), quotient) if zero.any() else quotient


def remainder(a: Value, b: Value) -> Value:
    """Rest of an integer division, with the sign of a; a where b is 0, as devices do."""
    rest = np.fmod(a, b)
    zero = b == 0
    return np.where(zero, a, rest) if zero.any() else rest


def shift_left(a: Value, amount: Value) -> Value:
    """Bits moved up; 0 from the width on (PTX ISA, "shl"). The amount is unsigned."""
    width = 8 * a.dtype.itemsize
    shifted = a << (amount & (width - 1)).astype(a.dtype)
    far = amount >= width
    return np.where(far, a.dtype.type(0), shifted) if far.any() else shifted


def shift_right(a: Value, amount: Value) -> Value:
    """Bits moved down; 0 or the sign from the width on (PTX ISA, "shr")."""
    width = 8 * a.dtype.itemsize
    if a.dtype.kind == "i":
        return a >> np.minimum(amount, width - 1).astype(a.dtype)
    shifted = a >> (amount & (width - 1)).astype(a.dtype)
    far = amount >= width
    return np.where(far, a.dtype.type(0), shifted) if far.any() else shifted


def high_product(a: Value, b: Value) -> Value:
    """The upper half of a product (PTX ISA, "mul")."""
    size = a.dtype.itemsize
    kind = a.dtype.kind
    if size < 8:
        wide = np.multiply(a, b, dtype=np.dtype(f"{kind}{2 * size}"))
        return (wide >> (8 * size)).astype(a.dtype)
    x, y = a.view(np.uint64), b.view(np.uint64)
    high = _high_unsigned(x, y)
    if kind == "i":
        zero = np.uint64(0)
        high = high - np.where(a < 0, y, zero) - np.where(b < 0, x, zero)
    return high.view(a.dtype)


def _high_unsigned(x: Value, y: Value) -> Value:
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    x_low, x_high, y_low, y_high = x & low, x >> half, y & low, y >> half
    middle = x_high * y_low + (x_low * y_low >> half)
    other = x_low * y_high + (middle & low)
    return x_high * y_high + (middle >> half) + (other >> half)


def add_carry(a: Value, b: Value, carry: Any) -> tuple[Value, Value]:
    """A + b + carry of unsigned numbers, and whether it did not fit."""
    total = a + b
    over = total < a
    if carry is False:
        return total, over
    both = total + np.asarray(carry).astype(total.dtype)
    return both, over | (both < total)


def subtract_borrow(a: Value, b: Value, borrow: Any) -> tuple[Value, Value]:
    """A - b - borrow of unsigned numbers, and whether it is below zero."""
    total = a - b
    under = a < b
    if borrow is False:
        return total, under
    both = total - np.asarray(borrow).astype(total.dtype)
    return both, under | (both > total)


def clamp(value: Value, dtype: np.dtype[Any]) -> Value:
    """An integer as the nearest one of another type."""
    limits = np.iinfo(dtype)
    own = np.iinfo(value.dtype)
    least, most = max(limits.min, own.min), min(limits.max, own.max)
    return np.clip(value, value.dtype.type(least), value.dtype.type(most)).astype(dtype)


def dp4a(a: Value, b: Value, c: Value) -> Value:
    """Sum of a number and the products of four bytes each (PTX ISA, "dp4a")."""
    total = c
    for byte in range(4):
        total = total + _part(a, 8 * byte, 8, c.dtype) * _part(b, 8 * byte, 8, c.dtype)
    return total


def dp2a(a: Value, b: Value, c: Value, half: str) -> Value:
    """Sum of a number and the products of two 16-bit parts and two bytes (PTX ISA, "dp2a")."""
    first = 0 if half == "lo" else 16
    total = c
    for part in range(2):
        total = total + _part(a, 16 * part, 16, c.dtype) * _part(b, first + 8 * part, 8, c.dtype)
    return total


def _part(value: Value, start: int, length: int, dtype: np.dtype[Any]) -> Value:
    """Bits of a 32-bit number, extended as its type is."""
    return ((value << (32 - start - length)) >> (32 - length)).astype(dtype)
