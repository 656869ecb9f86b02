"""The processor as the contract's device."""

from __future__ import annotations

import logging
import threading
import warnings

from hotplug.backend import YES, Device, DeviceInfo, Executable, MemoryInfo, Partition, Support
from hotplug.errors import FallbackWarning, KernelCompileError
from hotplug.node import Node
from hotplug.ops import OPS
from hotplug.settings import settings
from hotplug_cpu import host, numpy_kernels
from hotplug_cpu.buffers import HostBufferType
from hotplug_cpu.interpreter import NumpyExecutable
from hotplug_cpu.plan import PlanExecutable

__all__ = ["CPUDevice"]

_log = logging.getLogger("hotplug.cpu")


class CPUDevice(Device):
    """All processors of the machine. Holds nothing but what its executables hold."""

    plans_arena = True

    def __init__(self, info: DeviceInfo) -> None:
        self.info = info
        self._buffers = HostBufferType(info.id)
        self._told = False
        self._lock = threading.Lock()

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
        """Make a partition ready to run, by compiled kernels where there are any.

        Raises:
            UnsupportedOpError: not even NumPy has a kernel for a node.
            KernelCompileError: there are no compiled kernels, and HOTPLUG_FALLBACK=error.
            OutOfDeviceMemoryError: its intermediate values do not fit in memory.
        """
        if self.info.kernels == "numpy":
            reason = str(self.info.properties.get("compiler", "no compiler is here"))
            self._fall_back(KernelCompileError(reason, remedy="pip install numba llvmlite"))
            return NumpyExecutable(partition, self._buffers)
        threads = settings().threads or host.usable_cores()
        try:
            return PlanExecutable(partition, self._buffers, threads)
        except KernelCompileError as error:
            self._fall_back(error)
        return NumpyExecutable(partition, self._buffers)

    def _fall_back(self, error: KernelCompileError) -> None:
        """Say once that NumPy computes, or refuse, as HOTPLUG_FALLBACK has it."""
        policy = settings().fallback
        if policy == "error":
            message = f"{self.id} has no compiled kernels: {error.args[0]}"
            raise KernelCompileError(
                message,
                kernel=error.kernel,
                source=error.source,
                log=error.log,
                remedy=error.remedy,
            ) from error
        with self._lock:
            told, self._told = self._told, True
        if told:
            return
        text = f"{self.id} computes with NumPy, many times slower: {error}"
        _log.info("%s", text)
        if policy == "warn":
            warnings.warn(text, FallbackWarning, stacklevel=3)
