"""Scripted devices: they compute like the oracle, and fail, stall or lie where a test wants it.

    gpu = FakeDevice("fake:0", memory_bytes=1 << 20, unsupported={"rope"},
                     faults=[Fault("run", DeviceLostError("gone"), call=3)])
    registry = fake_registry(fake_backend("fake", gpu), fake_backend("cpu", FakeDevice("cpu:0")))

A `FakeDevice` is at once what a backend tells of and what it opens, so that a test can look at the
very device that ran: `gpu.calls["run"]`, `gpu.lose()`, `gpu.memory().free`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import cast

import numpy as np

from hotplug.backend import (
    API_VERSION,
    Backend,
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
    no,
)
from hotplug.errors import DeviceUnavailableError
from hotplug.node import Node
from hotplug.registry import Registry
from hotplug.tensor import HostTensor
from hotplug.testing.faults import Fault, Script, Step
from hotplug.testing.oracle import Array
from hotplug.testing.reference import (
    HostBuffer,
    HostMemory,
    ReferenceDevice,
    ReferenceExecutable,
)

__all__ = ["FakeBackend", "FakeDevice", "Fault", "Step", "fake_backend", "fake_registry"]


class FakeBuffer(Buffer):
    """Memory of a fake device; hidden from the host if the device is no host device."""

    def __init__(self, inner: HostBuffer, device: FakeDevice) -> None:
        self.nbytes = inner.nbytes
        self._inner = inner
        self._device = device

    def read(self, offset: int, target: memoryview) -> None:
        """Fill host memory from the bytes at `offset`."""
        self._device.enter("read")
        self._inner.read(offset, target)

    def write(self, offset: int, source: memoryview) -> None:
        """Put host bytes at `offset`."""
        self._device.enter("write")
        self._inner.write(offset, source)

    def free(self) -> None:
        """Give the memory back; works on a lost device as well."""
        self._inner.free()

    def host(self) -> memoryview | None:
        """The bytes, of a host device."""
        return self._inner.host() if self._device.buffers.is_host else None


class FakeMemory(BufferType):
    """A fake device's memory.

    Attributes:
        memory: the host memory it is made of, which counts bytes.
    """

    def __init__(self, device: FakeDevice, total: int | None, *, is_host: bool) -> None:
        self.memory = HostMemory(device.info.id, total)
        self.is_host = is_host
        self._device = device

    def allocate(self, nbytes: int) -> FakeBuffer:
        """New memory, its bytes zero."""
        self._device.enter("allocate")
        return FakeBuffer(self.memory.allocate(nbytes), self._device)

    def wrap(self, data: memoryview) -> FakeBuffer | None:
        """Host memory as it lies, if this is host memory."""
        return FakeBuffer(self.memory.wrap(data), self._device) if self.is_host else None


class FakeExecutable(ReferenceExecutable):
    """A partition that the oracle computes, on memory that counts."""

    def __init__(self, device: FakeDevice, partition: Partition) -> None:
        super().__init__(device, partition)
        self.arena_bytes = partition.arena_bytes
        self._fake = device
        self._arena = device.buffers.memory.allocate(partition.arena_bytes)

    def run(self, bindings: Mapping[str, Buffer], stream: Stream | None = None) -> None:
        """Compute, unless the script says otherwise."""
        self._fake.enter("run")
        super().run(bindings, stream)

    def compute(self, leaves: Mapping[str, HostTensor]) -> dict[str, Array]:
        """The oracle's values, with the device's error added to those that are numbers."""
        values = super().compute(leaves)
        error = self._fake.error
        if not error:
            return values
        return {
            name: array + error if np.issubdtype(array.dtype, np.floating) else array
            for name, array in values.items()
        }

    def unbind(self) -> bool:
        """Nothing is kept of a run."""
        return True

    def free(self) -> None:
        """Give the arena back."""
        self._arena.free()


class FakeDevice(Device):
    """A scripted device.

    Args:
        info: what it is, or its id such as "fake:1".
        type: for an id, what kind of device to call itself.
        memory_bytes: how much can be allocated; None for no limit.
        unsupported: ops that it refuses, or a function from a node to why it is refused ("" if it
            is not).
        faults: what goes wrong when.
        error: added to every floating-point result, for devices that compute wrong.
        is_host: whether the host may touch its memory. Where not, values must be copied.
        uuid: for an id, the physical device that it claims to be.

    Attributes:
        calls: how often each step was begun.
        open_count: how often it was opened less how often it was closed.
        leaving: whether it says that it will soon be gone.
    """

    leaving = False

    def __init__(
        self,
        info: DeviceInfo | str,
        *,
        type: DeviceType = DeviceType.GPU,  # noqa: A002 - as in DeviceInfo
        memory_bytes: int | None = None,
        unsupported: Collection[str] | Callable[[Node], str] = (),
        faults: Iterable[Fault] = (),
        error: float = 0.0,
        is_host: bool = False,
        uuid: str | None = None,
    ) -> None:
        self.info = info if isinstance(info, DeviceInfo) else _info(info, type, uuid)
        self.error = error
        self.open_count = 0
        self._script = Script(faults)
        self._memory = FakeMemory(self, memory_bytes, is_host=is_host)
        self._reference = ReferenceDevice(self.info)
        self._unsupported = unsupported

    @property
    def calls(self) -> Counter[str]:
        """How often each step was begun."""
        return self._script.calls

    @property
    def buffers(self) -> FakeMemory:
        """Memory that counts."""
        return self._memory

    def add_fault(self, fault: Fault) -> None:
        """Let something more go wrong; calls made already count."""
        self._script.faults.append(fault)

    def lose(self, reason: str = "it fell off the bus") -> None:
        """From now on every step fails, as when a device is pulled out."""
        self._script.lost = reason

    def revive(self) -> None:
        """Undo `lose`."""
        self._script.lost = ""

    def enter(self, step: Step) -> None:
        """Begin a step; raises what the script says.

        Raises:
            DeviceLostError: the device is lost.
        """
        self._script.enter(step, self.id)

    def memory(self) -> MemoryInfo:
        """The limit it was given, and what is left of it."""
        self.enter("memory")
        return MemoryInfo(self._memory.memory.total, self._memory.memory.free)

    def supports(self, node: Node) -> Support:
        """What the oracle can, but for what it was told to refuse."""
        if callable(self._unsupported):
            reason = self._unsupported(node)
        else:
            reason = f"{self.id} refuses {node.op}" if node.op in self._unsupported else ""
        return no(reason) if reason else self._reference.supports(node)

    def compile(self, partition: Partition) -> Executable:
        """Keep the graph for the oracle, and take the arena's memory."""
        self.enter("compile")
        return FakeExecutable(self, partition)

    def close(self) -> None:
        """Count."""
        self.open_count -= 1


