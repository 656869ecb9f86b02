"""A backend that computes with the oracle: slow, right, and made of nothing but host memory.

It shows the contract in its plainest form, gives the conformance suite something to run on, and is
what scripted fake devices are made from.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from hotplug import quants
from hotplug.backend import (
    API_VERSION,
    YES,
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
from hotplug.errors import (
    DeviceUnavailableError,
    ExecutionError,
    OutOfDeviceMemoryError,
    UsageError,
)
from hotplug.node import Node
from hotplug.ops import OPS
from hotplug.tensor import HostTensor, TensorType
from hotplug.testing.oracle import Array, evaluate, evaluate_blocks, to_bytes

__all__ = [
    "HostBuffer",
    "HostMemory",
    "ReferenceBackend",
    "ReferenceDevice",
    "ReferenceExecutable",
]


class HostBuffer(Buffer):
    """Host memory as a buffer."""

    def __init__(self, data: memoryview, memory: HostMemory | None = None) -> None:
        self.nbytes = data.nbytes
        self._data: memoryview | None = data.cast("B")
        self._memory = memory

    def read(self, offset: int, target: memoryview) -> None:
        """Fill host memory from the bytes at `offset`."""
        target = target.cast("B")
        target[:] = self._range(offset, target.nbytes)

    def write(self, offset: int, source: memoryview) -> None:
        """Put host bytes at `offset`."""
        source = source.cast("B")
        target = self._range(offset, source.nbytes)
        if target.readonly:
            raise UsageError("the buffer wraps read-only memory and cannot be written")
        target[:] = source

    def free(self) -> None:
        """Give the memory back."""
        if self._data is not None and self._memory is not None:
            self._memory.give_back(self.nbytes)
        self._data = None

    def host(self) -> memoryview:
        """The bytes themselves."""
        return self._range(0, self.nbytes)

    def _range(self, offset: int, nbytes: int) -> memoryview:
        if self._data is None:
            raise UsageError("the buffer has been freed")
        if offset < 0 or offset + nbytes > self.nbytes:
            raise UsageError(f"bytes {offset} to {offset + nbytes} of a buffer of {self.nbytes}")
        return self._data[offset : offset + nbytes]


class HostMemory(BufferType):
    """Host memory as a kind of buffer, with a limit if one is wanted.

    Args:
        device: id of the device that it serves, for error texts.
        total: bytes that may be allocated at one time; None for no limit.
    """

    is_host = True

    def __init__(self, device: str, total: int | None = None) -> None:
        self.total = total
        self.used = 0
        self._device = device
        self._lock = threading.Lock()

    @property
    def free(self) -> int | None:
        """Bytes that can still be allocated; None for no limit."""
        return None if self.total is None else self.total - self.used

    def allocate(self, nbytes: int) -> HostBuffer:
        """New memory, its bytes zero."""
        with self._lock:
            free = self.free
            if free is not None and nbytes > free:
                raise OutOfDeviceMemoryError(
                    f"{self._device} has {free} bytes left, and {nbytes} were asked for",
                    device=self._device,
                    requested=nbytes,
                    free=free,
                )
            try:
                data = bytearray(nbytes)
            except (MemoryError, OverflowError) as error:
                raise OutOfDeviceMemoryError(
                    f"the system refused {nbytes} bytes", device=self._device, requested=nbytes
                ) from error
            self.used += nbytes
        return HostBuffer(memoryview(data), self)

    def give_back(self, nbytes: int) -> None:
        """Count bytes of a freed buffer as free again."""
        with self._lock:
            self.used -= nbytes

    def wrap(self, data: memoryview) -> HostBuffer:
        """Host memory used as it lies."""
        return HostBuffer(data)


class ReferenceExecutable(Executable):
    """A partition that the oracle computes at every run."""

    def __init__(self, device: Device, partition: Partition) -> None:
        self.device = device
        self.graph = partition.graph

    def run(self, bindings: Mapping[str, Buffer], stream: Stream | None = None) -> None:
        """Compute outputs, then update states."""
        del stream  # all is done when this returns, which any stream allows
        leaves = {
            node.name: self._load(node, bindings) for node in self.graph.nodes if node.is_leaf
        }
        targets = [(node, f"output:{name}", name) for name, node in self.graph.outputs]
        targets += [(node, name, f"state:{name}") for name, node in self.graph.updates]
        buffers = [self._bound(bindings, bound, node.type) for node, bound, _ in targets]
        results = self.compute(leaves)
        blocks = evaluate_blocks(self.graph, leaves)
        for (node, _, name), buffer in zip(targets, buffers, strict=True):
            data = blocks[node] if node in blocks else to_bytes(results[name], node.dtype)
            buffer.write(0, data.data)

    def compute(self, leaves: Mapping[str, HostTensor]) -> dict[str, Array]:
        """Values by output name and "state:" + state name; what a scripted device overrides."""
        return evaluate(self.graph, leaves)

    def explain(self) -> list[str]:
        """One line per node."""
        return [f"oracle: {node.name} -> {node.type}" for node in self.graph.nodes]

    def _load(self, node: Node, bindings: Mapping[str, Buffer]) -> HostTensor:
        data = np.empty(node.type.nbytes, np.uint8)
        self._bound(bindings, node.name, node.type).read(0, data.data)
        return HostTensor(node.type, data)

    def _bound(self, bindings: Mapping[str, Buffer], name: str, tensor: TensorType) -> Buffer:
        buffer = bindings.get(name)
        if buffer is None:
            raise ExecutionError(f"no buffer is bound to {name!r}", device=self.device.id)
        if buffer.nbytes < tensor.nbytes:
            raise ExecutionError(
                f"{name!r} is {tensor} and needs {tensor.nbytes} bytes; "
                f"the buffer bound to it has {buffer.nbytes}",
                device=self.device.id,
            )
        return buffer


class ReferenceDevice(Device):
    """A device whose kernels are the oracle's.

    Args:
        info: what it is to call itself.
        memory_bytes: how much can be allocated; None for no limit.
    """

    def __init__(self, info: DeviceInfo, *, memory_bytes: int | None = None) -> None:
        self.info = info
        self._buffers = HostMemory(info.id, memory_bytes)

    @property
    def buffers(self) -> HostMemory:
        """Host memory."""
        return self._buffers

    def memory(self) -> MemoryInfo:
        """The limit it was given, and what is left of it."""
        return MemoryInfo(self._buffers.total, self._buffers.free)

    def supports(self, node: Node) -> Support:
        """Yes, unless a dtype cannot be encoded."""
        if node.op not in OPS:
            return no(f"there is no op {node.op!r}")
        moves = node.is_leaf or node.op == "index_select"
        moved = moves or (bool(node.operands) and node.operands[-1].dtype == node.dtype)
        if moved or quants.can_encode(node.dtype):
            return YES
        return no(f"{node.dtype} cannot be encoded")

    def compile(self, partition: Partition) -> Executable:
        """Keep the graph for the oracle."""
        return ReferenceExecutable(self, partition)


class ReferenceBackend(Backend):
    """Some reference devices. Derive from it, or give a name, to stand for another backend.

    Args:
        devices: what `probe` tells of; by default one device of type CPU.
    """

    name: ClassVar[str] = "reference"
    api_version: ClassVar[tuple[int, int]] = API_VERSION
    priority: ClassVar[int] = 0

    def __init__(self, devices: Sequence[DeviceInfo] | None = None) -> None:
        default = DeviceInfo(self.name, 0, "Oracle", DeviceType.CPU, kernels="oracle")
        self.devices = (default,) if devices is None else tuple(devices)

    def probe(self) -> Sequence[DeviceInfo]:
        """The devices it was made with."""
        return self.devices

    def open(self, info: DeviceInfo) -> ReferenceDevice:
        """A new reference device."""
        if info not in self.devices:
            raise DeviceUnavailableError(f"{self.name} has no device {info.id}", device=info.id)
        return ReferenceDevice(info)
