"""A process for each client: one that crashes takes its own session with it, and no other.

The process with the sockets opens no device. It starts a child for every session and hands messages
to and fro, without looking further than a message's kind and number. A child is an ordinary service
behind a socket of its own in a folder that nobody else can enter.
"""

from __future__ import annotations

import contextlib
import logging
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
from hotplug_rpc.server.ledger import Ledger
from hotplug_rpc.server.metrics import Metrics
from hotplug_rpc.server.service import FORBIDDEN, Post
from hotplug_rpc.server.session import Shared
from hotplug_rpc.wire import Kind, id_of, make_head, parse_head

__all__ = ["IsolatingService"]

_log = logging.getLogger("hotplug.rpc")

_LOOK_MS = 200
_GRACE_SECONDS = 5.0


@dataclass(slots=True, eq=False)
class _Child:
    """A session's process.

    Attributes:
        row: of the ledger.
        open: numbers of requests that are not answered, and bytes of their payloads.
    """

    process: subprocess.Popen[bytes]
    socket: zmq.Socket[bytes]
    client: str
    row: int
    open: dict[int, int] = field(default_factory=dict)


class IsolatingService:
    """Does what `Service` does, in other processes.

    Args:
        shared: limits; its devices are the children's.
        post: where answers go.
        command: starts a child; the address of its socket, the client's key, and its row of the
            ledger are added.
        devices: ids of what children offer.
    """

    def __init__(
        self, shared: Shared, post: Post, command: Sequence[str], devices: Sequence[str] = ()
    ) -> None:
        if not zmq.has("ipc"):
            raise UsageError("--isolate needs sockets in the file system, which are not to be had")
        self.shared = shared
        self.metrics = Metrics()
        self.closing = False
        self._post = post
        self._command = list(command)
        self._devices = devices
        self._children: dict[bytes, _Child] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="hotplug-rpc-")
        self._ledger = Path(self._folder.name) / "ledger"
        Ledger.create(self._ledger, shared.limits.sessions)
        self._rows = list(range(shared.limits.sessions))
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
    def waiting(self) -> int:
        """Requests that are not answered."""
        return sum(len(child.open) for child in tuple(self._children.values()))

    def metrics_text(self) -> str:
        """The numbers as they are now, for Prometheus."""
        self.metrics.put("sessions", len(self._children))
        self.metrics.put("waiting", self.waiting)
        for device, nbytes in zip(self._devices, Ledger.totals(self._ledger), strict=False):
            self.metrics.put("device_taken_bytes", nbytes, f'device="{device}"')
        return self.metrics.text()

    def handle(
        self,
        peer: bytes,
        client: str,
        frames: Sequence[bytes | memoryview],
        *,
        ticket_only: bool = False,
        nearby: bool = True,
    ) -> None:
        """One message; see `Service.handle`."""
        del nearby  # these sessions connect to nobody
        text = bytes(frames[0]) if frames else b""
        number = id_of(text)
        try:
            if ticket_only:  # there are no tickets here, so it was known when it came in
                self.end(peer, FORBIDDEN)
                raise SessionError("the key of this client is not allowed any more")
            head = parse_head(text)
            if head.kind is Kind.HELLO and peer not in self._children:
                self._start(peer, client)
            child = self._children.get(peer)
            if child is None:
                raise SessionError("there is no session; it begins with HELLO")
            payload = [memoryview(frame) for frame in frames[1:]]
            self.metrics.count_request(head.kind, payload)
            if head.kind not in {Kind.CANCEL, Kind.BYE}:
                self._open(child, number, sum(frame.nbytes for frame in payload))
            message = [text, *map(bytes, payload)]
            self._do(lambda: child.socket.send_multipart(message, zmq.NOBLOCK))
            if head.kind is Kind.BYE:
                self.end(peer, "the client left")
        except HotplugError as error:
            self._fail(peer, number, error)

    def _open(self, child: _Child, number: int, nbytes: int) -> None:
        held = tuple(child.open.values())
        self.shared.limits.check_waiting(len(held), sum(held), nbytes)
        if number in child.open:
            raise ProtocolError(f"the request {number} is not answered yet")
        child.open[number] = nbytes

    def _start(self, peer: bytes, client: str) -> None:
        if self.closing:
            raise ServerClosingError("the server is being shut down")
        self.shared.limits.check_sessions(
            client, [child.client for child in self._children.values()]
        )
        row = self._free_row()
        try:
            child = self._children[peer] = self._child(client, row)
        except (OSError, zmq.ZMQError) as error:
            self._rows.append(row)
            raise SessionError(f"no process can be started: {error.strerror}") from error
        self.metrics.add("sessions_total")
        _log.info("session opened", extra={"client": client[:16], "pid": child.process.pid})
        self._do(lambda: None)  # the thread must look at the new socket too

    def _child(self, client: str, row: int) -> _Child:
        number = int(self.metrics.get("sessions_total")) + 1
        address = f"ipc://{Path(self._folder.name) / str(number)}"
        words = [*self._command, address, client, str(self._ledger), str(row)]
        pair: zmq.Socket[bytes] = self._context.socket(zmq.PAIR)
        pair.linger = 0
        try:
            pair.connect(address)  # messages wait for the child, which binds when it has started
            process = subprocess.Popen(words, stdin=subprocess.PIPE)  # which ends with us
        except BaseException:
            pair.close(linger=0)
            raise
        return _Child(process, pair, client, row)

    def _free_row(self) -> int:
        try:
            return self._rows.pop()
        except IndexError:  # processes of sessions that have ended are still there
            raise LimitError("the server has no room for a session just now") from None

    def _do(self, action: Callable[[], object]) -> None:
        with self._lock:
            self._todo.append(action)
            self._commands.send(b"")

    def end_unknown(self, knows: Callable[[bytes], bool]) -> None:
        """End the sessions of clients whose keys are not allowed any more."""
        for peer, child in tuple(self._children.items()):
            if not knows(bytes.fromhex(child.client)):
                self.end(peer, FORBIDDEN)

    def end(self, peer: bytes, why: str) -> None:
        """End a session, and its process with it."""
        child = self._children.pop(peer, None)
        if child is None:
            return
        _log.info("session ended: %s", why, extra={"client": child.client[:16]})
        self._do(lambda: self._bury(child))

    def _bury(self, child: _Child) -> None:
        child.socket.close(linger=0)
        child.process.kill()  # it has nothing to put in order, and the others do not wait for it
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(_GRACE_SECONDS)
            self._let_go(child)

    def _let_go(self, child: _Child) -> None:
        assert child.process.stdin is not None
        child.process.stdin.close()
        Ledger.clear(self._ledger, child.row)
        self._rows.append(child.row)

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
                child.open.pop(id_of(frames[0]), None)
                self._count(frames)
                self._post(peer, list(frames))

    def _count(self, frames: Sequence[bytes]) -> None:
        with contextlib.suppress(ProtocolError):  # of a child that has gone astray
            head = parse_head(frames[0])
            if head.kind is Kind.FAILED:
                self.metrics.add("failures_total", 1, f'error="{head.body.get("error")}"')
            elif len(frames) > 1:
                self.metrics.add("sent_bytes_total", sum(map(len, frames[1:])))

    def _mourn(self, peer: bytes, child: _Child) -> None:
        """A process ended by itself: its client is told, and nobody else is touched."""
        if self._children.pop(peer, None) is None:  # ended by the other thread just now
            return
        code = child.process.returncode
        error = DeviceLostError(f"the process of this session ended with code {code}")
        _log.error("a session's process ended with code %s", code)
        for number in tuple(child.open):
            self._fail(peer, number, error)
        child.socket.close(linger=0)
        self._let_go(child)

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