class FakeBackend(Backend):
    """Scripted devices as a backend; made by `fake_backend`.

    Attributes:
        devices: what it has now; change it to plug devices in and out.
    """

    name = "fake"
    api_version = API_VERSION

    def __init__(self, devices: Iterable[FakeDevice] = (), faults: Iterable[Fault] = ()) -> None:
        self.devices = list(devices)
        self._script = Script(faults)

    @property
    def calls(self) -> Counter[str]:
        """How often "probe" and "open" were begun."""
        return self._script.calls

    def add_fault(self, fault: Fault) -> None:
        """Let something more go wrong; calls made already count."""
        self._script.faults.append(fault)

    def probe(self) -> Sequence[DeviceInfo]:
        """The devices it has now."""
        self._script.enter("probe")
        return [device.info for device in self.devices]

    def open(self, info: DeviceInfo) -> FakeDevice:
        """The very device that it was made with."""
        self._script.enter("open")
        for device in self.devices:
            if device.info == info:
                device.open_count += 1
                return device
        raise DeviceUnavailableError(f"{self.name} has no device {info.id}", device=info.id)


def fake_backend(
    name: str,
    *devices: FakeDevice,
    faults: Iterable[Fault] = (),
    priority: int = 50,
    api_version: tuple[int, int] = API_VERSION,
) -> FakeBackend:
    """A backend of a given name, whose devices' ids must begin with it."""
    members = {"name": name, "priority": priority, "api_version": api_version}
    kind = cast("type[FakeBackend]", type(f"Fake_{name}", (FakeBackend,), members))
    return kind(devices, faults)


def fake_registry(*backends: Backend) -> Registry:
    """A registry that knows these backends and, whatever is installed, no others."""
    registry = Registry(list)
    for backend in backends:
        registry.register(backend)
    return registry


def _info(device: str, kind: DeviceType, uuid: str | None) -> DeviceInfo:
    backend, _, index = device.partition(":")
    return DeviceInfo(backend, int(index or 0), f"Fake {device}", kind, uuid, kernels="oracle")
