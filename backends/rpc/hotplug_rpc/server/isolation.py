"""A process for each client: one that crashes takes its own session with it, and no other.

The process with the sockets opens no device. It starts a child for every session and hands messages
to and fro, without looking further than a message's kind and number. A child is an ordinary service
behind a socket of its own in a folder that nobody else can enter.
"""

from __future__ import annotations

import contextlib
import logging
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from hotplug.errors import DeviceLostError, HotplugError, UsageError
from hotplug_rpc.errors import LimitError, ProtocolError, ServerClosingError, SessionError
from hotplug_rpc.faults import to_body
from hotplug_rpc.server.metrics import Metrics
from hotplug_rpc.server.service import Post
from hotplug_rpc.server.session import Shared
from hotplug_rpc.wire import Kind, make_head, parse_head

__all__ = ["IsolatingService"]

_log = logging.getLogger("hotplug.rpc")

_ID = struct.Struct("<Q")
_ID_AT = 8
_LOOK_MS = 200
_GRACE_SECONDS = 5.0


@dataclass(slots=True, eq=False)
class _Child:
    """A session's process.

    Attributes:
        open: numbers of requests that are not answered.
    """

    process: subprocess.Popen[bytes]
    socket: zmq.Socket[bytes]
    client: str
    open: set[int] = field(default_factory=set)


class IsolatingService:
    """Does what `Service` does, in other processes.

    Args:
        shared: limits; its devices are the children's.
        post: where answers go.
        command: starts a child; the address of its socket is added.
    """

    def __init__(self, shared: Shared, post: Post, command: Sequence[str]) -> None:
        if not zmq.has("ipc"):
            raise UsageError("--isolate needs sockets in the file system, which are not to be had")
        self.shared = shared
        self.metrics = Metrics()
        self.closing = False
        self._post = post
        self._command = list(command)
        self._children: dict[bytes, _Child] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="hotplug-rpc-")
        self._context = zmq.Context()
        # One thread uses the children's sockets: what others want done with them goes through here.
        self._control = self._context.socket(zmq.PULL)
        self._control.bind("inproc://control")
        self._commands = self._context.socket(zmq.PUSH)
        self._commands.connect("inproc://control")
        self._todo: list[Callable[[], object]] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(
            target=self._serve, name="hotplug-rpc-children", daemon=True
        )
        self._thread.start()

    @property
    def peers(self) -> list[bytes]:
        """Routing ids of the sessions that are open."""
        return list(self._children)

    @property
    def session_count(self) -> int:
        """How many are open."""
        return len(self._children)

    @property
    def waiting(self) -> int:
        """Requests that are not answered."""
        return sum(len(child.open) for child in tuple(self._children.values()))

    def handle(
        self,
        peer: bytes,
        client: str,
        frames: Sequence[bytes | memoryview],
        *,
        ticket_only: bool = False,
    ) -> None:
        """One message; see `Service.handle`."""
        number = 0
        try:
            if ticket_only:
                raise SessionError("this server gives no tickets, as its clients are kept apart")
            head = parse_head(bytes(frames[0]) if frames else b"")
            number = head.id
            if head.kind is Kind.HELLO and peer not in self._children:
                self._start(peer, client)
            child = self._children.get(peer)
            if child is None:
                raise SessionError("there is no session; it begins with HELLO")
            if len(child.open) >= self.shared.limits.waiting:
                raise LimitError("too many requests wait", limit=self.shared.limits.waiting)
            if head.kind not in {Kind.CANCEL, Kind.BYE}:
                child.open.add(number)
            message = [bytes(frames[0]), *(bytes(frame) for frame in frames[1:])]
            self._do(lambda: child.socket.send_multipart(message, zmq.NOBLOCK))
            if head.kind is Kind.BYE:
                self.end(peer, "the client left")
        except HotplugError as error:
            self._fail(peer, number, error)

    def _start(self, peer: bytes, client: str) -> None:
        if self.closing:
            raise ServerClosingError("the server is being shut down")
        most = self.shared.limits.sessions
        if len(self._children) >= most:
            raise LimitError(f"the server has {most} sessions, which is all it takes", limit=most)
        number = int(self.metrics.get("sessions_total")) + 1
        address = f"ipc://{Path(self._folder.name) / str(number)}"
        pair: zmq.Socket[bytes] = self._context.socket(zmq.PAIR)
        pair.linger = 0
        pair.connect(address)  # messages wait for the child, which binds when it has started
        process = subprocess.Popen([*self._command, address], stdin=subprocess.DEVNULL)
        self._children[peer] = _Child(process, pair, client)
        self.metrics.add("sessions_total")
        _log.info("session opened", extra={"client": client[:16], "pid": process.pid})
        self._do(lambda: None)  # the thread must look at the new socket too

    def _do(self, action: Callable[[], object]) -> None:
        with self._lock:
            self._todo.append(action)
            self._commands.send(b"")

    def end(self, peer: bytes, why: str) -> None:
        """End a session, and its process with it."""
        child = self._children.pop(peer, None)
        if child is None:
            return
        _log.info("session ended: %s", why, extra={"client": child.client[:16]})
        self._do(lambda: self._bury(child))

    def _bury(self, child: _Child) -> None:
        child.socket.close(linger=0)
        child.process.terminate()
        try:
            child.process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()

    # The thread with the children's sockets

    def _serve(self) -> None:
        while True:
            poller = zmq.Poller()
            poller.register(self._control, zmq.POLLIN)
            children = dict(self._children)
            for child in children.values():
                if not child.socket.closed:
                    poller.register(child.socket, zmq.POLLIN)
            ready = dict(poller.poll(_LOOK_MS))
            for peer, child in children.items():
                if child.socket in ready:
                    self._forward(peer, child)
                elif child.process.poll() is not None and peer in self._children:
                    self._mourn(peer, child)
            if self._control in ready and self._carry_out():
                return

    def _carry_out(self) -> bool:
        """Do what other threads wanted; True if that was to end."""
        last = False
        while self._control.poll(0):
            last = self._control.recv() == b"end" or last
        with self._lock:
            todo, self._todo = self._todo, []
        for action in todo:
            with contextlib.suppress(zmq.ZMQError):  # a child that is gone is mourned elsewhere
                action()
        return last

    def _forward(self, peer: bytes, child: _Child) -> None:
        with contextlib.suppress(zmq.Again):
            while True:
                frames = child.socket.recv_multipart(zmq.NOBLOCK)
                child.open.discard(_ID.unpack_from(frames[0], _ID_AT)[0])
                self._post(peer, list(frames))

    def _mourn(self, peer: bytes, child: _Child) -> None:
        """A process ended by itself: its client is told, and nobody else is touched."""
        self._children.pop(peer, None)
        code = child.process.returncode
        error = DeviceLostError(f"the process of this session ended with code {code}")
        _log.error("a session's process ended with code %s", code)
        for number in tuple(child.open):
            self._fail(peer, number, error)
        child.socket.close(linger=0)

    def _fail(self, peer: bytes, number: int, error: HotplugError) -> None:
        body = to_body(error)
        self.metrics.add("failures_total", 1, f'error="{body["error"]}"')
        with contextlib.suppress(ProtocolError):
            self._post(peer, [make_head(Kind.FAILED, number, body)])

    def close(self) -> None:
        """End all children, and the thread."""
        for peer in self.peers:
            self.end(peer, "the server ends")
        with self._lock:
            self._commands.send(b"end")
        self._thread.join(2 * _GRACE_SECONDS)
        for source in (self._control, self._commands):
            source.close(linger=0)
        self._context.term()
        self._folder.cleanup()
