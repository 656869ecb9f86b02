"""A remote device as the contract has it."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotplug.backend import YES, Device, DeviceInfo, MemoryInfo, Partition, Support, no
from hotplug.errors import HotplugError
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.ops import OPS
from hotplug_rpc.client.buffers import RemoteBufferType, least_direct
from hotplug_rpc.client.connection import Connection
from hotplug_rpc.client.exchange import Frames
from hotplug_rpc.client.executable import RemoteExecutable
from hotplug_rpc.client.pending import Pending
from hotplug_rpc.errors import ServerLostError
from hotplug_rpc.requests import (
    Allocate,
    AllocateAll,
    Compile,
    Free,
    Memory,
    Request,
    Supports,
    Write,
)

if TYPE_CHECKING:
    from hotplug_rpc.client.buffers import RemoteBuffer

__all__ = ["RemoteDevice"]

_PLENTY = 4

_ALLOCATE_ALL_SINCE = 3
"""Minor version of the protocol."""

_MOST_DEFERRED = 256
_MOST_DEFERRED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class _Deferred:
    """A small write that travels with the next request."""

    buffer: RemoteBuffer
    offset: int
    data: bytes


class RemoteDevice(Device):
    """One device of a server.

    Requests whose answer says nothing are sent without waiting for it; what goes wrong with one is
    raised by the next request that waits, since a device's requests are done in order.

    Attributes:
        connection: to its server.
        position: among the server's devices.
        frees: how often a buffer was freed; what was bound before must then be looked at anew.
    """

    plans_arena = True  # the server believes no number of the client's

    def __init__(
        self, info: DeviceInfo, connection: Connection, position: int, on_close: Callable[[], None]
    ) -> None:
        self.info = info
        self.connection = connection
        self.position = position
        self.frees = 0
        self.lock = threading.RLock()
        described = connection.offered[position]
        self._buffers = RemoteBufferType(self, described.alignment, described.max_bytes)
        self._free: int | None = None  # when it was asked for, less what was allocated since
        self._allocations: list[tuple[int, int]] = []
        self._deferred: list[_Deferred] = []
        self._deferred_bytes = 0
        self._unchecked: deque[Pending] = deque()
        self._answers: dict[str, Support] = {}
        self._on_close = on_close
        self._closed = False
        connection.devices[described.info.id] = info.id

    # The contract

    @property
    def buffers(self) -> RemoteBufferType:
        """Memory over there."""
        return self._buffers

    def memory(self) -> MemoryInfo:
        """Of the device, as far as this client may have it.

        Raises:
            HotplugError: the server does not answer, or something failed that was sent before.
        """
        self.settle_all()  # it is answered beside the device's other requests
        body = self.connection.request(Memory(self.position)).body
        self._free = _amount(body.get("free"))
        return MemoryInfo(_amount(body.get("total")), self._free)

    def supports(self, node: Node) -> Support:
        """The remote device's own answer, asked for once."""
        known = self._answers.get(node.key)
        if known is not None:
            return known
        question = Graph.build({"y": _shortened(node)})
        answer = self.supports_graph(question)[question.nodes.index(question.outputs[0][1])]
        self._answers[node.key] = answer
        return answer

    def supports_graph(self, graph: Graph) -> Sequence[Support]:
        """Answers about all nodes of a graph, in one round trip."""
        if any(node.key not in self._answers for node in graph.nodes):
            try:
                body = self.connection.ask_about(Supports(self.position, graph.key), graph).body
                refused = {int(at): no(str(why)) for at, why in body.get("refused", [])}
            except (HotplugError, TypeError, ValueError) as error:
                return [no(f"{self.id} cannot be asked: {error}")] * len(graph.nodes)
            self._answers |= {n.key: refused.get(at, YES) for at, n in enumerate(graph.nodes)}
        return [self._answers[node.key] for node in graph.nodes]

    def direct_from(self, source: Device) -> int | None:
        """Between devices of servers: what is smaller has come along with a run's answer."""
        return least_direct(source, self) if isinstance(source, RemoteDevice) else None

    @property
    def leaving(self) -> bool:
        """Whether the server has said that it is about to end."""
        return self.connection.closing

    def compile(self, partition: Partition) -> RemoteExecutable:
        """Make a partition ready over there.

        Raises:
            HotplugError: whatever the remote device raises, or the connection is lost.
        """
        handle = self.connection.new_handle()
        graph = partition.graph
        request = Compile(
            self.position, handle, graph.key, partition.arena_bytes, partition.threads
        )
        body = self.connection.ask_about(request, graph).body
        return RemoteExecutable(self, handle, graph, _amount(body.get("arena_bytes")) or 0)

    def close(self) -> None:
        """Let go of the device; the connection ends with the last of its devices."""
        with self.lock:
            if self._closed:
                return
            self._closed = True
        self._buffers.expect_no_more()
        self._on_close()

    # For buffers and executables

    def ask(self, request: Request, frames: Frames = ()) -> Pending:
        """Send what is deferred, then a request; wait for its answer.

        Raises:
            HotplugError: it failed, or something did that was sent before without waiting.
        """
        with self.lock:
            self.flush()
            pending = self.connection.enqueue(request, frames)
        return self.settle(pending)

    def settle(self, pending: Pending) -> Pending:
        """Wait for an answer, and look at those that must have come before it."""
        try:
            self.connection.wait(pending)
        except HotplugError:
            earlier = self._earlier_error(pending.id)
            if earlier is not None:
                raise earlier from None  # what came of it is no news
            raise
        earlier = self._earlier_error(pending.id)
        if earlier is not None:
            raise earlier
        return pending

    def _earlier_error(self, number: int) -> HotplugError | None:
        found = None
        with self.lock:
            while self._unchecked and self._unchecked[0].id <= number:
                earlier = self._unchecked.popleft()
                found = found or earlier.error
        return found

    def send(self, request: Request, frames: Frames = ()) -> Pending:
        """Send a request and go on; its failure is raised later."""
        with self.lock:
            pending = self.connection.submit(request, frames)
            self._unchecked.append(pending)
        return pending

    def settle_all(self) -> None:
        """Return when all that was sent is done.

        Raises:
            HotplugError: some of it failed.
        """
        with self.lock:
            self.flush()
            last = self._unchecked[-1] if self._unchecked else None
        if last is not None:
            self.settle(last)

    def allocate(self, handle: int, nbytes: int, *, small: bool) -> None:
        """Have a buffer made: with the next request, as a model's states are many.

        Raises:
            OutOfDeviceMemoryError: at once, if it is neither small nor little of what is free.
        """
        with self.lock:
            little = self._free is not None and nbytes <= self._free // _PLENTY
            self._free = None if self._free is None else self._free - nbytes
        if not (small or little):
            self.ask(Allocate(self.position, handle, nbytes))
            return
        with self.lock:
            self._allocations.append((handle, nbytes))
            if len(self._allocations) >= _MOST_DEFERRED:
                self._send_allocations()

    def _send_allocations(self) -> None:
        made, self._allocations = self._allocations, []
        if self.connection.minor < _ALLOCATE_ALL_SINCE:
            for handle, nbytes in made:
                self.send(Allocate(self.position, handle, nbytes))
        elif made:
            self.send(AllocateAll(self.position, made))

    def defer(self, buffer: RemoteBuffer, offset: int, data: bytes) -> None:
        """Keep a small write for the next request."""
        with self.lock:
            full = len(self._deferred) >= _MOST_DEFERRED
            if full or self._deferred_bytes + len(data) > _MOST_DEFERRED_BYTES:
                self.flush()
            self._deferred.append(_Deferred(buffer, offset, data))
            self._deferred_bytes += len(data)

    def take_deferred(self) -> tuple[list[tuple[int, int]], list[bytes]]:
        """The small writes, as RUN takes them; the lock is held. What they go to is made before."""
        self._send_allocations()
        deferred, self._deferred, self._deferred_bytes = self._deferred, [], 0
        return [(d.buffer.handle, d.offset) for d in deferred], [d.data for d in deferred]

    def flush(self) -> None:
        """Send what was deferred: allocations, then writes."""
        with self.lock:
            where, frames = self.take_deferred()
            for (handle, offset), data in zip(where, frames, strict=True):
                self.send(Write(self.position, handle, offset), [data])

    def free(self, buffer: RemoteBuffer) -> None:
        """Give a buffer back over there."""
        with self.lock:
            self.frees += 1
            self._deferred = [d for d in self._deferred if d.buffer is not buffer]
        self.free_handles([buffer.handle])

    def free_handles(self, buffers: Sequence[int] = (), executables: Sequence[int] = ()) -> None:
        """Give things back, if there is still somebody to give them to."""
        with contextlib.suppress(ServerLostError), self.lock:
            self._send_allocations()
            self.send(Free(self.position, list(buffers), list(executables)))


def _amount(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def _shortened(node: Node) -> Node:
    """The node with inputs in place of what its operands are computed from."""
    if node.is_leaf:
        return node
    inputs = tuple(None if operand is None else _operand(operand) for operand in node.inputs)
    return Node(node.op, inputs, node.params, node.type)


def _operand(node: Node) -> Node:
    if node.is_leaf or OPS[node.op].view:
        return _shortened(node)
    dtype, shape = node.type.dtype.name, node.type.shape
    return Node("input", (), (("name", node.key), ("dtype", dtype), ("shape", shape)), node.type)
