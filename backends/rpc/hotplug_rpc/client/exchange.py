"""One socket for many threads, without a thread of its own.

ZeroMQ's sockets belong to one thread at a time. Of the threads that wait for answers one, the
*leader*, holds the socket: it sends what all have queued, takes in what comes, and hands answers to
whom they belong. When its own answer is there, the next one leads. A lone thread thus never waits
for another.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import zmq
from zmq.utils.monitor import recv_monitor_message

from hotplug.errors import HotplugError
from hotplug_rpc.addresses import Address
from hotplug_rpc.client.pending import Pending
from hotplug_rpc.descriptors import received_bytes
from hotplug_rpc.errors import DeadlineError, ProtocolError, ServerLostError
from hotplug_rpc.faults import from_body
from hotplug_rpc.keys import Identity
from hotplug_rpc.requests import Cancel, Request
from hotplug_rpc.sockets import HANDSHAKE_MS, dealer, send_frames
from hotplug_rpc.wire import Kind, make_head, parse_head

__all__ = ["Exchange", "Frames"]

Frames: TypeAlias = "Sequence[bytes | bytearray | memoryview]"

_MOST_PENDING = 128
_MOST_PENDING_BYTES = 32 << 20
_MOST_MS = (1 << 32) - 1
_ABOUT_NOW = 0.2
_LOOK_SECONDS = 0.1
_GONE = "is gone, or the link to it is cut"

_EVENTS = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
)


class Exchange:
    """A connection to a server, from the handshake on. Safe to use from several threads.

    Attributes:
        address: the server's.
        devices: the server's device id -> the id it has here, for errors.
        closing: whether the server has said that it is about to end.
    """

    def __init__(
        self,
        address: Address,
        server_key: bytes,
        identity: Identity,
        timeout: float,
        most_bytes: int | None = None,
    ) -> None:
        """Connect.

        Args:
            address: where to.
            server_key: the key that is expected there.
            identity: who we are.
            timeout: seconds that an answer may take.
            most_bytes: that the server may send in all, where the system tells how much it did.

        Raises:
            ServerLostError: nobody answers there, or not with that key, or it does not let us in.
        """
        self.address = address
        self.devices: dict[str, str] = {}
        self.closing = False
        self._timeout = timeout
        self._most_bytes = most_bytes
        self._descriptor = -1
        self._pid = os.getpid()
        self._lost: HotplugError | None = None
        self._pending: dict[int, Pending] = {}
        self._pending_bytes = 0
        self._outbox: deque[list[Any]] = deque()
        self._last = 0
        self._turn = threading.Condition()
        self._leading = False
        self._closed = False
        self._socket = dealer(server_key, identity, ipv6=":" in address.host)
        self._wake_read, self._wake_write = socket.socketpair()
        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)
        self._monitor = self._socket.get_monitor_socket(_EVENTS)
        self._poller = zmq.Poller()
        for source in (self._socket, self._monitor, self._wake_read):
            self._poller.register(source, zmq.POLLIN)
        try:
            self._handshake()
        except BaseException:
            self.close()
            raise

    # Connecting

    def _handshake(self) -> None:
        try:
            self._socket.connect(self.address.endpoint)
        except zmq.ZMQError as error:
            raise self._unreachable(f"cannot be connected to: {error.strerror}") from error
        until = time.monotonic() + min(self._timeout, HANDSHAKE_MS / 1000)
        while True:
            left = until - time.monotonic()
            if left <= 0 or not self._monitor.poll(math.ceil(left * 1000)):
                raise self._unreachable("does not answer")
            message = recv_monitor_message(self._monitor)
            event = message["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                return
            if event == zmq.EVENT_CONNECTED:
                self._descriptor = message["value"]
                continue
            if until - time.monotonic() < _ABOUT_NOW:  # ZeroMQ's patience was over a moment before
                raise self._unreachable("does not answer")
            self._explain_failure(event)

    def _explain_failure(self, event: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            raise self._unreachable(
                "does not let this machine in",
                "`hotplug keys` here shows the key to give to `hotplug keys allow` there",
            )
        if event == zmq.EVENT_CLOSED:
            raise self._unreachable("cannot be connected to: nothing listens there")
        raise self._unreachable(
            "ended the handshake",
            "`hotplug keys` there shows its key, for `hotplug keys trust` here; or too many "
            "attempts from here were refused in the last minute",
        )

    def _unreachable(self, why: str, remedy: str | None = None) -> ServerLostError:
        server = self.address.server
        return ServerLostError(f"{server} {why}", endpoint=server, remedy=remedy)

    # Requests

    @property
    def lost(self) -> HotplugError | None:
        """Why nothing can be asked any more; None while something can."""
        if self._lost is None and self._pid != os.getpid():
            self._lost = self._unreachable("was connected to before the process forked")
        return self._lost

    def submit(self, request: Request, frames: Frames = ()) -> Pending:
        """Send a request and go on.

        Raises:
            HotplugError: the connection is lost.
        """
        pending = self.enqueue(request, frames)
        self._lead(lambda: True)
        return pending

    def request(
        self, request: Request, frames: Frames = (), timeout: float | None = None
    ) -> Pending:
        """Send a request and wait for its answer.

        Raises:
            HotplugError: what the server says is wrong, or the connection is lost.
            DeadlineError: there was no answer in time; the connection is given up.
        """
        return self.wait(self.enqueue(request, frames, timeout), timeout)

    def enqueue(
        self, request: Request, frames: Frames = (), timeout: float | None = None
    ) -> Pending:
        """Give a request its place; it is sent when somebody waits or submits.

        Raises:
            ProtocolError: its head would be too long.
            HotplugError: the connection is lost.
        """
        nbytes = sum(memoryview(frame).nbytes for frame in frames)
        self._wait_for_room(nbytes)
        with self._turn:
            self._check_lost()
            seconds = self._timeout if timeout is None else timeout
            timeout_ms = min(int(seconds * 1000), _MOST_MS)
            number = self._put(request, frames, timeout_ms)
            pending = self._pending[number] = Pending(number, nbytes)
            self._pending_bytes += nbytes
        return pending

    def _put(self, request: Request, frames: Frames = (), timeout_ms: int = 0) -> int:
        """Queue a message and return its number; the turn is held. A head may be too long."""
        head = make_head(request.kind, self._last + 1, request.body(), timeout_ms)
        self._last += 1
        self._outbox.append([head, *frames])
        return self._last

    def _wait_for_room(self, nbytes: int) -> None:
        """The server refuses more than it said it would keep; so some answers must come first."""
        while True:
            with self._turn:
                full = len(self._pending) >= _MOST_PENDING
                full = full or self._pending_bytes + nbytes > _MOST_PENDING_BYTES
                oldest = next(iter(self._pending.values()), None)
            if not full or oldest is None:
                return
            self._await(oldest, self._timeout)

    def wait(self, pending: Pending, timeout: float | None = None) -> Pending:
        """The answer to a request that was submitted; raises as `request`."""
        self._await(pending, self._timeout if timeout is None else timeout)
        if pending.error is not None:
            raise pending.error
        return pending

    def _await(self, pending: Pending, seconds: float) -> None:
        until = time.monotonic() + seconds
        try:
            while not pending.done:
                left = until - time.monotonic()
                if left <= 0:
                    raise self._give_up(seconds)
                self._lead(lambda: pending.done, left)
        except (KeyboardInterrupt, SystemExit):
            self.take_back(pending)
            raise

    def _give_up(self, seconds: float) -> DeadlineError:
        """Nobody can tell what the server has done; what comes later would be misunderstood."""
        server = self.address.server
        error = DeadlineError(
            f"{server} gave no answer within {seconds:g} s", seconds=seconds, endpoint=server,
            remedy="HOTPLUG_RPC_TIMEOUT sets the seconds",
        )  # fmt: skip
        self._fail_all(error)
        return error

    def take_back(self, pending: Pending) -> None:
        """Cancel a request: it is not begun, or a run is ended where the device can do that."""
        with contextlib.suppress(HotplugError):
            self.tell(Cancel(pending.id))

    def tell(self, request: Request) -> None:
        """Send what has no answer.

        Raises:
            HotplugError: the connection is lost.
        """
        with self._turn:
            self._check_lost()
            self._put(request)
        self._lead(lambda: True)

    def _check_lost(self) -> None:
        if self.lost is not None:
            raise self._lost_again()

    def _lost_again(self) -> HotplugError:
        """A fresh exception, so that each has a traceback of its own."""
        assert self._lost is not None
        return ServerLostError(
            str(self._lost.args[0]), endpoint=self.address.server, remedy=self._lost.remedy
        )

    # The leader

    def _lead(self, enough: Callable[[], bool], seconds: float = 0.0) -> None:
        """Until `enough`, or for so long: use the socket, or wait for whoever does."""
        with self._turn:
            if self._leading:
                self._wake()
                if seconds and not enough():
                    self._turn.wait(seconds)
                return
            self._leading = True
        try:
            self._pump(enough, time.monotonic() + seconds)
        finally:
            with self._turn:
                self._leading = False
                self._turn.notify_all()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_write.send(b"x")

    def _pump(self, enough: Callable[[], bool], until: float) -> None:
        while True:
            self._send_queued()
            if enough() or self._lost is not None:
                return
            left = until - time.monotonic()
            if left <= 0:
                return
            if self._most_bytes is not None:
                left = min(left, _LOOK_SECONDS)
                self._check_received(self._most_bytes)
            ready = dict(self._poller.poll(math.ceil(left * 1000)))
            if self._socket in ready:
                self._receive()
            if self._monitor in ready:
                self._notice()
            if self._wake_read.fileno() in ready:
                with contextlib.suppress(BlockingIOError):
                    self._wake_read.recv(4096)

    def _check_received(self, most: int) -> None:
        """ZeroMQ shows nothing of a message before its last frame, which may never come."""
        if (received_bytes(self._descriptor) or 0) > most:
            self._fail_all(self._unreachable("sends more than was asked for"))

    def _send_queued(self) -> None:
        while self._outbox:
            frames = self._outbox.popleft()
            try:
                send_frames(self._socket, frames, zmq.NOBLOCK)
            except zmq.Again:  # there is no limit to what is queued, so there is nobody
                self._fail_all(self._unreachable(_GONE))

    def _receive(self) -> None:
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            try:
                self._take(frames)
            except ProtocolError as error:
                self._fail_all(error)

    def _take(self, frames: Sequence[zmq.Frame]) -> None:
        head = parse_head(frames[0].bytes)
        if head.kind is Kind.NUDGE:
            self.closing = self.closing or head.body.get("closing") is True
            return
        with self._turn:
            pending = self._pending.pop(head.id, None)
            if pending is None:  # given up, or taken back
                return
            self._pending_bytes -= pending.nbytes
        if head.kind is Kind.DONE:
            pending.body = head.body
            pending.frames = [memoryview(frame.buffer) for frame in frames[1:]]
        else:
            pending.error = from_body(head.body, self.address.server, self.devices)
        pending.done = True
        self._tell()

    def _tell(self) -> None:
        with self._turn:
            self._turn.notify_all()

    def _notice(self) -> None:
        event = recv_monitor_message(self._monitor)["event"]
        if event in {zmq.EVENT_DISCONNECTED, zmq.EVENT_CLOSED}:
            self._fail_all(self._unreachable(_GONE))

    def _fail_all(self, error: HotplugError) -> None:
        with self._turn:
            if self._lost is None:
                self._lost = error
            failed, self._pending = list(self._pending.values()), {}
            self._outbox.clear()
        for pending in failed:
            pending.error = self._lost_again()
            pending.done = True
        self._tell()

    def poll(self) -> None:
        """Take in what has come meanwhile, such as the news that the server is gone."""
        if self.lost is None:
            self._lead(lambda: False, 1e-3)  # long enough for a look at the socket

    def close(self) -> None:
        """End the connection; whoever waits for an answer is told. A second call does nothing."""
        if self._pid != os.getpid():
            return
        if self._lost is None:
            self._fail_all(self._unreachable("was disconnected from"))
        with self._turn:
            while self._leading:
                self._wake()
                self._turn.wait(1.0)
            if self._closed:
                return
            self._closed = True
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
            self._socket.close(linger=100)
            self._wake_read.close()
            self._wake_write.close()
