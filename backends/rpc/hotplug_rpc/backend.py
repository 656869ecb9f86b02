"""The registration object. Importing it imports no vendor package and touches no driver."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import ClassVar

from hotplug.backend import API_VERSION, Backend, Device, DeviceInfo
from hotplug.errors import BackendLoadError, DeviceUnavailableError

__all__ = ["RPCBackend"]

_NOT_YET = "this version of hotplug-rpc cannot reach other machines yet"


class RPCBackend(Backend):
    """Devices of other machines."""

    name: ClassVar[str] = "rpc"
    api_version: ClassVar[tuple[int, int]] = API_VERSION

    def probe(self) -> Sequence[DeviceInfo]:
        """Say why there is no device.

        Raises:
            BackendLoadError: always; with the command that adds PyZMQ where that is missing.
        """
        if importlib.util.find_spec("zmq") is None:
            raise BackendLoadError(
                f"PyZMQ is not installed, and {_NOT_YET}",
                backend=self.name,
                remedy="pip install pyzmq",
            )
        raise BackendLoadError(f"PyZMQ is installed, but {_NOT_YET}", backend=self.name)

    def open(self, info: DeviceInfo) -> Device:
        """Refuse: `probe` names no device.

        Raises:
            DeviceUnavailableError: always.
        """
        raise DeviceUnavailableError(_NOT_YET, device=info.id)
