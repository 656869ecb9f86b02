"""A bounds-checked walk through the bytes of a header.

Nothing is allocated on the word of the file: every length and count is first held against the bytes
that are there, and counts also against limits that no real file comes near, which bound the time a
broken or hostile file can take.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from hotplug.errors import FormatError
from hotplug.formats.gguf.strings import string_bounds
from hotplug.formats.gguf.values import (
    ARRAY,
    BOOL,
    BY_ID,
    MAX_NESTING,
    STRING,
    U32,
    U64,
    ValueType,
)

__all__ = ["CUT_SHORT", "Cursor"]

CUT_SHORT = "it looks cut short; download or copy it again"

_MAX_STRINGS = (
    1 << 23
)  # in all arrays of a file; the largest vocabularies have 2^18 and as many merges
_MAX_NESTED = 1 << 16  # arrays within arrays, in a whole file


class Cursor:
    """A position in a file that only moves over what is really there.

    Attributes:
        position: where the next byte is taken from.
        context: what is being read, for messages.
        strings: where those of the array that was skipped last begin, and its end.
    """

    def __init__(self, data: memoryview, path: str) -> None:
        self.position = 0
        self.context = "the header"
        self.strings: npt.NDArray[np.int64] | None = None
        self._view = data
        self._size = data.nbytes
        self._path = path
        self._strings_left = _MAX_STRINGS
        self._nested_left = _MAX_NESTED

    def error(self, trouble: str, offset: int, remedy: str | None = None) -> FormatError:
        """The exception for something wrong at a byte offset."""
        return FormatError(
            f"{self._path}: {trouble}, at byte {offset}",
            path=self._path,
            offset=offset,
            remedy=remedy,
        )

    @property
    def remaining(self) -> int:
        """Bytes from here to the end of the file."""
        return self._size - self.position

    def skip(self, size: int) -> int:
        """Move on by `size` bytes and say where they start.

        Raises:
            FormatError: the file ends before.
        """
        start = self.position
        if size > self._size - start:
            raise self.error(f"the file ends inside {self.context}", start, CUT_SHORT)
        self.position = start + size
        return start

    def u32(self) -> int:
        """The next four bytes as a number."""
        number: int = U32.unpack_from(self._view, self.skip(4))[0]
        return number

    def u64(self) -> int:
        """The next eight bytes as a number."""
        number: int = U64.unpack_from(self._view, self.skip(8))[0]
        return number

    def u64s(self, count: int) -> tuple[int, ...]:
        """The next `count` numbers of eight bytes."""
        return struct.unpack_from(f"<{count}Q", self._view, self.skip(8 * count))

    def text(self, limit: int) -> str:
        """The next string, for names: strict UTF-8, not empty and of at most `limit` bytes."""
        start = self.position
        size = self.u64()
        if not 0 < size <= limit:
            raise self.error(f"{self.context} has {size} bytes; 1 to {limit} are allowed", start)
        begin = self.skip(size)
        try:
            return str(self._view[begin : begin + size], "utf-8")
        except UnicodeDecodeError as exc:
            raise self.error(f"{self.context} is not valid UTF-8", begin) from exc

    def value_type(self) -> ValueType:
        """The next type number."""
        start = self.position
        number = self.u32()
        row = BY_ID.get(number)
        if row is None:
            raise self.error(f"{self.context} has unknown type number {number}", start)
        return row

    def skip_value(self, value_type: ValueType, depth: int = 0) -> None:
        """Move past a value, having checked all there is to check in it."""
        if value_type is STRING:
            self.skip(self.u64())
        elif value_type is ARRAY:
            self._skip_array(depth + 1)
        else:
            start = self.skip(value_type.size)
            if value_type is BOOL:
                self._check_bools(start, 1)

    def _skip_array(self, depth: int) -> None:
        start = self.position
        if depth > MAX_NESTING:
            raise self.error(f"{self.context} nests arrays over {MAX_NESTING} deep", start)
        item_type = self.value_type()
        count = self.u64()
        if item_type is STRING:
            self._skip_strings(count)
        elif item_type is ARRAY:
            self._skip_arrays(count, depth)
        else:
            begin = self.skip(count * item_type.size)
            if item_type is BOOL:
                self._check_bools(begin, count)

    def _skip_strings(self, count: int) -> None:
        start = self.position
        if count > self._strings_left or 8 * count > self.remaining:
            raise self.error(f"{self.context} cannot hold {count} strings", start)
        self._strings_left -= count
        try:
            bounds = string_bounds(self._view, start, count)
        except ValueError:
            message = f"the file ends inside a string of {self.context}"
            raise self.error(message, start, CUT_SHORT) from None
        self.strings = bounds
        self.position = int(bounds[-1])

    def _skip_arrays(self, count: int, depth: int) -> None:
        if count > self._nested_left:
            raise self.error(f"{self.context} cannot hold {count} arrays", self.position)
        self._nested_left -= count
        for _ in range(count):
            self._skip_array(depth + 1)

    def _check_bools(self, start: int, count: int) -> None:
        values = np.frombuffer(self._view, np.uint8, count, start)
        if count and values.max() > 1:
            wrong = start + int(values.argmax())
            raise self.error(f"{self.context} has a bool that is neither 0 nor 1", wrong)
