"""Things that go wrong on cue: what tests script, and a wrapper that has them happen on a device.

    card = FaultyDevice(opencl.open(info), [Fault("run", DeviceLostError("gone"), call=3)])

The wrapped device computes as ever, by its own kernels and in its own memory, up to the fault.
"""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from hotplug.backend import (
    Buffer,
    BufferType,
    Device,
    Executable,
    MemoryInfo,
    Partition,
    Stream,
    Support,
)
from hotplug.errors import DeviceLostError
from hotplug.node import Node

__all__ = ["Fault", "FaultyDevice", "Script", "Step"]

Step: TypeAlias = Literal["probe", "open", "memory", "compile", "allocate", "read", "write", "run"]
"""Where a script can step in. "probe" and "open" belong to the backend, the rest to a device."""


@dataclass(frozen=True)
class Fault:
    """Something that happens at a step.

    Attributes:
        step: where.
        action: an exception to raise, or a function to call before the step goes on: one that
            sleeps makes the step slow, one that waits for an event makes it hang.
        call: the first call of the step that is hit, from 1.
        times: how many calls are hit; None for all from then on.
    """

    step: Step
    action: Exception | Callable[[], object]
    call: int = 1
    times: int | None = None

    def hits(self, call: int) -> bool:
        """Whether the call of this number is hit."""
        return call >= self.call and (self.times is None or call < self.call + self.times)

    def act(self) -> None:
        """Raise or call what was scripted."""
        if isinstance(self.action, Exception):
            # A copy, so that every raise has a traceback of its own.
            raise copy.copy(self.action)
        self.action()


class Script:
    """Counts the calls of every step and lets faults act.

    Attributes:
        faults: what goes wrong.
        calls: how often each step was begun.
        lost: why every step of a device fails; empty if it does not.
    """

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self.faults = list(faults)
        self.calls: Counter[str] = Counter()
        self.lost = ""
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        """Let something more go wrong, from its call on, counted from now."""
        later = Fault(fault.step, fault.action, self.calls[fault.step] + fault.call, fault.times)
        self.faults.append(later)

    def enter(self, step: Step, device: str = "") -> None:
        """Begin a step; raises what the script says, in the name of the device.

        Raises:
            DeviceLostError: the device is lost.
        """
        if self.lost:
            raise DeviceLostError(f"{device} is lost: {self.lost}", device=device)
        with self._lock:
            self.calls[step] += 1
            call = self.calls[step]
        for fault in tuple(self.faults):
            if fault.step == step and fault.hits(call):
                _act(fault, device)


def _act(fault: Fault, device: str) -> None:
    try:
        fault.act()
    except Exception as error:
        if device and getattr(error, "device", device) is None:
            error.device = device  # type: ignore[attr-defined]
        raise


class _FaultyBuffer(Buffer):
    """A device's buffer."""

    def __init__(self, inner: Buffer, device: FaultyDevice) -> None:
        self.inner = inner
        self.nbytes = inner.nbytes
        self.device = device

    def read(self, offset: int, target: memoryview) -> None:
        self.device.enter("read")
        self.inner.read(offset, target)

    def write(self, offset: int, source: memoryview) -> None:
        self.device.enter("write")
        self.inner.write(offset, source)

    def copy_from(self, source: Buffer) -> None:
        if isinstance(source, _FaultyBuffer):
            source.device.enter("read")
            source = source.inner
        self.device.enter("write")
        self.inner.copy_from(source)

    def free(self) -> None:
        self.device.freed(self)
        self.inner.free()

    def host(self) -> memoryview | None:
        return self.inner.host()


