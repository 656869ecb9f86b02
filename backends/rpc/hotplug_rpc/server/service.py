"""From messages to answers: sessions, lanes and errors.

Nothing here knows of sockets, so that anything can be fed to it. `handle` is called by one thread,
with what came from a client; answers go out through `post`, from any thread.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import TypeAlias, cast

import hotplug
from hotplug import ops
from hotplug.errors import HotplugError
from hotplug_rpc import requests as rq
from hotplug_rpc.errors import (
    CancelledError,
    DeadlineError,
    ProtocolError,
    ServerClosingError,
    SessionError,
    VersionError,
)
from hotplug_rpc.faults import to_body
from hotplug_rpc.server.desk import Desk, Job
from hotplug_rpc.server.metrics import Metrics
from hotplug_rpc.server.session import Answer, Session, Shared
from hotplug_rpc.wire import VERSION, Head, Kind, id_of, make_head, parse_head

__all__ = ["FORBIDDEN", "Post", "Service"]

_log = logging.getLogger("hotplug.rpc")

Post: TypeAlias = "Callable[[bytes, list[bytes | bytearray]], None]"
"""Where answers go: the client's routing id, and frames."""

_ASIDE = (
    rq.Memory,
    rq.Supports,
    rq.Compile,
    rq.Explain,
    rq.Weights,
    rq.Redeem,
)
"""What may take long without a device's help, or concerns none: done beside the devices' lanes."""

FORBIDDEN = "its key is not allowed any more"

_CONTENTS = (rq.Content, rq.Want, rq.Lend)
"""What goes on beside all others: weights on their way."""

_WITH_TICKET = (rq.Redeem, rq.Ping)

_SIDE_THREADS = 8
_SIDE_THREADS_OF_ONE = 4

_FETCHING = 8
"""Clients whose fetching goes on at the same time. Each has one thread, which may wait long for a
server that the client named."""


