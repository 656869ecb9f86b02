"""Requests as typed values: what a client writes and a server reads, and the checks between.

Each class knows its kind and how many payload frames it has. `parse` makes one of a head and raises
`ProtocolError` for whatever is not as docs/protocol.md has it; what only a session can know, such
as whether a handle is there, is checked where the request is carried out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from hotplug_rpc.errors import ProtocolError
from hotplug_rpc.wire import Fields, Head, Kind, check_count, check_hex

__all__ = [
    "MAX_FRAMES", "Allocate", "AllocateAll", "Bind", "Bye", "Cancel", "Compile", "Content", "Copy",
    "Explain", "Fetch", "Free", "Hello", "Lend", "Memory", "Ping", "Profile", "Read", "Redeem",
    "Request", "Run", "Supports", "Ticket", "Want", "Weights", "Write", "parse",
]  # fmt: skip

MAX_FRAMES = 1024
"""Payload frames of a message."""

MAX_NAMES = 65_536
"""Items of a list or object."""

HASH_DIGITS = 64
GRAPH_DIGITS = 32


def _read_by(reader: Callable[[Fields, str], object]) -> Any:
    """A field that `reader` takes from a body, given its name."""
    return field(metadata={"read": reader})


def _count() -> Any:
    return _read_by(lambda body, name: body.count(name))


def _counts() -> Any:
    return _read_by(lambda body, name: body.counts(name, MAX_NAMES))


def _device() -> Any:
    return _read_by(lambda body, name: body.count(name, 65_535))


def _hex(digits: int = HASH_DIGITS) -> Any:
    return _read_by(lambda body, name: body.hex(name, digits))


def _text(most: int) -> Any:
    return _read_by(lambda body, name: body.text(name, most))


@dataclass(frozen=True, slots=True)
class Request:
    """Any request.

    Attributes:
        kind: what its head calls it.
        frames: least and most payload frames.
    """

    kind: ClassVar[Kind]
    frames: ClassVar[tuple[int, int]] = (0, 0)

    def body(self) -> dict[str, Any]:
        """Its fields as they go into a head."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


def _version(body: Fields, name: str) -> tuple[int, int]:
    numbers = body.counts(name, 2)
    if len(numbers) != 2:
        raise ProtocolError(f"{name!r} is not [major, minor]")
    return numbers[0], numbers[1]


@dataclass(frozen=True, slots=True)
class Hello(Request):
    """Begins a session."""

    kind = Kind.HELLO
    protocol: tuple[int, int] = _read_by(_version)
    library: str = _text(64)
    ops: str = _text(128)


@dataclass(frozen=True, slots=True)
class Bye(Request):
    """Ends a session."""

    kind = Kind.BYE


@dataclass(frozen=True, slots=True)
class Ping(Request):
    """Sends the payload back."""

    kind = Kind.PING
    frames = (0, 1)


@dataclass(frozen=True, slots=True)
class Memory(Request):
    """Asks for a device's memory."""

    kind = Kind.MEMORY
    device: int = _device()


@dataclass(frozen=True, slots=True)
class Supports(Request):
    """Asks a device about every node of a graph."""

    kind = Kind.SUPPORTS
    frames = (0, 1)
    device: int = _device()
    graph: str = _hex(GRAPH_DIGITS)


@dataclass(frozen=True, slots=True)
class Allocate(Request):
    """Makes a buffer of zeros."""

    kind = Kind.ALLOCATE
    device: int = _device()
    buffer: int = _count()
    nbytes: int = _count()


@dataclass(frozen=True, slots=True)
class AllocateAll(Request):
    """Makes several buffers of zeros: (buffer, bytes) each."""

    kind = Kind.ALLOCATE_ALL
    device: int = _device()
    buffers: list[tuple[int, int]] = _read_by(lambda body, name: body.pairs(name, MAX_NAMES))


@dataclass(frozen=True, slots=True)
class Free(Request):
    """Gives buffers and executables back; of handles that are not there, nothing is said."""

    kind = Kind.FREE
    device: int = _device()
    buffers: list[int] = _counts()
    executables: list[int] = _counts()


@dataclass(frozen=True, slots=True)
class Write(Request):
    """Puts bytes into a buffer."""

    kind = Kind.WRITE
    frames = (1, 1)
    device: int = _device()
    buffer: int = _count()
    offset: int = _count()


@dataclass(frozen=True, slots=True)
class Read(Request):
    """Asks for bytes of a buffer."""

    kind = Kind.READ
    device: int = _device()
    buffer: int = _count()
    offset: int = _count()
    nbytes: int = _count()


@dataclass(frozen=True, slots=True)
class Copy(Request):
    """Copies a buffer to another one of the same size on this server."""

    kind = Kind.COPY
    device: int = _device()
    source: int = _count()
    target: int = _count()


@dataclass(frozen=True, slots=True)
class Compile(Request):
    """Makes a graph ready to run."""

    kind = Kind.COMPILE
    frames = (0, 1)
    device: int = _device()
    executable: int = _count()
    graph: str = _hex(GRAPH_DIGITS)
    arena_bytes: int = _count()
    threads: int | None = _read_by(lambda body, name: body.optional_count(name, 256))


