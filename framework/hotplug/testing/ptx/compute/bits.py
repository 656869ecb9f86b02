"""Instructions on bits (PTX ISA, "Logic and shift instructions", "bfe", "bfi", "prmt")."""

from __future__ import annotations

import numpy as np

from hotplug.testing.ptx.types import Value

__all__ = ["bfe", "bfi", "bfind", "brev", "clz", "funnel", "lop3", "popc", "prmt"]

_ONES = np.array([bin(byte).count("1") for byte in range(256)], np.uint32)
_REVERSED = np.array([int(f"{byte:08b}"[::-1], 2) for byte in range(256)], np.uint8)


def _bytes(value: Value) -> Value:
    whole = np.ascontiguousarray(value)
    return whole.reshape(-1).view(np.uint8).reshape(*np.shape(value), whole.dtype.itemsize)


def popc(value: Value) -> Value:
    """Bits that are set."""
    return _ONES[_bytes(value)].sum(axis=-1, dtype=np.uint32)


def _length(value: Value) -> Value:
    """Bits up to the highest one that is set."""
    if value.dtype.itemsize < 8:
        return np.frexp(value.astype(np.float64))[1].astype(np.uint32)
    high = value >> np.uint64(32)
    low = (value & np.uint64(0xFFFFFFFF)).astype(np.float64)
    upper = np.frexp(high.astype(np.float64))[1]
    return np.where(high > 0, upper + 32, np.frexp(low)[1]).astype(np.uint32)


def clz(value: Value) -> Value:
    """Zeros above the highest bit that is set."""
    return np.uint32(8 * value.dtype.itemsize) - _length(value)


def bfind(value: Value, *, shift: bool = False) -> Value:
    """Where the highest bit is that differs from the sign, or all bits set if none does."""
    if value.dtype.kind == "i":
        value = np.where(value < 0, ~value, value).view(f"u{value.dtype.itemsize}")
    length = _length(value)
    found = np.uint32(8 * value.dtype.itemsize) - length if shift else length - np.uint32(1)
    return np.where(length == 0, np.uint32(0xFFFFFFFF), found)


def brev(value: Value) -> Value:
    """Bits in the opposite order."""
    turned = np.ascontiguousarray(_REVERSED[_bytes(value)][..., ::-1])
    return turned.view(value.dtype)[..., 0]


def bfe(value: Value, start: Value, length: Value) -> Value:
    """Bits from a start, extended by the field's sign (PTX ISA, "bfe")."""
    width = 8 * value.dtype.itemsize
    start, length = start & np.uint32(0xFF), length & np.uint32(0xFF)
    unsigned = value.view(f"u{value.dtype.itemsize}")
    wide = unsigned.dtype.type
    near = np.minimum(start, width - 1).astype(unsigned.dtype)
    field = np.where(start >= width, wide(0), unsigned >> near)
    mask = _mask(length, unsigned.dtype)
    field = field & mask
    if value.dtype.kind == "u":
        return field
    top = np.minimum(start.astype(np.int64) + length - 1, width - 1)
    sign = (unsigned >> np.maximum(top, 0).astype(unsigned.dtype)) & wide(1)
    extended = np.where(
        (sign == 1) & (length > 0), field | ~_reach(start, length, mask, width), field
    )
    return extended.view(value.dtype)


def _reach(start: Value, length: Value, mask: Value, width: int) -> Value:
    """The bits of a field that come from the value itself."""
    inside = np.maximum(np.minimum(length.astype(np.int64), width - start.astype(np.int64)), 0)
    return mask & _mask(inside, mask.dtype)


def _mask(length: Value, dtype: np.dtype[np.unsignedinteger]) -> Value:
    width = 8 * dtype.itemsize
    short = np.minimum(length, width - 1).astype(dtype)
    one = dtype.type(1)
    return np.where(length >= width, ~dtype.type(0), (one << short) - one)


def bfi(field: Value, into: Value, start: Value, length: Value) -> Value:
    """A field put into bits of another value (PTX ISA, "bfi")."""
    width = 8 * into.dtype.itemsize
    start, length = start & np.uint32(0xFF), length & np.uint32(0xFF)
    near = np.minimum(start, width - 1).astype(into.dtype)
    mask = np.where(start >= width, into.dtype.type(0), _mask(length, into.dtype) << near)
    return (into & ~mask) | ((field << near) & mask)


def prmt(a: Value, b: Value, selector: Value) -> Value:
    """Bytes picked from those of a and b (PTX ISA, "prmt", default mode)."""
    both = a.astype(np.uint64) | (b.astype(np.uint64) << np.uint64(32))
    result: Value = np.uint32(0)
    for position in range(4):
        choice = selector >> np.uint32(4 * position)
        shift = ((choice & np.uint32(7)) * np.uint32(8)).astype(np.uint64)
        byte = ((both >> shift) & np.uint64(0xFF)).astype(np.uint32)
        sign = np.where(byte & np.uint32(0x80), np.uint32(0xFF), np.uint32(0))
        byte = np.where(choice & np.uint32(8), sign, byte)
        result = result | (byte << np.uint32(8 * position))
    return result


def lop3(a: Value, b: Value, c: Value, table: int) -> Value:
    """Any logic of three values, as a table of its eight results (PTX ISA, "lop3")."""
    result: Value = np.uint32(0)
    for index in range(8):
        if table >> index & 1:
            x = a if index & 4 else ~a
            y = b if index & 2 else ~b
            z = c if index & 1 else ~c
            result = result | (x & y & z)
    return result


def funnel(low: Value, high: Value, amount: Value, direction: str, mode: str) -> Value:
    """Half of a 64-bit value that is shifted (PTX ISA, "shf")."""
    amount = np.minimum(amount, 32) if mode == "clamp" else amount & np.uint32(31)
    both = low.astype(np.uint64) | (high.astype(np.uint64) << np.uint64(32))
    shift = amount.astype(np.uint64)
    if direction == "r":
        return (both >> shift).astype(np.uint32)
    return (both >> (np.uint64(32) - shift)).astype(np.uint32)