class Service:
    """All sessions of a server.

    Attributes:
        shared: devices, limits, graphs, weights.
        metrics: numbers.
        closing: no new sessions.
    """

    def __init__(self, shared: Shared, post: Post, metrics: Metrics | None = None) -> None:
        self.shared = shared
        self.metrics = metrics or Metrics()
        self.closing = False
        self._post = post
        self._sessions: dict[bytes, Session] = {}
        self._aside = Desk("hotplug-rpc-aside", _SIDE_THREADS, _SIDE_THREADS_OF_ONE)
        self._fetching = Desk("hotplug-rpc-fetching", _FETCHING, 1)
        self._greeting = Desk("hotplug-rpc-greeting", len(shared.offers) + 1)
        self._lock = threading.Lock()
        self._noted = -1.0

    @property
    def peers(self) -> list[bytes]:
        """Routing ids of the sessions that are open."""
        return list(self._sessions)

    @property
    def waiting(self) -> int:
        """Requests that are not answered."""
        return sum(session.waiting for session in tuple(self._sessions.values()))

    def metrics_text(self) -> str:
        """The numbers as they are now, for Prometheus."""
        self.metrics.put("sessions", len(self._sessions))
        self.metrics.put("waiting", self.waiting)
        for offer in self.shared.offers:
            self.metrics.put("device_taken_bytes", offer.taken, f'device="{offer.id}"')
            self.metrics.put("device_idle_bytes", offer.idle.nbytes, f'device="{offer.id}"')
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
        """One message.

        Args:
            peer: routing id.
            client: its public key, in hex.
            frames: head and payload.
            ticket_only: whether the client was let in only to redeem a ticket.
            nearby: whether it came in by a loopback address.
        """
        text = bytes(frames[0]) if frames else b""
        try:
            head = parse_head(text)
            request = rq.parse(head, len(frames) - 1)
            payload = [memoryview(frame) for frame in frames[1:]]
            self.metrics.count_request(request.kind, payload)
            if isinstance(request, rq.Hello):
                self._hello(peer, head.id, request, client, ticket_only, nearby)
            else:
                self._dispatch(peer, head, request, payload, ticket_only)
        except HotplugError as error:
            if isinstance(error, ProtocolError):
                self._note(client, error)
            self._fail(peer, id_of(text), error)
        except Exception as error:  # noqa: BLE001 - such as memory: its client is told, others go on
            self._fail(peer, id_of(text), error)

    def _note(self, client: str, error: ProtocolError) -> None:
        """Log what breaks the protocol, but no more than a line a second."""
        now = time.monotonic()
        if now - self._noted >= 1.0:
            self._noted = now
            _log.info("a message that breaks the protocol, from %s: %s", client[:16], error)

    def _dispatch(
        self,
        peer: bytes,
        head: Head,
        request: rq.Request,
        payload: list[memoryview],
        ticket_only: bool,
    ) -> None:
        session = self._sessions.get(peer)
        if session is None:
            raise SessionError("there is no session; it begins with HELLO")
        if ticket_only and not session.ticket_only:
            self.end(peer, FORBIDDEN)
            raise SessionError("the key of this client is not allowed any more")
        if session.ticket_only and not isinstance(request, (*_WITH_TICKET, rq.Bye)):
            raise SessionError("this client was let in for a ticket alone")
        if isinstance(request, rq.Bye):
            self.end(peer, "the client left")
        elif isinstance(request, rq.Ping):
            self._answer(peer, head.id, ({}, [bytes(frame) for frame in payload]))
        elif isinstance(request, rq.Cancel):
            self._cancel(peer, session, request.request)
        else:
            self._queue(peer, session, head, request, payload)

    # Sessions

    def _hello(
        self,
        peer: bytes,
        number: int,
        request: rq.Hello,
        client: str,
        ticket_only: bool,
        nearby: bool,
    ) -> None:
        if self.closing:
            raise ServerClosingError("the server is being shut down")
        if peer in self._sessions:
            raise SessionError("the session has begun already")
        if ticket_only and not self.shared.peers.expects(client):
            raise SessionError("the key of this client is not allowed any more")
        _check_versions(request)
        clients = [session.client for session in self._sessions.values()]
        self.shared.limits.check_sessions(client, clients)
        session = self._sessions[peer] = Session(self.shared, client, ticket_only, nearby)
        self.metrics.add("sessions_total")
        _log.info("session opened", extra={"client": client[:16], "sessions": len(self._sessions)})
        # Not here, as a device may take long to tell of its memory, and one that hangs keeps a
        # thread for ever; nor behind what others have compiled.
        work = partial(self._greet, peer, number, request, session)
        self._greeting.submit(session, Job(number, work), client)

    def _greet(self, peer: bytes, number: int, request: rq.Hello, session: Session) -> None:
        shared = self.shared
        full = not session.ticket_only
        try:
            body = {
                "protocol": [VERSION[0], min(VERSION[1], request.protocol[1])],
                "library": hotplug.__version__,
                "devices": [offer.describe() for offer in shared.offers] if full else [],
                "door": shared.lent.door if shared.lent and session.nearby and full else "",
                "limits": {
                    "frame_bytes": shared.limits.frame_bytes,
                    "waiting": shared.limits.waiting,
                    "waiting_bytes": shared.limits.waiting_bytes,
                },
            }
        except BaseException as error:  # noqa: BLE001 - its client is told, whatever it is
            self._fail(peer, number, error)
        else:
            self._answer(peer, number, (body, []))

    def end_unknown(self, knows: Callable[[bytes], bool]) -> None:
        """End the sessions of clients whose keys are not allowed any more."""
        for peer, session in tuple(self._sessions.items()):
            if not (session.ticket_only or knows(bytes.fromhex(session.client))):
                self.end(peer, FORBIDDEN)

    def end(self, peer: bytes, why: str) -> None:
        """End a session, if it is there: what has not begun is dropped, what it held is freed."""
        session = self._sessions.pop(peer, None)
        if session is None:
            return
        session.closed = True
        session.stop()
        for desk, lane in self._lanes_of(session):
            desk.clear(lane)
        # In the session's own lanes, so that it comes after what runs there.
        self._aside.submit(session, Job(0, partial(self._after_fetching, session)), session.client)
        _log.info(
            "session ended: %s", why,
            extra={"client": session.client[:16], "sessions": len(self._sessions)},
        )  # fmt: skip

    def _lanes_of(self, session: Session) -> list[tuple[Desk, Hashable]]:
        desks = [self._greeting, self._aside, self._fetching]
        desks += [offer.desk for offer in self.shared.offers]
        return [*((desk, session) for desk in desks), (self._aside, session.coming)]

    def _after_fetching(self, session: Session) -> None:
        if all(other.client != session.client for other in tuple(self._sessions.values())):
            self.shared.weights.forget_client(session.client)
        job = Job(0, partial(self._release, session))
        if self._fetching.serves(session):
            self._fetching.submit(session, job, session.client)
        else:
            job.work()

    def _release(self, session: Session) -> None:
        for offer in self.shared.offers:
            job = Job(0, partial(session.holdings.free_all, offer))
            offer.desk.submit(session, job, session.client)

    # Requests

    def _queue(
        self,
        peer: bytes,
        session: Session,
        head: Head,
        request: rq.Request,
        payload: list[memoryview],
    ) -> None:
        nbytes = sum(frame.nbytes for frame in payload)
        self.shared.limits.check_waiting(session.waiting, session.waiting_bytes, nbytes)
        desk, lane, label = self._place(session, request)
        began = time.monotonic()

        def work() -> None:
            try:
                answer = self._perform(session, head, request, payload, began, label)
            except BaseException as error:  # noqa: BLE001 - its client is told, whatever it is
                self._fail(peer, head.id, error)
            else:
                self._answer(peer, head.id, answer)
            finally:
                self._leave(session, nbytes)

        def rest() -> None:
            try:
                session.write_along(cast("rq.Run", request), payload)
            except BaseException as error:  # noqa: BLE001 - as above
                self._fail(peer, head.id, error)
            else:
                self._fail(peer, head.id, CancelledError("it was taken back"))
            finally:
                self._leave(session, nbytes)

        with self._lock:
            session.waiting += 1
            session.waiting_bytes += nbytes
        writes = isinstance(request, rq.Run) and request.writes
        desk.submit(lane, Job(head.id, work, nbytes, rest if writes else None), session.client)

    def _place(self, session: Session, request: rq.Request) -> tuple[Desk, Hashable, str]:
        """Who does a request, in which lane; and the label of the device that it keeps busy."""
        if isinstance(request, _CONTENTS):
            return self._aside, session.coming, ""
        if isinstance(request, rq.Fetch):
            return self._fetching, session, ""
        if isinstance(request, _ASIDE):
            return self._aside, session, ""
        offer = session.offer(request.device)  # type: ignore[attr-defined]
        return offer.desk, session, f'device="{offer.id}"'

    def _leave(self, session: Session, nbytes: int) -> None:
        with self._lock:
            session.waiting -= 1
            session.waiting_bytes -= nbytes

    def _perform(
        self,
        session: Session,
        head: Head,
        request: rq.Request,
        payload: list[memoryview],
        began: float,
        label: str,
    ) -> Answer:
        started = time.monotonic()
        if session.closed:
            raise SessionError("the session has ended")
        if head.timeout_ms and started - began > head.timeout_ms / 1000:
            raise DeadlineError("its time was over before it began", seconds=head.timeout_ms / 1000)
        try:
            return session.perform(head.id, request, payload)
        finally:
            if label:
                self.metrics.add("busy_seconds_total", time.monotonic() - started, label)

    def _cancel(self, peer: bytes, session: Session, request: int) -> None:
        lanes = self._lanes_of(session)
        removed = next(filter(None, (desk.remove(lane, request) for desk, lane in lanes)), None)
        if removed is not None:
            self._leave(session, removed.nbytes)
            self._fail(peer, request, CancelledError("it was taken back"))
        else:
            session.stop(request)

    # Answers

    def _answer(self, peer: bytes, request: int, answer: Answer) -> None:
        body, frames = answer
        try:
            head = make_head(Kind.DONE, request, body)
        except (ProtocolError, ValueError) as error:
            self._fail(peer, request, error)
            return
        nbytes = sum(map(len, frames))
        if nbytes:
            self.metrics.add("sent_bytes_total", nbytes)
        self._post(peer, [head, *frames])

    def _fail(self, peer: bytes, request: int, error: BaseException) -> None:
        body = to_body(error)
        self.metrics.add("failures_total", 1, f'error="{body["error"]}"')
        with contextlib.suppress(ProtocolError):  # longer than a head: its texts are cut, so never
            self._post(peer, [make_head(Kind.FAILED, request, body)])

    def close(self) -> None:
        """End all sessions, and the threads."""
        for peer in self.peers:
            self.end(peer, "the server ends")
        for desk in (self._greeting, self._aside, self._fetching):
            desk.close()  # what they free, the devices' own threads free
        for offer in self.shared.offers:
            offer.desk.close()
            offer.idle.clear()
        if self.shared.lent is not None:
            self.shared.lent.close()
        self.shared.weights.close()


def _check_versions(request: rq.Hello) -> None:
    if request.protocol[0] != VERSION[0]:
        raise VersionError(
            f"the client speaks version {_dotted(request.protocol)} of the protocol "
            f"(hotplug-rpc {request.library}), the server {_dotted(VERSION)} "
            f"(hotplug-rpc {hotplug.__version__})",
            remedy="use the same version of hotplug-rpc on both sides",
        )
    if request.ops != ops.fingerprint():
        raise VersionError(
            f"the client has another table of ops (hotplug-core {request.library}) than the server "
            f"(hotplug-core {hotplug.__version__})",
            remedy="use the same version of hotplug-core on both sides",
        )


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
