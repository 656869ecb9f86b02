"""The processor as the contract's device."""

from __future__ import annotations

from hotplug.backend import YES, Device, DeviceInfo, Executable, MemoryInfo, Partition, Support
from hotplug.node import Node
from hotplug.ops import OPS
from hotplug_cpu import host, numpy_kernels
from hotplug_cpu.buffers import HostBufferType
from hotplug_cpu.interpreter import NumpyExecutable

__all__ = ["CPUDevice"]


class CPUDevice(Device):
    """All processors of the machine. Holds nothing but what its executables hold."""

    def __init__(self, info: DeviceInfo) -> None:
        self.info = info
        self._buffers = HostBufferType(info.id)

    def memory(self) -> MemoryInfo:
        """Memory of the machine, or of the container where that is less."""
        return host.memory()

    def supports(self, node: Node) -> Support:
        """Yes to every op of the table; no to dtypes that have no codec."""
        row = OPS.get(node.op)
        if node.is_leaf or (row is not None and row.view):
            return YES
        return numpy_kernels.supports(node)

    @property
    def buffers(self) -> HostBufferType:
        """Host memory."""
        return self._buffers

    def compile(self, partition: Partition) -> Executable:
        """Make a partition ready to run.

        Raises:
            OutOfDeviceMemoryError: its intermediate values do not fit in memory.
        """
        return NumpyExecutable(partition, self._buffers)
