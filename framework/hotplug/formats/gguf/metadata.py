"""Metadata of an open file: values are decoded when asked for.

The values lie in the mapped file, and the header reader has walked over every one of them. What is
decoded here is therefore known to be within bounds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from hotplug.formats.gguf.strings import string_bounds
from hotplug.formats.gguf.values import (
    ARRAY,
    BOOL,
    BY_ID,
    STRING,
    U32,
    U64,
    Encoded,
    Scalar,
    ValueType,
)

__all__ = ["Entry", "Metadata", "NestedArray", "StringArray", "Value"]

_ARRAY_HEAD = 12  # bytes of an array's element type and count


class StringArray(Sequence[str]):
    """An array of strings, decoded one by one.

    Bytes that are no UTF-8 become U+FFFD in strings; `raw` gives them as they are.
    """

    def __init__(
        self, data: memoryview, count: int, found: npt.NDArray[np.int64] | None = None
    ) -> None:
        """View `count` strings that fill `data`, each a length of eight bytes and its bytes.

        `found` may say where they begin and end, from any byte on.
        """
        self._data = data
        self._count = count
        self._found = found

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        joined = self._joined()
        if joined is not None:
            return iter(joined.decode("utf-8", "replace").split("\0")[1:])
        return (raw.decode("utf-8", "replace") for raw in self.raws())

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        return self.raw(index).decode("utf-8", "replace")

    def raw(self, index: int) -> bytes:
        """Bytes of one string.

        Raises:
            IndexError: there is no such element.
        """
        if not -self._count <= index < self._count:
            raise IndexError(f"index {index} is out of range for {self._count} strings")
        begin = int(self._starts[index])
        (size,) = U64.unpack_from(self._data, begin)
        return bytes(self._data[begin + 8 : begin + 8 + size])

    def raws(self) -> list[bytes]:
        """Bytes of every string, in one pass."""
        data = self._data.tobytes()  # slices of bytes are cheaper than those of an array
        return [data[a + 8 : b] for a, b in pairwise(self._bounds.tolist())]

    @property
    def encoded(self) -> bytes:
        """The elements as files hold them."""
        return self._data.tobytes()

    def __repr__(self) -> str:
        return f"<StringArray of {self._count}>"

    def _joined(self) -> bytes | None:
        """Each string after a zero byte; None if one holds such a byte itself.

        Decoding this and splitting it is several times as fast as doing so string by string.
        """
        octets = np.frombuffer(self._data, np.uint8).copy()
        kept = np.ones(len(octets), bool)
        for place in range(7):
            kept[self._starts + place] = False
        octets[self._starts + 7] = 0
        body = octets[kept]
        return body.tobytes() if np.count_nonzero(body == 0) == self._count else None

    @cached_property
    def _bounds(self) -> npt.NDArray[np.int64]:
        """Where each string's length lies, and the end of the last string."""
        if self._found is None:
            return string_bounds(self._data, 0, self._count)
        bounds: npt.NDArray[np.int64] = self._found - self._found[0]
        return bounds

    @property
    def _starts(self) -> npt.NDArray[np.int64]:
        return self._bounds[:-1]


class NestedArray(Sequence[Any]):
    """An array of arrays; its elements are arrays of any type, made at the first access."""

    def __init__(self, data: memoryview, count: int) -> None:
        """View `count` arrays that fill `data`."""
        self._data = data
        self._count = count
        self._items: list[Any] | None = None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if self._items is None:
            self._items = self._decode()
        return self._items[index]

    def __repr__(self) -> str:
        return f"<NestedArray of {self._count}>"

    def _decode(self) -> list[Any]:
        items = []
        position = 0
        for _ in range(self._count):
            end = _array_end(self._data, position)
            items.append(_decode_array(self._data[position:end]))
            position = end
        return items


Value = Scalar | StringArray | NestedArray | npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a value lies: its type, its first byte after the type number, and its end.

    Of an array of strings, `strings` says where they begin, and their end.
    """

    type: ValueType
    start: int
    end: int
    strings: npt.NDArray[np.int64] | None = None


class Metadata(Mapping[str, Value]):
    """Key -> value of an open file.

    Scalars are bool, int, float and str. Arrays of numbers and bools are read-only NumPy views of
    the file that may be unaligned; arrays of strings are `StringArray`, and arrays of arrays
    `NestedArray`. Whatever is handed out keeps the mapped file alive.
    """

    def __init__(self, data: memoryview, entries: Mapping[str, Entry]) -> None:
        """View the values of `entries` in the file `data`."""
        self._data = data
        self._entries = entries
        self._decoded: dict[str, Value] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __getitem__(self, key: str) -> Value:
        if key not in self._decoded:
            self._decoded[key] = self._decode(self._entries[key])
        return self._decoded[key]

    def __repr__(self) -> str:
        return f"<Metadata of {len(self)} keys>"

    def type_name(self, key: str) -> str:
        """Type of a value as text: "u32", "str", "array[f32]".

        Raises:
            KeyError: there is no such key.
        """
        entry = self._entries[key]
        if entry.type is not ARRAY:
            return entry.type.name
        return f"array[{BY_ID[U32.unpack_from(self._data, entry.start)[0]]}]"

    def encoded(self, key: str) -> Encoded:
        """A value exactly as the file holds it, for writing to another file.

        Raises:
            KeyError: there is no such key.
        """
        entry = self._entries[key]
        return Encoded(self._data[entry.start - 4 : entry.end].tobytes())

    def _decode(self, entry: Entry) -> Value:
        data = self._data[entry.start : entry.end]
        if entry.type is ARRAY:
            return _decode_array(data, entry.strings)
        if entry.type is STRING:
            return data[8:].tobytes().decode("utf-8", "replace")
        number: int | float = struct.unpack(entry.type.code, data)[0]
        return bool(number) if entry.type is BOOL else number


def _decode_array(
    data: memoryview, strings: npt.NDArray[np.int64] | None = None
) -> StringArray | NestedArray | npt.NDArray[Any]:
    item_type, count = _array_head(data, 0)
    elements = data[_ARRAY_HEAD:]
    if item_type is STRING:
        return StringArray(elements, count, strings)
    if item_type is ARRAY:
        return NestedArray(elements, count)
    return np.frombuffer(elements, item_type.numpy)


def _array_head(data: memoryview, position: int) -> tuple[ValueType, int]:
    number, count = struct.unpack_from("<IQ", data, position)
    return BY_ID[number], count


def _array_end(data: memoryview, position: int) -> int:
    """Where an array ends that begins at `position`."""
    item_type, count = _array_head(data, position)
    position += _ARRAY_HEAD
    if item_type.size:
        return position + count * item_type.size
    for _ in range(count):
        if item_type is ARRAY:
            position = _array_end(data, position)
        else:
            position += U64.unpack_from(data, position)[0] + 8
    return position
