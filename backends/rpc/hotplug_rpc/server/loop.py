"""The sockets of a server, and the one thread that uses them."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections import deque
from collections.abc import Callable, Collection

import zmq
from zmq.utils.monitor import recv_monitor_message

from hotplug.errors import UsageError
from hotplug_rpc.addresses import Address, is_loopback, parse_address
from hotplug_rpc.descriptors import shut_down
from hotplug_rpc.keys import KeyRing
from hotplug_rpc.requests import MAX_FRAMES
from hotplug_rpc.server.backlog import Backlog
from hotplug_rpc.server.callers import Callers
from hotplug_rpc.server.door import Door
from hotplug_rpc.server.isolation import IsolatingService
from hotplug_rpc.server.outgoing import Message, Outgoing
from hotplug_rpc.server.service import Post, Service
from hotplug_rpc.server.strangers import Strangers
from hotplug_rpc.sockets import heartbeat_ms, prepare
from hotplug_rpc.wire import Kind, make_head

__all__ = ["Server"]

_log = logging.getLogger("hotplug.rpc")

_ZAP = "inproc://zeromq.zap.01"
_FRAME_OVERHEAD = 1024  # of CURVE
_QUEUED = 64  # messages that ZeroMQ keeps for a client in each direction
_MOST_FRAMES = 2 + MAX_FRAMES  # with the client's routing id, and the head
_AT_ONCE = 64  # messages taken before answers are sent again
_EVENTS_AT_ONCE = 1024
_NUDGE_SECONDS = 2.0
_STALLED_POLL_MS = 20
_LOOK_MS = 250
_UNDER_WAY, _UNDER_WAY_TOGETHER = 128 << 20, 512 << 20

_EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED
_FAILURES = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


class Server:
    """Binds, serves, ends. `run` is for one thread, the other methods for any.

    Attributes:
        service: what answers.
        address: where it is bound.
        key: its public key.
    """

    def __init__(
        self,
        bind: Address,
        keys: KeyRing,
        make_service: Callable[[Post], Service | IsolatingService],
        extra_keys: Collection[bytes] = (),
    ) -> None:
        """Bind.

        Raises:
            UsageError: the address is in use, or not this machine's.
            KeyFileError: the keys cannot be used.
        """
        self.service = make_service(self.post)
        self._door = Door(keys, extra_keys, self.service.shared.peers, self.service.metrics)
        self._outbox: deque[tuple[bytes, Message]] = deque()
        self._woken = False
        self._until: float | None = None
        self._draining = False
        self._nudged = self._looked = time.monotonic()
        self._backlog = Backlog(_UNDER_WAY, _UNDER_WAY_TOGETHER)
        self._strangers = Strangers()
        self._callers = Callers()
        self._failed = 0
        self.key = keys.identity().public
        self._silence = heartbeat_ms()
        self._context = zmq.Context()
        self._zap = self._context.socket(zmq.REP)
        self._zap.bind(_ZAP)
        self._router = self._open(keys, bind)
        self._outgoing = Outgoing(
            self._router, self.service.shared.limits.stalled_seconds, self.service.end
        )
        self._wake_read, self._wake_write = socket.socketpair()
        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)
        self._monitor = self._router.get_monitor_socket(_EVENTS | _FAILURES)

    def _open(self, keys: KeyRing, bind: Address) -> zmq.Socket[bytes]:
        identity = keys.identity()
        router: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        prepare(router, identity, self._silence, ipv6=":" in bind.host)
        options: dict[int, int | bytes] = {
            zmq.CURVE_SERVER: 1,
            zmq.ZAP_DOMAIN: b"hotplug",
            zmq.ROUTER_MANDATORY: 1,
            zmq.MAXMSGSIZE: self.service.shared.limits.frame_bytes + _FRAME_OVERHEAD,
            zmq.LINGER: 500,
            zmq.RCVHWM: _QUEUED,
            zmq.SNDHWM: _QUEUED,
        }
        for option, value in options.items():
            router.set(option, value)
        try:
            router.bind(bind.endpoint.replace("localhost", "127.0.0.1"))
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            self.service.close()
            raise UsageError(f"{bind.server} cannot be bound: {error.strerror}") from error
        bound = bytes(router.get(zmq.LAST_ENDPOINT)).decode().rstrip("\0")
        self.address = parse_address(bound.removeprefix("tcp://"))
        return router

    # From any thread

    def post(self, peer: bytes, frames: list[bytes | bytearray]) -> None:
        """Send something to a client."""
        self._outbox.append((peer, frames))
        self._wake()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            with contextlib.suppress(OSError):  # then it is awake, or has ended
                self._wake_write.send(b"x")

    def drain(self, seconds: float) -> None:
        """Admit nobody any more; end when the last session does, or after so many seconds."""
        self.service.closing = True
        self._until = time.monotonic() + seconds
        self._wake()

    # From the thread that runs it

    def run(self) -> None:
        """Serve until `drain` has come to its end."""
        poller = zmq.Poller()
        for source in (self._router, self._zap, self._monitor, self._wake_read):
            poller.register(source, zmq.POLLIN)
        try:
            while not self._is_over():
                ready = dict(poller.poll(_STALLED_POLL_MS if self._outgoing.waits else _LOOK_MS))
                if self._zap in ready:
                    self._zap.send_multipart(self._door.answer(self._zap.recv_multipart()))
                if self._monitor in ready:
                    self._note_events()
                if self._router in ready:
                    self._receive()
                self._send_all()
                self._end_excessive()
                self._nudge()
        finally:
            self._close()

    def _is_over(self) -> bool:
        if self._until is None:
            return False
        if not self._draining:
            self._draining = True
            _log.info("no more sessions are taken", extra={"sessions": len(self.service.peers)})
        idle = not (self.service.peers or self._outbox or self._outgoing.waits)
        return idle or time.monotonic() >= self._until

    def _note_events(self) -> None:
        """All, so that a connection is known before what came by it is looked at."""
        for _ in range(_EVENTS_AT_ONCE):
            if not self._monitor.poll(0):
                return
            event = recv_monitor_message(self._monitor)
            self._note_event(event["event"], event["value"])

    def _note_event(self, event: int, value: int) -> None:
        if event == zmq.EVENT_ACCEPTED:
            self._backlog.opened(value)
            if not self._strangers.opened(value):
                self.service.metrics.add("refused_total", 1, 'reason="rate"')
            return
        if not event & _FAILURES:
            self._backlog.closed(value)
            self._strangers.closed(value)
            self._callers.closed(value)
            return
        self.service.metrics.add("refused_total", 1, 'reason="handshake"')
        self._failed += 1  # not a line for each, or whoever likes could fill the log

    def _end_excessive(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK_MS / 1000:
            return
        self._looked = now
        ended = self._backlog.end_excessive()
        if ended:
            self.service.metrics.add("refused_total", ended, 'reason="endless"')
            _log.warning("ended %d connections whose messages do not end", ended)

    def _receive(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                frames = self._message()
            except zmq.Again:
                return
            peer = frames[0].bytes
            client = str(frames[-1].get("User-Id"))
            key = bytes.fromhex(client)
            descriptor = int(frames[-1].get(zmq.SRCFD))
            self._backlog.delivered(descriptor)
            self._strangers.delivered(descriptor)
            self._callers.delivered(descriptor, peer, key)
            if len(frames) > _MOST_FRAMES:
                _log.warning("a message of too many frames, from %s", client[:16])
                self._door.turn_away(key)
                self.service.end(peer, "a message had too many frames")
                shut_down(descriptor)
                continue
            ticket_only = not self._door.knows(key)
            nearby = is_loopback(str(frames[-1].get("Peer-Address")))
            payload = [frame.buffer for frame in frames[1:]]
            try:
                self.service.handle(peer, client, payload, ticket_only=ticket_only, nearby=nearby)
            except Exception:  # noqa: BLE001 - whatever is wrong with one message, others go on
                _log.exception("a message could not be handled")

    def _message(self) -> list[zmq.Frame]:
        """The next message, of which frames beyond the allowed are dropped.

        Raises:
            Again: there is none.
        """
        frames = [self._router.recv(zmq.NOBLOCK, copy=False)]
        while frames[-1].more and len(frames) <= _MOST_FRAMES:
            frames.append(self._router.recv(copy=False))
        while len(frames) > _MOST_FRAMES and self._router.getsockopt(zmq.RCVMORE):
            self._router.recv()
        return frames

    def _send_all(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_read.recv(4096)
        self._woken = False  # after that, or the wake-up of what comes just now would be lost
        self._outgoing.retry()
        while self._outbox:
            self._outgoing.send(*self._outbox.popleft())

    def _nudge(self) -> None:
        """ZeroMQ does not say when a client is gone; sending to it does."""
        now = time.monotonic()
        if now - self._nudged < _NUDGE_SECONDS:
            return
        self._nudged = now
        if self._failed:
            _log.info("%d handshakes failed", self._failed)
            self._failed = 0
        self.service.end_unknown(self._door.knows)
        peers = set(self.service.peers)  # among them those who came for a ticket
        self._callers.end_unwelcome(lambda peer, key: peer in peers or self._door.knows(key))
        news = {"closing": True} if self.service.closing else None
        for peer in peers:
            self._outgoing.nudge(peer, [make_head(Kind.NUDGE, 0, news)])
        self._outgoing.forget_sent()
        self.service.shared.weights.write_behind()
        for offer in self.service.shared.offers:
            offer.expire_idle()

    def _close(self) -> None:
        self.service.close()
        self._router.disable_monitor()
        self._send_all()
        for source in (self._monitor, self._zap):
            source.close(linger=0)
        self._router.close()
        self._context.term()
        self._wake_read.close()
        self._wake_write.close()