@dataclass(frozen=True, slots=True)
class Bind(Request):
    """Says which buffers an executable runs with from now on."""

    kind = Kind.BIND
    device: int = _device()
    executable: int = _count()
    buffers: dict[str, int] = _read_by(lambda body, name: body.named_counts(name, MAX_NAMES))


@dataclass(frozen=True, slots=True)
class Run(Request):
    """Writes, runs and reads: all that a token needs, at once."""

    kind = Kind.RUN
    frames = (0, MAX_FRAMES)
    device: int = _device()
    executable: int = _count()
    writes: list[tuple[int, int]] = _read_by(lambda body, name: body.pairs(name, MAX_FRAMES))
    reads: list[int] = _read_by(lambda body, name: body.counts(name, MAX_FRAMES))


@dataclass(frozen=True, slots=True)
class Explain(Request):
    """Asks what an executable does."""

    kind = Kind.EXPLAIN
    device: int = _device()
    executable: int = _count()


@dataclass(frozen=True, slots=True)
class Profile(Request):
    """Runs with clocks."""

    kind = Kind.PROFILE
    device: int = _device()
    executable: int = _count()


@dataclass(frozen=True, slots=True)
class Cancel(Request):
    """Takes a request back."""

    kind = Kind.CANCEL
    request: int = _read_by(lambda body, name: body.count(name, (1 << 64) - 1))


def _weights(body: Fields, name: str) -> list[tuple[int, str, int]]:
    return [
        (check_count(buffer, name), check_hex(digest, name, HASH_DIGITS), check_count(size, name))
        for buffer, digest, size in body.rows(name, 3, MAX_NAMES)
    ]


@dataclass(frozen=True, slots=True)
class Weights(Request):
    """Asks for buffers with given contents: (buffer, hash, bytes) each."""

    kind = Kind.WEIGHTS
    device: int = _device()
    weights: list[tuple[int, str, int]] = _read_by(_weights)


@dataclass(frozen=True, slots=True)
class Content(Request):
    """A piece of a weight's bytes."""

    kind = Kind.CONTENT
    frames = (1, 1)
    hash: str = _hex()
    nbytes: int = _count()
    offset: int = _count()


@dataclass(frozen=True, slots=True)
class Ticket(Request):
    """Lets another server read a buffer, once."""

    kind = Kind.TICKET
    device: int = _device()
    buffer: int = _count()
    peer: str = _hex()


@dataclass(frozen=True, slots=True)
class Fetch(Request):
    """Fills a buffer from another server's."""

    kind = Kind.FETCH
    device: int = _device()
    buffer: int = _count()
    endpoint: str = _text(300)
    key: str = _hex()
    ticket: str = _hex()


@dataclass(frozen=True, slots=True)
class Redeem(Request):
    """Asks for the next bytes of what a ticket gives; without a number, for all that are left."""

    kind = Kind.REDEEM
    ticket: str = _hex()
    nbytes: int | None = _read_by(lambda body, name: body.optional_count(name))


def _contents(body: Fields, name: str) -> list[tuple[str, int]]:
    return [
        (check_hex(digest, name, HASH_DIGITS), check_count(size, name))
        for digest, size in body.rows(name, 2, MAX_NAMES)
    ]


@dataclass(frozen=True, slots=True)
class Want(Request):
    """Says which contents will be asked for, (hash, bytes) each, and asks which are missing."""

    kind = Kind.WANT
    device: int = _device()
    weights: list[tuple[str, int]] = _read_by(_contents)


def _parts(body: Fields, name: str) -> list[tuple[str, int, int]]:
    return [
        (check_hex(digest, name, HASH_DIGITS), check_count(size, name), check_count(offset, name))
        for digest, size, offset in body.rows(name, 3, MAX_NAMES)
    ]


@dataclass(frozen=True, slots=True)
class Lend(Request):
    """Has weights read from a file that was handed over: (hash, bytes, offset) each."""

    kind = Kind.LEND
    token: str = _hex()
    weights: list[tuple[str, int, int]] = _read_by(_parts)


CLASSES: tuple[type[Request], ...] = (
    Hello, Bye, Ping, Memory, Supports, Allocate, Free, Write, Read, Copy, Compile, Bind, Run,
    Explain, Profile, Cancel, Weights, Content, Ticket, Fetch, Redeem, Lend, Want, AllocateAll,
)  # fmt: skip
"""All that there are."""

_BY_KIND = {cls.kind: cls for cls in CLASSES}
_READERS = {
    cls: [(item.name, item.metadata["read"]) for item in fields(cls)] for cls in _BY_KIND.values()
}


def parse(head: Head, frames: int) -> Request:
    """A request from a head that came with so many payload frames.

    Raises:
        ProtocolError: it is none, or its fields or frames are not as they have to be.
    """
    cls = _BY_KIND.get(head.kind)
    if cls is None or head.id == 0:
        raise ProtocolError(f"{head.kind.name} with id {head.id} is no request")
    least, most = cls.frames
    if not least <= frames <= most:
        raise ProtocolError(f"{head.kind.name} has {least} to {most} payload frames, not {frames}")
    body = Fields(head.body)
    request = cls(**{name: reader(body, name) for name, reader in _READERS[cls]})
    body.done()
    if isinstance(request, Run) and len(request.writes) != frames:
        raise ProtocolError(f"RUN names {len(request.writes)} writes and brings {frames}")
    return request
