"""The backend of the processor, found by its entry point. Importing it imports no NumPy."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Sequence
from typing import ClassVar

from hotplug.backend import API_VERSION, Backend, Device, DeviceInfo, DeviceType, MemoryInfo
from hotplug.errors import DeviceUnavailableError
from hotplug_cpu import host
from hotplug_cpu.jit import target

__all__ = ["CPUBackend"]


class CPUBackend(Backend):
    """One device, "cpu:0": all processors of the machine, through compiled kernels or NumPy."""

    name: ClassVar[str] = "cpu"
    api_version: ClassVar[tuple[int, int]] = API_VERSION

    def probe(self) -> Sequence[DeviceInfo]:
        """The processor; it is always there.

        Raises:
            SettingsError: HOTPLUG_CPU_ISA names an instruction set that it lacks.
        """
        missing = _compiler_missing()
        info = DeviceInfo(
            self.name,
            0,
            host.processor_name(),
            DeviceType.CPU,
            architecture=platform.machine() if missing else target.architecture(),
            units=host.usable_threads(),
            kernels="numpy" if missing else "compiled",
            properties={"compiler": missing} if missing else {},
        )
        return (info,)

    def memory(self, info: DeviceInfo) -> MemoryInfo:
        """The machine's memory, or what of it this process may use."""
        del info
        return host.memory()

    def open(self, info: DeviceInfo) -> Device:
        """The device that `probe` told of.

        Raises:
            DeviceUnavailableError: there is no device of that number.
        """
        if info.backend != self.name or info.index != 0:
            raise DeviceUnavailableError(f"there is no device {info.id}", device=info.id)
        from hotplug_cpu.device import CPUDevice  # noqa: PLC0415 - NumPy comes with it, 80 ms

        return CPUDevice(info)


def _compiler_missing() -> str | None:
    """Why kernels cannot be compiled, or None. Without Numba those in the cache are not used."""
    reason = target.llvmlite_missing()
    if reason is not None:
        return f"llvmlite cannot be used: {reason}"
    return "Numba is not installed" if importlib.util.find_spec("numba") is None else None