class _FaultyMemory(BufferType):
    """A device's memory."""

    def __init__(self, inner: BufferType, device: FaultyDevice) -> None:
        self.alignment = inner.alignment
        self.max_bytes = inner.max_bytes
        self.is_host = inner.is_host
        self._inner = inner
        self._device = device

    def allocate(self, nbytes: int) -> Buffer:
        self._device.enter("allocate")
        return self._device.allocated(_FaultyBuffer(self._inner.allocate(nbytes), self._device))

    def wrap(self, data: memoryview) -> Buffer | None:
        wrapped = self._inner.wrap(data)
        return None if wrapped is None else _FaultyBuffer(wrapped, self._device)


class _FaultyExecutable(Executable):
    """A device's executable."""

    def __init__(self, inner: Executable, device: FaultyDevice) -> None:
        self.arena_bytes = inner.arena_bytes
        self._inner = inner
        self._device = device

    def run(self, bindings: Mapping[str, Buffer], stream: Stream | None = None) -> None:
        self._device.enter("run")
        self._inner.run(_inner_of(bindings), stream)

    def explain(self) -> list[str]:
        return self._inner.explain()

    def profile(self, bindings: Mapping[str, Buffer]) -> list[float]:
        self._device.enter("run")
        return self._inner.profile(_inner_of(bindings))

    def stop(self) -> None:
        self._inner.stop()

    def free(self) -> None:
        self._device.executables -= 1
        self._inner.free()


def _inner_of(bindings: Mapping[str, Buffer]) -> dict[str, Buffer]:
    return {
        name: buffer.inner if isinstance(buffer, _FaultyBuffer) else buffer
        for name, buffer in bindings.items()
    }


class FaultyDevice(Device):
    """A device on which things go wrong as a script says.

    Args:
        inner: the device that computes.
        faults: what goes wrong when.

    Attributes:
        script: counts calls, and takes further faults.
        held: bytes of its buffers that are not freed.
        executables: how many are not freed.
        inner: as given.
    """

    def __init__(self, inner: Device, faults: Iterable[Fault] = ()) -> None:
        self.info = inner.info
        self.script = Script(faults)
        self.held = 0
        self.executables = 0
        self.inner = inner
        self._alive: set[int] = set()
        self._lock = threading.Lock()
        self._buffers = _FaultyMemory(inner.buffers, self)

    def enter(self, step: Step) -> None:
        """Begin a step; raises what the script says."""
        self.script.enter(step, self.id)

    def lose(self, reason: str = "it fell off the bus") -> None:
        """From now on every step fails, as when a device is pulled out."""
        self.script.lost = reason

    def revive(self) -> None:
        """Undo `lose`, and forget all faults."""
        self.script.lost = ""
        self.script.faults.clear()

    def allocated(self, buffer: Buffer) -> Buffer:
        """Count a buffer."""
        with self._lock:
            self._alive.add(id(buffer))
            self.held += buffer.nbytes
        return buffer

    def freed(self, buffer: Buffer) -> None:
        """Count it no more."""
        with self._lock:
            if id(buffer) in self._alive:
                self._alive.discard(id(buffer))
                self.held -= buffer.nbytes

    def memory(self) -> MemoryInfo:
        """The device's."""
        self.enter("memory")
        return self.inner.memory()

    def supports(self, node: Node) -> Support:
        """The device's answer."""
        return self.inner.supports(node)

    def direct_from(self, source: Device) -> int | None:
        """The device's answer, about what the other one wraps if it fails on cue as well."""
        return self.inner.direct_from(source.inner if isinstance(source, FaultyDevice) else source)

    @property
    def leaving(self) -> bool:
        """The device's."""
        return self.inner.leaving

    @property
    def buffers(self) -> BufferType:
        """The device's memory, which fails on cue."""
        return self._buffers

    def compile(self, partition: Partition) -> Executable:
        """The device's executable, which fails on cue."""
        self.enter("compile")
        made = _FaultyExecutable(self.inner.compile(partition), self)
        self.executables += 1
        return made

    def stream(self) -> Stream:
        """The device's."""
        return self.inner.stream()

    def close(self) -> None:
        """Close the device."""
        self.inner.close()
