"""Metadata values as bytes.

A value without a stated type gets the one that model files use for its kind:

    bool            bool
    int             u32, or the first of i32, u64 and i64 that holds it
    float           f32
    str, bytes      str
    NumPy scalars and one-dimensional arrays: their own dtype
    sequences       array: of bool, of str, of f32 if there is a float among the numbers, otherwise
                    of the first of i32, u32, i64 and u64 that holds every number
    sequences of sequences: array of arrays, each with its own element type

Anything else is said with `Typed(value, "u16")`; an empty sequence always needs it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hotplug.errors import UsageError
from hotplug.formats.gguf.metadata import StringArray
from hotplug.formats.gguf.values import (
    ARRAY,
    BOOL,
    BY_ID,
    MAX_NESTING,
    STRING,
    U32,
    U64,
    Encoded,
    Typed,
    ValueType,
    by_name,
)

__all__ = ["encode", "encode_text"]

_F32 = by_name("f32")
_SCALAR_INTEGERS = tuple(map(by_name, ("u32", "i32", "u64", "i64")))
_ARRAY_INTEGERS = tuple(map(by_name, ("i32", "u32", "i64", "u64")))
_BY_NUMPY = {row.numpy: row for row in BY_ID.values() if row.numpy}


def encode(key: str, value: object) -> bytes:
    """Type number and bytes of a metadata value.

    Args:
        key: its key, for messages.
        value: `Encoded`, `Typed`, or a plain value as the table above has it.

    Raises:
        UsageError: the value has no type in the format, or does not fit the stated one.
    """
    try:
        return _encode(value)
    except UsageError as exc:
        raise UsageError(f"metadata key {key}: {exc.args[0]}", remedy=exc.remedy) from exc


def encode_text(text: str | bytes) -> bytes:
    """A string with its length.

    Raises:
        UsageError: it holds half of a surrogate pair.
    """
    try:
        raw = text.encode() if isinstance(text, str) else text
    except UnicodeEncodeError as exc:
        raise UsageError(f"{text!r} cannot be written as UTF-8") from exc
    return U64.pack(len(raw)) + raw


def _encode(value: object) -> bytes:
    if isinstance(value, Encoded):
        return value.data
    value_type = None
    if isinstance(value, Typed):
        value_type = by_name(value.type)
        value = value.value
    if value_type is ARRAY:
        raise UsageError("the type of an array is that of its elements")
    if _is_array(value):
        return U32.pack(ARRAY.id) + _encode_array(value, value_type, 1)
    value_type = value_type or _infer_scalar(value)
    return U32.pack(value_type.id) + _pack([value], value_type)


def _encode_array(value: Any, item_type: ValueType | None, depth: int) -> bytes:
    """An array without its leading type number, as it stands inside another array."""
    if depth > MAX_NESTING:
        raise UsageError(f"arrays nest over {MAX_NESTING} deep")
    if isinstance(value, StringArray) and item_type in (None, STRING):
        return _array_head(STRING, len(value)) + value.encoded
    if isinstance(value, np.ndarray):
        return _encode_numpy(value, item_type)
    items = list(value)
    nested = [_is_array(item) for item in items]
    if any(nested):
        if not all(nested):
            raise UsageError("an array holds both arrays and scalars")
        parts = [_encode_array(item, item_type, depth + 1) for item in items]
        return _array_head(ARRAY, len(items)) + b"".join(parts)
    item_type = item_type or _infer_items(items)
    return _array_head(item_type, len(items)) + _pack(items, item_type)


def _encode_numpy(array: npt.NDArray[Any], item_type: ValueType | None) -> bytes:
    if array.ndim != 1:
        raise UsageError(f"an array of shape {array.shape} has not one axis")
    own = _BY_NUMPY.get(array.dtype.newbyteorder("<").str)
    if own is None:
        raise UsageError(f"the format has no type for NumPy's {array.dtype}")
    if item_type in (None, own):
        return _array_head(own, array.size) + array.astype(own.numpy, copy=False).tobytes()
    assert item_type is not None
    return _array_head(item_type, array.size) + _pack(array.tolist(), item_type)


def _array_head(item_type: ValueType, count: int) -> bytes:
    return U32.pack(item_type.id) + U64.pack(count)


def _pack(items: Sequence[Any], item_type: ValueType) -> bytes:
    """The bytes of scalars of one type."""
    items = [item.item() if isinstance(item, np.generic) else item for item in items]
    for item in items:
        if not _suits(item, item_type):
            raise UsageError(f"{item!r} cannot be written as {item_type}")
    if item_type is STRING:
        return b"".join(map(encode_text, items))
    try:
        return struct.pack(f"<{len(items)}{item_type.code[1]}", *items)
    except (struct.error, OverflowError) as exc:
        raise UsageError(f"the value does not fit {item_type}: {exc}") from exc


def _suits(item: object, item_type: ValueType) -> bool:
    """Whether a Python value is of the kind that a type stores; its range is another matter."""
    if item_type is STRING:
        return isinstance(item, str | bytes)
    if isinstance(item, bool) or item_type is BOOL:
        return isinstance(item, bool) and item_type is BOOL
    return isinstance(item, int | float if item_type.name.startswith("f") else int)


def _infer_scalar(value: object) -> ValueType:
    if isinstance(value, str | bytes):
        return STRING
    if isinstance(value, np.generic):
        own = _BY_NUMPY.get(value.dtype.newbyteorder("<").str)
        if own is not None:
            return own
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, int):
        return _smallest([value], _SCALAR_INTEGERS)
    if isinstance(value, float):
        return _F32
    raise UsageError(f"the format has no type for {type(value).__name__}")


def _infer_items(items: Sequence[Any]) -> ValueType:
    if not items:
        raise UsageError("an empty array has no type", remedy='write Typed([], "str") or the like')
    if all(isinstance(item, str | bytes) for item in items):
        return STRING
    if all(isinstance(item, bool | np.bool_) for item in items):
        return BOOL
    if any(isinstance(item, bool | np.bool_) for item in items):
        raise UsageError("an array mixes bools with other values")
    if all(isinstance(item, int | np.integer) for item in items):
        return _smallest(items, _ARRAY_INTEGERS)
    if all(isinstance(item, int | float | np.integer | np.floating) for item in items):
        return _F32
    raise UsageError("an array mixes values of different kinds, or of kinds without a type")


def _smallest(items: Sequence[int], choices: Sequence[ValueType]) -> ValueType:
    lowest, highest = min(items), max(items)
    for choice in choices:
        limits = np.iinfo(np.dtype(choice.numpy))
        if limits.min <= lowest and highest <= limits.max:
            return choice
    raise UsageError("no integer type of the format holds the value")


def _is_array(value: object) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes)
