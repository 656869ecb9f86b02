"""Devices as slow as a test wants them: another device, made to wait.

    clock = SimulatedClock()
    slow = LimitedDevice("slow:0", ReferenceDevice(info), Rates(flops=1e9, bandwidth=1e9), clock)

What the device does is real; how long it takes is what `Rates` says. With a `SimulatedClock` nobody
waits and nothing depends on the machine: time is what the devices say has passed. With `WallClock`
the device sleeps until the time is over that its work is to take, so that limits have to be slower
than the device within.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

from hotplug.backend import (
    Buffer,
    BufferType,
    Device,
    DeviceInfo,
    DeviceType,
    Executable,
    MemoryInfo,
    Partition,
    Stream,
    Support,
)
from hotplug.errors import OutOfDeviceMemoryError
from hotplug.node import Node
from hotplug.placement.cost import Link, Rates, node_seconds

__all__ = ["Clock", "LimitedDevice", "SimulatedClock", "WallClock"]


class Clock(Protocol):
    """Tells the time and lets it pass."""

    def __call__(self) -> float:
        """Seconds since some time or other."""

    def wait_until(self, moment: float) -> None:
        """Return when it is so late."""


class SimulatedClock:
    """Time that passes only where somebody waits; one clock for all devices that take turns."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        """Seconds waited so far."""
        return self._now

    def wait_until(self, moment: float) -> None:
        """Let time pass."""
        self._now = max(self._now, moment)


class WallClock:
    """The real time."""

    def __call__(self) -> float:
        """Seconds by the performance counter."""
        return time.perf_counter()

    def wait_until(self, moment: float) -> None:
        """Sleep while that is exact enough, then look again and again."""
        while (left := moment - time.perf_counter()) > 0:
            time.sleep(left - _SPIN if left > _SPIN else 0)


_SPIN = 2e-4
"""Seconds that sleep may oversleep."""


class LimitedDevice(Device):
    """A device that takes as long as it is told to.

    Args:
        name: its id, such as "slow:0".
        inner: what computes.
        limits: how fast it is to be; also states memory's links.
        clock: what lets time pass.
        memory_bytes: how much can be allocated; None for no limit.
        type: what kind of device it calls itself.
        peers: id of another such device -> how copies come from there directly.
    """

    def __init__(
        self,
        name: str,
        inner: Device,
        limits: Rates,
        clock: Clock,
        *,
        memory_bytes: int | None = None,
        type: DeviceType = DeviceType.GPU,  # noqa: A002 - as in DeviceInfo
        peers: Mapping[str, Link] | None = None,
    ) -> None:
        backend, _, index = name.partition(":")
        self.info = DeviceInfo(backend, int(index or 0), f"Limited {inner.info.name}", type)
        self.limits = limits
        self.clock = clock
        self.peers = dict(peers or {})
        self._inner = inner
        self._memory = _Memory(self, inner.buffers, memory_bytes)

    @property
    def buffers(self) -> BufferType:
        """Memory behind the link."""
        return self._memory

    def memory(self) -> MemoryInfo:
        """The limit, and what is left of it."""
        total = self._memory.total
        return MemoryInfo(total, None if total is None else total - self._memory.used)

    def supports(self, node: Node) -> Support:
        """What the device within does."""
        return self._inner.supports(node)

    def direct_from(self, source: Device) -> int | None:
        """As its peers say."""
        link = self.peers.get(source.id)
        return None if link is None else link.least

    def takes(self, source: Device, nbytes: int) -> bool:
        """Whether so many bytes come from there directly."""
        least = self.direct_from(source)
        return least is not None and nbytes >= least

    def compile(self, partition: Partition) -> Executable:
        """Make it ready on the device within."""
        return _Executable(self, self._inner.compile(partition), partition)


class _Memory(BufferType):
    def __init__(self, device: LimitedDevice, inner: BufferType, total: int | None) -> None:
        self.total = total
        self.used = 0
        self.alignment = inner.alignment
        self._device = device
        self._inner = inner

    def allocate(self, nbytes: int) -> Buffer:
        if self.total is not None and self.used + nbytes > self.total:
            raise OutOfDeviceMemoryError(
                f"{self._device.id} has {self.total - self.used} bytes left, and {nbytes} were "
                "asked for",
                device=self._device.id,
                requested=nbytes,
                free=self.total - self.used,
            )
        self.used += nbytes
        return _Buffer(self._device, self, self._inner.allocate(nbytes))


class _Buffer(Buffer):
    def __init__(self, device: LimitedDevice, memory: _Memory, inner: Buffer) -> None:
        self.nbytes = inner.nbytes
        self.inner = inner
        self.device = device
        self._memory: _Memory | None = memory

    def read(self, offset: int, target: memoryview) -> None:
        began = self.device.clock()
        self.inner.read(offset, target)
        self._wait(began, self.device.limits.download, target.nbytes)

    def write(self, offset: int, source: memoryview) -> None:
        began = self.device.clock()
        self.inner.write(offset, source)
        self._wait(began, self.device.limits.upload, source.nbytes)

    def copy_from(self, source: Buffer) -> None:
        if not isinstance(source, _Buffer) or not self.device.takes(source.device, source.nbytes):
            super().copy_from(source)
            return
        link = self.device.peers[source.device.id]
        began = self.device.clock()
        self.inner.copy_from(source.inner)
        self._wait(began, link, source.nbytes)

    def free(self) -> None:
        if self._memory is not None:
            self._memory.used -= self.nbytes
            self._memory = None
        self.inner.free()

    def _wait(self, began: float, link: Link, nbytes: int) -> None:
        self.device.clock.wait_until(began + link.seconds(nbytes))


class _Executable(Executable):
    def __init__(self, device: LimitedDevice, inner: Executable, partition: Partition) -> None:
        self.arena_bytes = inner.arena_bytes
        self._device = device
        self._inner = inner
        nodes = [node for node in partition.graph.nodes if not node.is_leaf]
        limits = device.limits
        self._seconds = limits.launch + sum(node_seconds(node, limits) for node in nodes)
        self._bound: tuple[Mapping[str, Buffer], dict[str, Buffer]] | None = None

    def run(self, bindings: Mapping[str, Buffer], stream: Stream | None = None) -> None:
        began = self._device.clock()
        self._inner.run(self._within(bindings), stream)
        self._device.clock.wait_until(began + self._seconds)

    def explain(self) -> list[str]:
        return self._inner.explain()

    def free(self) -> None:
        self._inner.free()

    def _within(self, bindings: Mapping[str, Buffer]) -> dict[str, Buffer]:
        """The same mapping for the same mapping, which is the fast path."""
        if self._bound is None or self._bound[0] is not bindings:
            inner = {
                name: buffer.inner if isinstance(buffer, _Buffer) else buffer
                for name, buffer in bindings.items()
            }
            self._bound = bindings, inner
        return self._bound[1]
