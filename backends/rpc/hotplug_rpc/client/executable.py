"""A graph that was made ready on a remote device."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hotplug.backend import Buffer, Executable, Stream
from hotplug.errors import ExecutionError, HotplugError, RunCancelledError, UsageError
from hotplug.graph import Graph
from hotplug_rpc.client.buffers import RemoteBuffer
from hotplug_rpc.client.pending import Pending
from hotplug_rpc.errors import CancelledError
from hotplug_rpc.requests import MAX_FRAMES, Bind, Explain, Profile, Run

if TYPE_CHECKING:
    from hotplug_rpc.client.device import RemoteDevice

__all__ = ["RemoteExecutable"]

_MOST_READS = 8 << 20
"""Bytes of results that come along with an answer."""


class RemoteExecutable(Executable):
    """Named by a handle. A run is one message and one answer."""

    def __init__(self, device: RemoteDevice, handle: int, graph: Graph, arena_bytes: int) -> None:
        self.arena_bytes = arena_bytes
        self._device = device
        self._handle = handle
        self._updated = frozenset(name for name, _ in graph.updates)
        self._items: tuple[tuple[str, Buffer], ...] = ()
        self._frees = -1
        self._results: list[RemoteBuffer] = []
        self._changed: list[RemoteBuffer] = []
        self._freed = False
        self._running: Pending | None = None
        self._lock = threading.Lock()

    def run(self, bindings: Mapping[str, Buffer], stream: Stream | None = None) -> None:
        """Compute; what the host wrote before goes along, what it will read comes back.

        Raises:
            ExecutionError: a buffer is not on this device, or what the device raises.
            UsageError: a buffer was freed.
            RunCancelledError: `stop` was called meanwhile.
            HotplugError: the connection is lost, or a request before failed.
        """
        del stream
        with self._lock:
            pending, wanted = self._start(bindings)
        self._running = pending
        try:
            answer = self._device.settle(pending)
        except CancelledError as error:
            raise RunCancelledError(str(error), device=self._device.id) from error
        except HotplugError:
            self._items = ()  # it may have been the binding that failed
            raise
        finally:
            self._running = None
        contents = answer.contents([buffer.nbytes for buffer in wanted])
        for buffer, content in zip(wanted, contents, strict=True):
            buffer.after_run(content)

    def _start(self, bindings: Mapping[str, Buffer]) -> tuple[Pending, list[RemoteBuffer]]:
        device = self._device
        self._bind(bindings)
        with device.lock:
            for buffer in self._changed:
                buffer.before_run()
            wanted = self._wanted()
            writes, frames = device.take_deferred()
            handles = [buffer.handle for buffer in wanted]
            request = Run(device.position, self._handle, writes, handles)
            return device.connection.enqueue(request, frames), wanted

    def _wanted(self) -> list[RemoteBuffer]:
        wanted: list[RemoteBuffer] = []
        nbytes = 0
        for buffer in self._results:
            fits = len(wanted) < MAX_FRAMES and nbytes + buffer.nbytes <= _MOST_READS
            if buffer.wanted and fits:
                wanted.append(buffer)
                nbytes += buffer.nbytes
        return wanted

    def _bind(self, bindings: Mapping[str, Buffer]) -> None:
        """Tell the server which buffers are meant, if they are not those of the last run."""
        device = self._device
        items = tuple(bindings.items())
        if items == self._items and self._frees == device.frees:
            return
        if self._freed:
            raise UsageError("the executable was freed")
        named = {name: self._mine(name, buffer) for name, buffer in items}
        if items != self._items:
            handles = {name: buffer.handle for name, buffer in named.items()}
            device.flush()
            device.send(Bind(device.position, self._handle, handles))
            self._items = items
            self._results = [b for name, b in named.items() if name.startswith("output:")]
            states = [b for name, b in named.items() if name in self._updated]
            self._changed = [*self._results, *states]
        self._frees = device.frees

    def _mine(self, name: str, buffer: Buffer) -> RemoteBuffer:
        if not isinstance(buffer, RemoteBuffer) or buffer.device is not self._device:
            raise ExecutionError(
                f"the buffer of {name!r} is not on {self._device.id}", device=self._device.id
            )
        buffer.check(0, 0)
        return buffer

    def explain(self) -> list[str]:
        """What the remote device will do, step by step."""
        return _texts(self._ask(Explain(self._device.position, self._handle)).get("lines"))

    def profile(self, bindings: Mapping[str, Buffer]) -> list[float]:
        """Run once over there, with clocks."""
        with self._lock:
            self._bind(bindings)
            for buffer in self._changed:
                buffer.before_run()
            body = self._ask(Profile(self._device.position, self._handle))
        seconds = body.get("seconds")
        return [float(item) for item in seconds] if isinstance(seconds, list) else []

    def _ask(self, request: Explain | Profile) -> Mapping[str, Any]:
        return self._device.ask(request).body

    def stop(self) -> None:
        """Have the run that another thread is in end as soon as the remote device can."""
        running = self._running
        if running is not None:
            self._device.connection.take_back(running)

    def free(self) -> None:
        """Let go of it over there; a second call does nothing."""
        with self._lock:
            if not self._freed:
                self._freed = True
                self._items = ()
                self._device.free_handles(executables=[self._handle])


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
