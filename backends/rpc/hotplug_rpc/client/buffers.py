"""Memory of a remote device."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hotplug.backend import Buffer, BufferType
from hotplug.errors import OutOfDeviceMemoryError, RemoteError, UsageError
from hotplug_rpc.client.pending import Pending
from hotplug_rpc.client.weights import Ahead, upload
from hotplug_rpc.errors import ServerLostError
from hotplug_rpc.requests import Copy, Fetch, Read, Ticket, Write

if TYPE_CHECKING:
    from hotplug_rpc.client.device import RemoteDevice

__all__ = ["RemoteBuffer", "RemoteBufferType"]

_log = logging.getLogger("hotplug.rpc")

_SMALL = 1 << 16
"""Bytes up to which writes are deferred, and results come along with the answer to a run."""

_WANTED_MOST = 4 << 20
"""Bytes up to which results come along where they were read after the last run."""

_PIECE = 4 << 20
_IN_FLIGHT = 8

_UNASKED = 1 << 20
"""Bytes up to which a new buffer, or a copy that was written, is taken for granted until the next
answer: a round trip takes longer than the copying."""

_MOST = (1 << 63) - 1

_WANT_SINCE = 1
"""Minor version of the protocol."""


def least_direct(source: RemoteDevice, target: RemoteDevice) -> int:
    """Bytes from which on copies do not come by way of this machine, if nothing read them here."""
    return 1 + (_SMALL if source.connection is target.connection else _UNASKED)


class RemoteBufferType(BufferType):
    """What a remote device allocates."""

    is_host = False

    def __init__(self, device: RemoteDevice, alignment: int, max_bytes: int | None) -> None:
        self.alignment = alignment
        self.max_bytes = max_bytes
        self._device = device
        self._ahead: Ahead | None = None

    def allocate(self, nbytes: int) -> RemoteBuffer:
        """Zeros.

        Raises:
            UsageError: nbytes is negative.
            OutOfDeviceMemoryError: there is not enough.
        """
        if nbytes < 0:
            raise UsageError(f"cannot allocate {nbytes} bytes")
        device = self._device
        if nbytes > _MOST:
            raise OutOfDeviceMemoryError(
                f"{nbytes} bytes are more than there can be", device=device.id, requested=nbytes
            )
        buffer = RemoteBuffer(device, device.connection.new_handle(), nbytes)
        device.allocate(buffer.handle, nbytes, small=nbytes <= _UNASKED)
        return buffer

    def wrap(self, data: memoryview) -> Buffer | None:
        """Memory that is not written to any more, known over there by its hash; else None."""
        return self.wrap_all([data])[0]

    def wrap_all(self, data: Sequence[memoryview]) -> list[Buffer | None]:
        """Several at once: hashed together, asked for together, and sent where missing.

        Raises:
            OutOfDeviceMemoryError: the device has no room for them.
            HotplugError: the connection is lost.
        """
        fit = [item for item in data if _is_fixed(item)]
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.wait()
        handles = iter(upload(self._device, fit, ahead.hashes if ahead else None))
        return [
            RemoteWeight(self._device, next(handles), item) if _is_fixed(item) else None
            for item in data
        ]

    def expect(self, data: Sequence[memoryview]) -> None:
        """Begin to bring read-only memory to the server, if it takes newer requests."""
        if self._device.connection.minor < _WANT_SINCE:
            return
        self.expect_no_more()
        self._ahead = Ahead(self._device, [item for item in data if _is_fixed(item)])

    def expect_no_more(self) -> None:
        """Bring nothing ahead any more."""
        if self._ahead is not None:
            self._ahead.stop()
            self._ahead = None


class RemoteBuffer(Buffer):
    """A buffer over there, and what of it is known here.

    Attributes:
        handle: its number in the session.
        wanted: whether its content comes along with the answer to a run that writes it.
    """

    def __init__(self, device: RemoteDevice, handle: int, nbytes: int) -> None:
        self.nbytes = nbytes
        self.device = device
        self.handle = handle
        self.freed = False
        self.wanted = nbytes <= _SMALL
        self._known: memoryview | None = None  # all of the content, since the last change
        self._was_read = True

    # The contract

    def read(self, offset: int, target: memoryview) -> None:
        """Fill `target`, from what is known or from over there.

        Raises:
            UsageError: the range does not lie within the buffer, or the buffer was freed.
            HotplugError: the connection is lost, or a request before failed.
        """
        if target.readonly or not target.c_contiguous:
            raise UsageError("the target of a read must be contiguous and writable")
        self.check(offset, target.nbytes)
        self._was_read = True
        if self._known is not None:
            _copy(target, self._known[offset : offset + target.nbytes])
            return
        if target.nbytes == self.nbytes <= _WANTED_MOST:
            self.wanted = True  # whoever reads it now will do so after the next run
        self._fetch(offset, target)

    def write(self, offset: int, source: memoryview) -> None:
        """Send `source`; at once, if it is large.

        Raises:
            UsageError: the range does not lie within the buffer, or the buffer was freed.
            HotplugError: the connection is lost, or a request before failed.
        """
        if not source.c_contiguous:
            raise UsageError("the source of a write must be contiguous")
        self.check(offset, source.nbytes)
        self._known = None
        if source.nbytes <= _SMALL:
            self.device.defer(self, offset, source.tobytes())
        elif source.nbytes <= min(_UNASKED, self.device.connection.frame_bytes):
            self.device.flush()
            request = Write(self.device.position, self.handle, offset)
            self.device.send(request, [source.tobytes()])
        else:
            self._send(offset, source)

    def free(self) -> None:
        """Give the memory back; a second call does nothing."""
        if not self.freed:
            self.freed = True
            self._known = None
            self.device.free(self)

    def copy_from(self, source: Buffer) -> None:
        """Copy an equally large buffer: on the server, from server to server, or through here."""
        if not isinstance(source, RemoteBuffer):
            super().copy_from(source)
            return
        source.check(0, self.nbytes)
        self.check(0, source.nbytes)
        known = source.known()
        if known is not None:
            self.write(0, known)
            return
        self._known = None
        if source.device.connection is self.device.connection:
            source.device.settle_all()
            self.device.ask(Copy(self.device.position, source.handle, self.handle))
        elif self.nbytes <= _UNASKED:  # from now on it comes along with the answer to a run
            super().copy_from(source)
        else:
            self._copy_directly(source)

    # For executables

    def known(self) -> memoryview | None:
        """All of the content, if it is here."""
        return self._known

    def before_run(self) -> None:
        """A run will write it: what is known is old, and what was not read is not wanted again."""
        if self._known is not None and not self._was_read and self.nbytes > _SMALL:
            self.wanted = False
        self._known = None
        self._was_read = False

    def after_run(self, content: memoryview) -> None:
        """Its content came along."""
        self._known = content

    def check(self, offset: int, nbytes: int) -> None:
        """Refuse a freed buffer, and what does not lie within.

        Raises:
            UsageError: as said.
        """
        if self.freed:
            raise UsageError("the buffer was freed")
        if not 0 <= offset <= offset + nbytes <= self.nbytes:
            raise UsageError(
                f"bytes {offset} to {offset + nbytes} do not lie within a buffer of {self.nbytes}"
            )

    # Within

    def _fetch(self, offset: int, target: memoryview) -> None:
        flat = np.frombuffer(target, np.uint8) if target.nbytes else np.empty(0, np.uint8)
        flight: deque[tuple[int, int, Pending]] = deque()
        device = self.device
        device.flush()
        for start, count in _pieces(target.nbytes, device.connection.frame_bytes):
            if len(flight) >= _IN_FLIGHT:
                _land(device, flight, flat)
            request = Read(device.position, self.handle, offset + start, count)
            flight.append((start, count, device.connection.submit(request)))
        while flight:
            _land(device, flight, flat)

    def _send(self, offset: int, source: memoryview) -> None:
        device = self.device
        flat = source.cast("B") if source.nbytes else source
        device.flush()
        flight: deque[Pending] = deque()
        for start, count in _pieces(source.nbytes, device.connection.frame_bytes):
            if len(flight) >= _IN_FLIGHT:
                device.settle(flight.popleft())
            request = Write(device.position, self.handle, offset + start)
            flight.append(device.connection.submit(request, [flat[start : start + count]]))
        while flight:
            device.settle(flight.popleft())

    def _copy_directly(self, source: RemoteBuffer) -> None:
        """From server to server; through here where one of them does not do that."""
        try:
            self._fetch_from(source)
        except ServerLostError:
            raise
        except RemoteError as error:
            _log.info("copied by way of this machine: %s", error)
            super().copy_from(source)

    def _fetch_from(self, source: RemoteBuffer) -> None:
        there, here = source.device.connection, self.device.connection
        ticket = Ticket(source.device.position, source.handle, here.server_key.hex())
        body = source.device.ask(ticket).body
        self.device.settle_all()  # fetching is done beside the device's other requests
        self.device.ask(
            Fetch(
                self.device.position,
                self.handle,
                there.address.server,
                there.server_key.hex(),
                str(body.get("ticket")),
            )
        )


class RemoteWeight(RemoteBuffer):
    """Memory of the host's that the server has as well, known by its hash. Nobody writes to it."""

    def __init__(self, device: RemoteDevice, handle: int, data: memoryview) -> None:
        super().__init__(device, handle, data.nbytes)
        self._known = data.cast("B") if data.nbytes else memoryview(b"")

    def write(self, offset: int, source: memoryview) -> None:
        """Refuse.

        Raises:
            UsageError: always.
        """
        self.check(offset, source.nbytes)
        raise UsageError("the buffer lies over read-only memory and cannot be written")

    def copy_from(self, source: Buffer) -> None:
        """Refuse, as `write`."""
        self.write(0, memoryview(bytes(source.nbytes)))

    def before_run(self) -> None:
        """The server refuses to let a run write to it."""


def _is_fixed(data: memoryview) -> bool:
    return data.readonly and data.c_contiguous


def _pieces(nbytes: int, frame_bytes: int) -> Iterator[tuple[int, int]]:
    step = min(_PIECE, frame_bytes)
    for start in range(0, nbytes, step):
        yield start, min(step, nbytes - start)


def _land(
    device: RemoteDevice, flight: deque[tuple[int, int, Pending]], target: npt.NDArray[np.uint8]
) -> None:
    start, count, pending = flight.popleft()
    (data,) = device.settle(pending).contents([count])
    target[start : start + count] = np.frombuffer(data, np.uint8)


def _copy(target: memoryview, source: memoryview) -> None:
    if target.nbytes:
        np.frombuffer(target, np.uint8)[:] = np.frombuffer(source, np.uint8)
