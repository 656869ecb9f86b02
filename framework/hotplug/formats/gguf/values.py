"""The types of metadata values, and values that carry their type."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hotplug.errors import UsageError

__all__ = [
    "ALIGNMENT_KEY",
    "ARRAY",
    "BOOL",
    "BY_ID",
    "DEFAULT_ALIGNMENT",
    "MAGIC",
    "MAX_DIMENSIONS",
    "MAX_NESTING",
    "MAX_TEXT",
    "STRING",
    "U32",
    "U64",
    "Encoded",
    "Scalar",
    "Typed",
    "ValueType",
    "by_name",
]

MAGIC = b"GGUF"
ALIGNMENT_KEY = "general.alignment"
DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4
MAX_TEXT = 65535  # bytes in a key; the format's limit
MAX_NESTING = 4  # arrays within arrays; the format sets no limit, and no known file goes past 2

U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")

Scalar = bool | int | float | str


@dataclass(frozen=True, slots=True)
class ValueType:
    """One row of the table of value types (enum gguf_type).

    Attributes:
        name: as in "u32"; the same letters as dtypes, with "str", "bool" and "array".
        id: number in files.
        size: bytes of a value, or 0 if values differ in size.
        numpy: NumPy dtype code of a value, or None for "str" and "array".
    """

    name: str
    id: int
    size: int
    numpy: str | None

    @property
    def code(self) -> str:
        """Code for the `struct` module; numbers only."""
        return _CODES[self.name]

    def __str__(self) -> str:
        return self.name


_CODES = {
    "u8": "<B",
    "i8": "<b",
    "u16": "<H",
    "i16": "<h",
    "u32": "<I",
    "i32": "<i",
    "f32": "<f",
    "bool": "<B",
    "u64": "<Q",
    "i64": "<q",
    "f64": "<d",
}

BOOL = ValueType("bool", 7, 1, "|b1")
STRING = ValueType("str", 8, 0, None)
ARRAY = ValueType("array", 9, 0, None)

_ROWS = (
    ValueType("u8", 0, 1, "|u1"),
    ValueType("i8", 1, 1, "|i1"),
    ValueType("u16", 2, 2, "<u2"),
    ValueType("i16", 3, 2, "<i2"),
    ValueType("u32", 4, 4, "<u4"),
    ValueType("i32", 5, 4, "<i4"),
    ValueType("f32", 6, 4, "<f4"),
    BOOL,
    STRING,
    ARRAY,
    ValueType("u64", 10, 8, "<u8"),
    ValueType("i64", 11, 8, "<i8"),
    ValueType("f64", 12, 8, "<f8"),
)

BY_ID: dict[int, ValueType] = {row.id: row for row in _ROWS}
_BY_NAME: dict[str, ValueType] = {row.name: row for row in _ROWS}


def by_name(name: str) -> ValueType:
    """Row of a type given by name.

    Raises:
        UsageError: no such name.
    """
    row = _BY_NAME.get(name)
    if row is None:
        raise UsageError(f"there is no GGUF value type {name!r}; known: {', '.join(_BY_NAME)}")
    return row


@dataclass(frozen=True, slots=True)
class Typed:
    """A metadata value to be written as a stated type.

    Attributes:
        value: a scalar, or a sequence (of sequences) for an array.
        type: type of the scalar or of the array's innermost elements, such as "u16" or "str".
    """

    value: object
    type: str


@dataclass(frozen=True, slots=True)
class Encoded:
    """A metadata value as the bytes that files hold, type number included.

    `Metadata.encoded` gives one, so that a value can be copied to another file exactly.
    """

    data: bytes
