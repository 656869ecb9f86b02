"""The contract's device over a driver."""

from __future__ import annotations

from hotplug.backend import Device, DeviceInfo, Event, MemoryInfo, Partition, Stream, Support
from hotplug.gpu import catalog
from hotplug.gpu.autotune import Tuner
from hotplug.gpu.cache import BinaryCache
from hotplug.gpu.driver import Driver
from hotplug.gpu.executable import GPUExecutable
from hotplug.gpu.memory import GPUBufferType
from hotplug.gpu.programs import Programs
from hotplug.node import Node

__all__ = ["GPUDevice"]


class GPUDevice(Device):
    """A device of any backend that has a driver.

    Attributes:
        driver: the opened device.
        programs: its kernels.
    """

    plans_arena = True

    def __init__(self, info: DeviceInfo, driver: Driver, memory: MemoryInfo) -> None:
        """Take over a device.

        Args:
            info: what the backend's probe told of it.
            driver: the opened device.
            memory: its memory where the driver does not tell what is free.
        """
        self.info = info
        self.driver = driver
        self._memory = memory
        self._buffers = GPUBufferType(driver, info.id)
        cache = BinaryCache.open(info.backend, driver.capabilities.identity)
        self.programs = Programs(driver, cache)
        self._tuner = Tuner.open(info.backend, driver, self.programs)

    def memory(self) -> MemoryInfo:
        """Memory of the device, as far as the vendor tells."""
        return self.driver.memory() or self._memory

    def supports(self, node: Node) -> Support:
        """What the catalog has for the node."""
        return catalog.supports(node, self.driver.capabilities)

    def direct_from(self, source: Device) -> int | None:
        """Whatever the two drivers can do; that is tried."""
        near = isinstance(source, GPUDevice) and self.driver.reaches(source.driver)
        return 0 if near else None

    @property
    def buffers(self) -> GPUBufferType:
        """Device memory."""
        return self._buffers

    def compile(self, partition: Partition) -> GPUExecutable:
        """Compile what kernels the partition needs and is not in the cache, and take its arena.

        Raises:
            UnsupportedOpError: there is no kernel for a node.
            KernelCompileError: the device's compiler refused a kernel.
            OutOfDeviceMemoryError: the arena does not fit.
        """
        self._tuner.learn(partition.graph)
        return GPUExecutable(partition, self._buffers, self.programs, choose=self._tuner.choose)

    def stream(self) -> Stream:
        """The device's queue: work on it is not waited for."""
        return _Queue(self.driver)

    def close(self) -> None:
        """Let go of the device."""
        self.driver.close()


class _Queue(Stream):
    """All work of a device is queued in order, so that its end stands for any point before."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def record(self) -> Event:
        return _Done(self._driver)


class _Done(Event):
    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def wait(self) -> None:
        self._driver.synchronise()
