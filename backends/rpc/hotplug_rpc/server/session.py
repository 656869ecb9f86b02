"""One client's session: what each request does, once it is its turn.

Nothing here knows of sockets. A handler gets a request that was parsed, and payload frames; it
returns fields and frames of the answer, or raises what the client shall be told.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from hotplug.backend import Executable, Partition
from hotplug.errors import OutOfDeviceMemoryError, UsageError
from hotplug.graph import Graph
from hotplug.memory import plan
from hotplug_rpc import requests as rq
from hotplug_rpc.errors import ContentError, SessionError
from hotplug_rpc.server.graphs import GraphStore
from hotplug_rpc.server.holdings import HeldBuffer, HeldExecutable, Holdings, needs_of
from hotplug_rpc.server.ledger import Accounts
from hotplug_rpc.server.lent import Lent
from hotplug_rpc.server.limits import Limits
from hotplug_rpc.server.offers import Offer
from hotplug_rpc.server.overdue import ended_after
from hotplug_rpc.server.peers import Peers
from hotplug_rpc.server.weights import SharedWeight, WeightStore

__all__ = ["Answer", "Session", "Shared"]

Answer: TypeAlias = "tuple[dict[str, Any], list[bytes | bytearray]]"
Frames: TypeAlias = "Sequence[memoryview]"

_NOTHING: Answer = ({}, [])


@dataclass(frozen=True, slots=True)
class Shared:
    """What all sessions of a server use."""

    offers: tuple[Offer, ...]
    limits: Limits
    graphs: GraphStore
    weights: WeightStore
    peers: Peers
    lent: Lent | None = None
    accounts: Accounts = field(default_factory=Accounts)


@dataclass(eq=False)
class Session:
    """A session.

    Attributes:
        client: the client's public key, in hex; "" where nobody checks, as in tests.
        ticket_only: whether it was let in only to redeem a ticket.
        nearby: whether the client came in by a loopback address.
        waiting: requests that are not answered, and their bytes.
        closed: whether its end has begun.
        coming: the lane of weights on their way, so that planning and compiling go on beside.
    """

    shared: Shared
    client: str = ""
    ticket_only: bool = False
    nearby: bool = True
    began: float = field(default_factory=time.monotonic)
    waiting: int = 0
    waiting_bytes: int = 0
    closed: bool = False

    def __post_init__(self) -> None:
        self.holdings = Holdings(self.shared.limits, self.shared.accounts.of(self.client))
        self.coming: Hashable = object()
        self._running: dict[int, Executable] = {}
        self._stopping = threading.Lock()  # else `stop` might end an executable's next run

    @contextlib.contextmanager
    def _stoppable(self, number: int, executable: Executable) -> Iterator[None]:
        self._running[number] = executable
        try:
            yield
        finally:
            with self._stopping:
                self._running.pop(number, None)  # a client may have given two runs one number

    def _in_time(self, executable: Executable, offer: Offer) -> AbstractContextManager[None]:
        return ended_after(executable, self.shared.limits.run_seconds, offer.id)

    def stop(self, number: int | None = None) -> None:
        """Have a run end as soon as its device can, or all of them."""
        with self._stopping:
            for request, executable in tuple(self._running.items()):
                if number in {None, request}:
                    executable.stop()

    def offer(self, device: int) -> Offer:
        """A device by its position.

        Raises:
            UsageError: there is none.
        """
        if device >= len(self.shared.offers):
            raise UsageError(
                f"there is no device {device} among the {len(self.shared.offers)} here"
            )
        return self.shared.offers[device]

    def perform(self, number: int, request: rq.Request, frames: Frames) -> Answer:
        """Carry a request out."""
        if isinstance(request, rq.Run):
            return self.run(request, frames, number)
        return _HANDLERS[type(request)](self, request, frames)

    # Buffers

    def memory(self, request: rq.Memory, _: Frames) -> Answer:
        """Of a device, as far as this session may have it."""
        memory = self.offer(request.device).memory()
        left = self.holdings.left
        free = (
            memory.free if left is None else left if memory.free is None else min(left, memory.free)
        )
        return {"total": memory.total, "free": free}, []

    def allocate(self, request: rq.Allocate, _: Frames) -> Answer:
        """A buffer of zeros."""
        self._allocate(self.offer(request.device), request.buffer, request.nbytes)
        return _NOTHING

    def allocate_all(self, request: rq.AllocateAll, _: Frames) -> Answer:
        """Several, each as if it were alone: who made one counts on it, whatever fails beside."""
        offer = self.offer(request.device)
        errors: list[Exception] = []
        for handle, nbytes in request.buffers:
            try:
                self._allocate(offer, handle, nbytes)
            except Exception as error:  # noqa: BLE001 - the first is raised below
                errors.append(error)
        if errors:
            raise errors[0]
        return _NOTHING

    def _allocate(self, offer: Offer, handle: int, nbytes: int) -> None:
        self.holdings.check_new_buffer(handle)
        self.holdings.take(offer, nbytes)
        give_back = partial(self.holdings.give_back, offer, nbytes)
        try:
            buffer = offer.device.buffers.allocate(nbytes)
        except BaseException:
            give_back()
            raise

        def release() -> None:
            buffer.free()
            give_back()

        self.holdings.add_buffer(handle, HeldBuffer(offer, buffer, release))

    def free(self, request: rq.Free, _: Frames) -> Answer:
        """Handles given back."""
        self.holdings.free(self.offer(request.device), request.buffers, request.executables)
        return _NOTHING

    def write(self, request: rq.Write, frames: Frames) -> Answer:
        """Bytes into a buffer."""
        held = self.holdings.buffer(request.buffer, self.offer(request.device))
        held.check_range(request.offset, frames[0].nbytes)
        held.buffer.write(request.offset, frames[0])
        return _NOTHING

    def read(self, request: rq.Read, _: Frames) -> Answer:
        """Bytes of a buffer."""
        held = self.holdings.buffer(request.buffer, self.offer(request.device))
        held.check_range(request.offset, request.nbytes)
        self._check_answer(request.nbytes)
        return {}, [held.read(request.offset, request.nbytes)]

    def _check_answer(self, nbytes: int) -> None:
        most = self.shared.limits.frame_bytes
        if nbytes > most:
            raise UsageError(f"{nbytes} bytes are not read at once; {most} at most")

    def copy(self, request: rq.Copy, _: Frames) -> Answer:
        """From buffer to buffer."""
        target = self.holdings.buffer(request.target, self.offer(request.device))
        source = self.holdings.buffer(request.source)
        for held in (source, target):
            held.check_range(0, 0)
        if source.nbytes != target.nbytes:
            raise UsageError(f"a buffer of {source.nbytes} bytes and one of {target.nbytes}")
        with source.kept():  # it may be another device's, in whose lane it may be freed
            target.buffer.copy_from(source.buffer)
        return _NOTHING

    # Graphs

    def supports(self, request: rq.Supports, frames: Frames) -> Answer:
        """A device's answers about all nodes of a graph."""
        device = self.offer(request.device).device
        graph = self._graph(request.graph, frames)
        answers = [device.supports(node) for node in graph.nodes]
        refused = [[at, answer.reason] for at, answer in enumerate(answers) if not answer]
        return {"refused": refused}, []

    def _graph(self, key: str, frames: Frames) -> Graph:
        return self.shared.graphs.get(key, frames[0] if frames else None)

    def compile(self, request: rq.Compile, frames: Frames) -> Answer:
        """A graph made ready to run. What it needs is checked against what is left beforehand."""
        offer = self.offer(request.device)
        self.holdings.check_new_executable(request.executable)
        graph = self._graph(request.graph, frames)
        self.holdings.check_new_nodes(len(graph.nodes))
        key = graph.key, request.threads
        executable = offer.idle.take(key) or self._compiled(offer, graph, request.threads)
        nbytes = executable.arena_bytes
        try:
            self.holdings.take(offer, nbytes)
        except OutOfDeviceMemoryError:
            executable.free()
            raise
        held = HeldExecutable(offer, executable, needs_of(graph), nbytes, key, len(graph.nodes))
        self.holdings.add_executable(request.executable, held)
        return {"arena_bytes": nbytes}, []

    def _compiled(self, offer: Offer, graph: Graph, threads: int | None) -> Executable:
        # The client's number is not believed: a device may take what the core's plan says.
        arena = plan(graph).arena_bytes
        self.holdings.take(offer, arena)
        self.holdings.give_back(offer, arena)
        return offer.device.compile(Partition(graph, arena, threads))

    def bind(self, request: rq.Bind, _: Frames) -> Answer:
        """Buffers for an executable."""
        offer = self.offer(request.device)
        self.holdings.bind(offer, request.executable, request.buffers)
        return _NOTHING

    def run(self, request: rq.Run, frames: Frames, number: int = 0) -> Answer:
        """Write, run, read. Everything is checked before anything is written."""
        offer = self.offer(request.device)
        executable, buffers = self.holdings.bound(request.executable, offer)
        writes = self._writes(request, frames, offer)
        sources = [self.holdings.buffer(handle, offer) for handle in request.reads]
        for held in sources:
            held.check_range(0, held.nbytes)
        self._check_answer(sum(held.nbytes for held in sources))
        for held, offset, data in writes:
            held.buffer.write(offset, data)
        with self._stoppable(number, executable), self._in_time(executable, offer):
            executable.run(buffers)
        return {}, [held.read(0, held.nbytes) for held in sources]

    def _writes(
        self, request: rq.Run, frames: Frames, offer: Offer
    ) -> list[tuple[HeldBuffer, int, memoryview]]:
        targets = [self.holdings.buffer(handle, offer) for handle, _ in request.writes]
        for (_, offset), held, data in zip(request.writes, targets, frames, strict=True):
            held.check_range(offset, data.nbytes)
        offsets = (offset for _, offset in request.writes)
        return list(zip(targets, offsets, frames, strict=True))

    def write_along(self, request: rq.Run, frames: Frames) -> None:
        """What a run would have written that was taken back: later requests count on it."""
        for held, offset, data in self._writes(request, frames, self.offer(request.device)):
            held.buffer.write(offset, data)

    def explain(self, request: rq.Explain, _: Frames) -> Answer:
        """An executable's own words."""
        held = self.holdings.executable(request.executable, self.offer(request.device))
        return {"lines": held.executable.explain()}, []

    def profile(self, request: rq.Profile, _: Frames) -> Answer:
        """A run with clocks."""
        offer = self.offer(request.device)
        executable, buffers = self.holdings.bound(request.executable, offer)
        with self._in_time(executable, offer):
            return {"seconds": executable.profile(buffers)}, []

    # Weights

    def weights_of(self, request: rq.Weights, _: Frames) -> Answer:
        """Buffers of what is here; of the rest, how much is."""
        offer = self.offer(request.device)
        missing: list[int] = []
        added: list[int] = []
        contents = [(digest, nbytes) for _, digest, nbytes in request.weights]
        try:
            for position, (handle, digest, nbytes) in enumerate(request.weights):
                if self._attach(offer, handle, digest, nbytes):
                    added.append(handle)
                else:
                    missing.append(position)
            return self._expected(offer, contents, missing)
        except BaseException:
            self.holdings.free(offer, added, [])
            raise

    def want(self, request: rq.Want, _: Frames) -> Answer:
        """The same without buffers, and without taking memory of the device."""
        offer, store = self.offer(request.device), self.shared.weights
        missing = [
            position
            for position, content in enumerate(request.weights)
            if not store.has(offer, *content)
        ]
        return self._expected(offer, request.weights, missing)

    def _attach(self, offer: Offer, handle: int, digest: str, nbytes: int) -> bool:
        self.holdings.check_new_buffer(handle)
        self.holdings.take(offer, nbytes, shared=True)
        try:
            shared = self.shared.weights.acquire(offer, digest, nbytes)
        except BaseException:
            self.holdings.give_back(offer, nbytes, shared=True)
            raise
        if shared is None:
            self.holdings.give_back(offer, nbytes, shared=True)
            return False
        release = partial(self._release_weight, shared)
        self.holdings.add_buffer(handle, HeldBuffer(offer, shared.buffer, release, weight=True))
        return True

    def _release_weight(self, shared: SharedWeight) -> None:
        self.holdings.give_back(shared.offer, shared.buffer.nbytes, shared=True)
        self.shared.weights.release(shared)

    def _expected(
        self, offer: Offer, contents: Sequence[tuple[str, int]], missing: Sequence[int]
    ) -> Answer:
        """What is missing, with the bytes that are there, once it is known to have room."""
        # Better now than after an hour of sending; and what is sent is held until it is used.
        digests = {contents[position][0]: contents[position][1] for position in missing}
        store, nbytes = self.shared.weights, sum(digests.values())
        nbytes += store.outstanding(self.client, digests) if missing else 0
        self.holdings.take(offer, nbytes)
        self.holdings.give_back(offer, nbytes)
        held = [[at, store.expect(self.client, *contents[at])] for at in missing]
        return {"missing": held}, []

    def content(self, request: rq.Content, frames: Frames) -> Answer:
        """A piece of a weight."""
        self.shared.weights.receive(
            self.client, request.hash, request.nbytes, request.offset, frames[0]
        )
        return _NOTHING

    def lend(self, request: rq.Lend, _: Frames) -> Answer:
        """Weights from a file that the client handed over."""
        if self.shared.lent is None:
            raise SessionError("this server takes no files")
        with self.shared.lent.claimed(request.token) as file:
            for digest, nbytes, offset in request.weights:
                self.shared.weights.receive_from(file, self.client, digest, nbytes, offset)
        return _NOTHING

    # Other servers

    def ticket(self, request: rq.Ticket, _: Frames) -> Answer:
        """Leave for another server to read a buffer."""
        held = self.holdings.buffer(request.buffer, self.offer(request.device))
        held.check_range(0, held.nbytes)
        return {"ticket": self.shared.peers.issue(held, request.peer)}, []

    def redeem(self, request: rq.Redeem, _: Frames) -> Answer:
        """The next piece of what a ticket is for; more than a frame is never copied at once."""
        most = self.shared.limits.frame_bytes
        held, at, count = self.shared.peers.redeem(
            request.ticket, self.client, request.nbytes, most
        )
        with held.kept():
            return {}, [held.read(at, count)]

    def fetch(self, request: rq.Fetch, _: Frames) -> Answer:
        """A buffer filled from another server, piece by piece as they come."""
        held = self.holdings.buffer(request.buffer, self.offer(request.device))
        held.check_range(0, held.nbytes)
        where = request.endpoint, request.key, request.ticket
        came = 0
        fetched = self.shared.peers.fetch(*where, held.nbytes, nearby=self.nearby)
        with held.kept(), contextlib.closing(fetched) as pieces:
            for piece in pieces:
                held.check_range(came, piece.nbytes)
                held.buffer.write(came, piece)
                came += piece.nbytes
        if came != held.nbytes:
            raise ContentError(f"{came} bytes came for a buffer of {held.nbytes}")
        return _NOTHING


_HANDLERS: dict[type[rq.Request], Callable[..., Answer]] = {
    rq.Memory: Session.memory,
    rq.Allocate: Session.allocate,
    rq.AllocateAll: Session.allocate_all,
    rq.Free: Session.free,
    rq.Write: Session.write,
    rq.Read: Session.read,
    rq.Copy: Session.copy,
    rq.Supports: Session.supports,
    rq.Compile: Session.compile,
    rq.Bind: Session.bind,
    rq.Explain: Session.explain,
    rq.Profile: Session.profile,
    rq.Weights: Session.weights_of,
    rq.Want: Session.want,
    rq.Content: Session.content,
    rq.Lend: Session.lend,
    rq.Ticket: Session.ticket,
    rq.Redeem: Session.redeem,
    rq.Fetch: Session.fetch,
}
