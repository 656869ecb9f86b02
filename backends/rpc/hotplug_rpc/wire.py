"""Heads of messages as bytes; see docs/protocol.md. Nothing here touches a socket.

Everything that comes from outside goes through `parse_head` and the readers of `Fields`, which
raise `ProtocolError` and nothing else, whatever the bytes are.
"""

from __future__ import annotations

import enum
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from hotplug_rpc.errors import ProtocolError

__all__ = ["MAX_HEAD", "VERSION", "Fields", "Head", "Kind", "id_of", "make_head", "parse_head"]

VERSION = (1, 3)
"""Major: ends with different ones cannot talk. Minor: kinds and fields were added."""

MAX_HEAD = 1 << 20
"""Bytes of a head."""

_MAGIC = b"hp"
_HEAD = struct.Struct("<2sBBIQ")
_MOST = (1 << 63) - 1
_MAX_TEXT = 4096


class Kind(enum.IntEnum):
    """What a message is. Requests are below 128."""

    HELLO = 1
    BYE = 2
    PING = 3
    MEMORY = 4
    SUPPORTS = 5
    ALLOCATE = 6
    FREE = 7
    WRITE = 8
    READ = 9
    COPY = 10
    COMPILE = 11
    BIND = 12
    RUN = 13
    EXPLAIN = 14
    PROFILE = 15
    CANCEL = 16
    WEIGHTS = 17
    CONTENT = 18
    TICKET = 19
    FETCH = 20
    REDEEM = 21
    LEND = 22
    WANT = 23
    ALLOCATE_ALL = 24
    DONE = 128
    FAILED = 129
    NUDGE = 130


@dataclass(frozen=True, slots=True)
class Head:
    """A message without its payload.

    Attributes:
        kind: what it is.
        id: of the request; 0 where there is none.
        timeout_ms: how long the client waits; 0 for no limit.
        body: fields, not yet looked at.
    """

    kind: Kind
    id: int
    timeout_ms: int
    body: Mapping[str, Any]


def make_head(
    kind: Kind,
    request: int,
    body: Mapping[str, Any] | None = None,
    timeout_ms: int = 0,
) -> bytes:
    """Bytes of a head.

    Raises:
        ProtocolError: it is longer than any end reads.
    """
    text = json.dumps(body, separators=(",", ":"), allow_nan=False).encode() if body else b""
    if len(text) > MAX_HEAD - _HEAD.size:
        raise ProtocolError(f"a head of {len(text)} bytes is not sent; {MAX_HEAD} are read at most")
    return _HEAD.pack(_MAGIC, VERSION[0], kind, timeout_ms, request) + text


def parse_head(data: bytes) -> Head:
    """A head from bytes that anyone may have sent.

    Raises:
        ProtocolError: the bytes are none.
    """
    if len(data) < _HEAD.size or len(data) > MAX_HEAD:
        raise ProtocolError(f"a head has {_HEAD.size} to {MAX_HEAD} bytes, not {len(data)}")
    magic, major, number, timeout_ms, request = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise ProtocolError("the message does not begin as one of this protocol")
    kind = _kind(number)
    if major != VERSION[0] and kind not in {Kind.HELLO, Kind.FAILED}:
        raise ProtocolError(f"the message is of version {major} of the protocol, not {VERSION[0]}")
    return Head(kind, request, timeout_ms, _body(data[_HEAD.size :]))


def id_of(data: bytes) -> int:
    """A request's number, also where nothing else of the head can be understood; else 0."""
    if len(data) < _HEAD.size or not data.startswith(_MAGIC):
        return 0
    return int(_HEAD.unpack_from(data)[4])


def _kind(number: int) -> Kind:
    try:
        return Kind(number)
    except ValueError:
        raise ProtocolError(f"there is no message of kind {number}") from None


def _body(text: bytes) -> dict[str, Any]:
    if not text:
        return {}
    try:
        # Decoded here, since from bytes JSON would take other encodings too.
        body = json.loads(text.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the head is not JSON: {str(error)[:200]}") from None
    if not isinstance(body, dict):
        raise ProtocolError("the head holds no JSON object")
    return body


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands there twice")
    return found


class Fields:
    """Readers of a body's fields, each checked; `done` refuses those that nothing read."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._body = dict(body)

    def _take(self, name: str, default: Any = ...) -> Any:
        value = self._body.pop(name, default)
        if value is ...:
            raise ProtocolError(f"the field {name!r} is missing")
        return value

    def count(self, name: str, most: int = _MOST) -> int:
        """A whole number from 0 to `most`."""
        return _count(self._take(name), name, most)

    def optional_count(self, name: str, most: int = _MOST) -> int | None:
        """The same, or None."""
        value = self._take(name, None)
        return None if value is None else _count(value, name, most)

    def text(self, name: str, most: int = _MAX_TEXT) -> str:
        """A text of at most so many characters."""
        value = self._take(name)
        if not isinstance(value, str) or len(value) > most:
            raise ProtocolError(f"{name!r} is no text of at most {most} characters")
        return value

    def hex(self, name: str, digits: int) -> str:
        """So many hexadecimal digits, in lower case."""
        return check_hex(self._take(name), name, digits)

    def counts(self, name: str, most_items: int) -> list[int]:
        """A list of whole numbers; absent counts as empty."""
        items = self._list(name, most_items)
        return [_count(item, name) for item in items]

    def rows(self, name: str, length: int, most_items: int) -> list[list[Any]]:
        """A list of lists of one length, whose items are still to be checked."""
        items = self._list(name, most_items)
        for item in items:
            if not isinstance(item, list) or len(item) != length:
                raise ProtocolError(f"{name!r} is no list of lists of {length}")
        return items

    def pairs(self, name: str, most_items: int) -> list[tuple[int, int]]:
        """A list of pairs of whole numbers; absent counts as empty."""
        rows = self.rows(name, 2, most_items)
        return [(_count(one, name), _count(two, name)) for one, two in rows]

    def named_counts(self, name: str, most_items: int) -> dict[str, int]:
        """An object of whole numbers."""
        value = self._take(name)
        if not isinstance(value, dict) or len(value) > most_items:
            raise ProtocolError(f"{name!r} is no object of at most {most_items} numbers")
        return {key: _count(item, name) for key, item in value.items()}

    def _list(self, name: str, most_items: int) -> list[Any]:
        value = self._take(name, [])
        if not isinstance(value, list) or len(value) > most_items:
            raise ProtocolError(f"{name!r} is no list of at most {most_items} items")
        return value

    def done(self) -> None:
        """Refuse fields that the message does not have."""
        if self._body:
            raise ProtocolError(f"there is no field {next(iter(self._body))[:64]!r} here")


def check_hex(value: object, name: str, digits: int) -> str:
    """A value that is so many hexadecimal digits in lower case."""
    if isinstance(value, str) and len(value) == digits and not set(value) - set("0123456789abcdef"):
        return value
    raise ProtocolError(f"{name!r} is not {digits} hexadecimal digits")


def check_count(value: object, name: str) -> int:
    """A value that is a whole number and not negative."""
    return _count(value, name)


def _count(value: object, name: str, most: int = _MOST) -> int:
    if type(value) is not int or not 0 <= value <= most:  # bool is an int, but no count
        raise ProtocolError(f"{name!r} is no whole number from 0 to {most}")
    return value
