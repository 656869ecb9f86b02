"""The registration object. Importing it imports no vendor package and touches no driver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from hotplug.backend import API_VERSION, Backend, Device, DeviceInfo, MemoryInfo
from hotplug.errors import DeviceUnavailableError

__all__ = ["OpenCLBackend"]


class OpenCLBackend(Backend):
    """GPUs and processors with an OpenCL driver."""

    name: ClassVar[str] = "opencl"
    api_version: ClassVar[tuple[int, int]] = API_VERSION
    # Below the backends that speak to a device in its vendor's own way: of a card or a processor
    # seen through both, that one is used.
    priority: ClassVar[int] = 40

    def probe(self) -> Sequence[DeviceInfo]:
        """All devices of all platforms, in the order in which the loader gives them.

        Raises:
            BackendLoadError: PyOpenCL or every OpenCL driver is missing.
        """
        from hotplug_opencl import discovery  # noqa: PLC0415 - PyOpenCL comes with it

        return [found.info for found in discovery.find()]

    def memory(self, info: DeviceInfo) -> MemoryInfo:
        """The device's memory; OpenCL does not tell what of it is free."""
        total = info.properties.get("memory")
        return MemoryInfo(total=total if isinstance(total, int) else None, free=None)

    def open(self, info: DeviceInfo) -> Device:
        """Create a context on a device that `probe` told of.

        Raises:
            DeviceUnavailableError: there is no such device, or it takes no context.
        """
        from hotplug.gpu.device import GPUDevice  # noqa: PLC0415 - NumPy comes with it
        from hotplug_opencl import discovery  # noqa: PLC0415 - PyOpenCL comes with it
        from hotplug_opencl.driver import OpenCLDriver  # noqa: PLC0415

        for found in discovery.find():
            if found.info.index == info.index and info.backend == self.name:
                return GPUDevice(found.info, OpenCLDriver(found), self.memory(found.info))
        raise DeviceUnavailableError(f"there is no device {info.id}", device=info.id)
