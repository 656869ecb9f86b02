"""The registration object. Importing it imports no vendor package and touches no driver."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import ClassVar

from hotplug.backend import API_VERSION, Backend, Device, DeviceInfo
from hotplug.errors import BackendLoadError, DeviceUnavailableError

__all__ = ["OpenCLBackend"]

_NOT_YET = "this version of hotplug-opencl cannot drive OpenCL devices yet"


class OpenCLBackend(Backend):
    """GPUs and processors with an OpenCL driver."""

    name: ClassVar[str] = "opencl"
    api_version: ClassVar[tuple[int, int]] = API_VERSION
    priority: ClassVar[int] = 60

    def probe(self) -> Sequence[DeviceInfo]:
        """Say why there is no device.

        Raises:
            BackendLoadError: always; with the command that adds PyOpenCL where that is missing.
        """
        if importlib.util.find_spec("pyopencl") is None:
            raise BackendLoadError(
                f"PyOpenCL is not installed, and {_NOT_YET}",
                backend=self.name,
                remedy="pip install pyopencl",
            )
        raise BackendLoadError(f"PyOpenCL is installed, but {_NOT_YET}", backend=self.name)

    def open(self, info: DeviceInfo) -> Device:
        """Refuse: `probe` names no device.

        Raises:
            DeviceUnavailableError: always.
        """
        raise DeviceUnavailableError(_NOT_YET, device=info.id)
