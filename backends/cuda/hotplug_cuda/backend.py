"""The registration object. Importing it imports no vendor package and touches no driver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from hotplug.backend import API_VERSION, Backend, Device, DeviceInfo, MemoryInfo
from hotplug.errors import DeviceUnavailableError

__all__ = ["CUDABackend"]


class CUDABackend(Backend):
    """NVIDIA GPUs from compute capability 7.5 on."""

    name: ClassVar[str] = "cuda"
    api_version: ClassVar[tuple[int, int]] = API_VERSION
    priority: ClassVar[int] = 80

    def probe(self) -> Sequence[DeviceInfo]:
        """All GPUs that CUDA_VISIBLE_DEVICES shows, with CUDA's numbers.

        Raises:
            BackendLoadError: driver, CuPy or compiler is missing or does not fit.
        """
        from hotplug_cuda import discovery  # noqa: PLC0415 - kept away from importing the backend

        return [found.info for found in discovery.find()]

    def memory(self, info: DeviceInfo) -> MemoryInfo:
        """The device's memory; what of it is free, CUDA tells only in a context."""
        total = info.properties.get("memory")
        return MemoryInfo(total=total if isinstance(total, int) else None, free=None)

    def open(self, info: DeviceInfo) -> Device:
        """Create a context on a device that `probe` told of.

        Raises:
            DeviceUnavailableError: there is no such device, or it takes no context.
        """
        from hotplug.gpu.device import GPUDevice  # noqa: PLC0415 - NumPy comes with it
        from hotplug_cuda import discovery  # noqa: PLC0415
        from hotplug_cuda.driver import CUDADriver  # noqa: PLC0415

        for found in discovery.find():
            if found.info.index == info.index and info.backend == self.name:
                return GPUDevice(found.info, CUDADriver.open(found), self.memory(found.info))
        raise DeviceUnavailableError(f"there is no device {info.id}", device=info.id)
