"""The registration object. Importing it imports no vendor package and touches no network."""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ClassVar

from hotplug.backend import API_VERSION, Backend, Device, DeviceInfo, MemoryInfo
from hotplug.errors import (
    BackendLoadError,
    DeviceUnavailableError,
    HotplugError,
    SettingsError,
    UsageError,
)
from hotplug.registry import default
from hotplug_rpc.addresses import Address, parse_address
from hotplug_rpc.variables import seconds_of

if TYPE_CHECKING:
    from hotplug_rpc.client.connection import Connection
    from hotplug_rpc.client.returning import Watcher

__all__ = ["RPCBackend"]

_log = logging.getLogger("hotplug.rpc")

_SERVERS, _TIMEOUT = "HOTPLUG_RPC_SERVERS", "HOTPLUG_RPC_TIMEOUT"
_SECONDS = 120.0
_RETRY, _RETRY_SECONDS = "HOTPLUG_RPC_RETRY", 5.0
_PACKAGES = {"zmq": "pyzmq", "blake3": "blake3"}


class RPCBackend(Backend):
    """Devices of other machines.

    HOTPLUG_RPC_SERVERS names the servers that a list of devices asks, as "host:port,host:port";
    others are found when a selector names them. HOTPLUG_RPC_TIMEOUT is how many seconds an answer
    may take.
    """

    name: ClassVar[str] = "rpc"
    api_version: ClassVar[tuple[int, int]] = API_VERSION

    def __init__(self, back: Callable[[], object] = lambda: default().refresh()) -> None:
        """Set up; `back` is called when a lost server is there again."""
        self._back = back
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._connections: dict[str, Connection] = {}
        self._connecting: dict[str, threading.Lock] = {}
        self._users: dict[str, int] = {}
        self._numbers: dict[str, int] = {}  # address of a device -> its number here
        self._met: dict[str, Address] = {}  # servers that a selector named
        self._told: set[str] = set()  # why servers did not answer when they were asked last
        self._watcher: Watcher | None = None

    def _after_fork(self) -> None:
        """What the parent connected is the parent's; closing it here would end its sessions."""
        if self._pid != os.getpid():
            self._left_behind = self._connections
            self._begin()

    def probe(self) -> Sequence[DeviceInfo]:
        """Devices of the servers that HOTPLUG_RPC_SERVERS names, or a selector has.

        Raises:
            BackendLoadError: PyZMQ is missing, no server is named, or none of them answers.
            SettingsError: a variable is not understood.
        """
        self._after_fork()
        for module, package in _PACKAGES.items():
            if importlib.util.find_spec(module) is None:
                raise BackendLoadError(
                    f"{package} is not installed",
                    backend=self.name,
                    remedy=f"pip install {package}",
                )
        servers = {address.server: address for address in _servers()} | self._met
        if not servers:
            raise BackendLoadError(
                "no server is named",
                backend=self.name,
                remedy=f"set {_SERVERS}=host:port, or select rpc://host:port/cuda:0",
            )
        return self._ask_all(servers.values())

    def _ask_all(self, servers: Iterable[Address]) -> list[DeviceInfo]:
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(self._try, servers))
        failures = [answer for answer in answers if isinstance(answer, HotplugError)]
        found = [info for answer in answers if isinstance(answer, list) for info in answer]
        if failures and not found:
            remedy = failures[0].remedy if len(failures) == 1 else None
            reasons = "; ".join(str(error.args[0]) for error in failures)
            raise BackendLoadError(reasons, backend=self.name, remedy=remedy)
        for error in failures:  # which whoever looks again and again need not hear each time
            level = logging.DEBUG if str(error) in self._told else logging.WARNING
            _log.log(level, "%s", error)
        self._told = {str(error) for error in failures}
        return found

    def _try(self, server: Address) -> list[DeviceInfo] | HotplugError:
        try:
            return self._devices_of(server)
        except HotplugError as error:
            return error

    def find(self, address: str) -> Sequence[DeviceInfo]:
        """Devices of a server that a selector names, or one of them.

        Raises:
            UsageError: the address is none, or the server has no such device.
            RemoteError: it does not answer, or does not let us in.
        """
        self._after_fork()
        place = parse_address(address)
        server = self._met[place.server] = Address(place.host, place.port)  # it may answer later
        infos = self._devices_of(server)
        matching = [info for info in infos if not place.device or _device_of(info) == place.device]
        if not matching:
            offered = ", ".join(map(_device_of, infos)) or "nothing"
            raise UsageError(f"{place.server} offers {offered}, not {place.device}")
        return matching

    def _devices_of(self, server: Address) -> list[DeviceInfo]:
        connection = self._connect(server)
        if connection.closing:  # devices that are to be left, as if unplugged
            return []
        return [
            connection.describe(position, self._number(f"{server.server}/{described.info.id}"))
            for position, described in enumerate(connection.offered)
        ]

    def _number(self, address: str) -> int:
        with self._lock:
            return self._numbers.setdefault(address, len(self._numbers))

    def _connect(self, server: Address) -> Connection:
        """The connection to a server: the one that there is, or a new one if that is lost."""
        with self._lock:
            connecting = self._connecting.setdefault(server.server, threading.Lock())
        with connecting:  # two threads want one connection, but no server waits for another
            return self._held(server) or self._new(server)

    def _held(self, server: Address) -> Connection | None:
        with self._lock:
            held = self._connections.get(server.server)
        if held is None:
            return None
        held.poll()
        if held.lost is None:
            return held
        if not self._users[server.server]:
            held.close()
        return None

    def _new(self, server: Address) -> Connection:
        from hotplug_rpc.client.connection import Connection  # noqa: PLC0415 - ZeroMQ, 30 ms
        from hotplug_rpc.keys import KeyRing  # noqa: PLC0415

        ring = KeyRing()
        made = Connection(
            server, ring.server_key(server), ring.identity(), seconds_of(_TIMEOUT, _SECONDS)
        )
        with self._lock:
            self._connections[server.server] = made
            self._users[server.server] = 0
        return made

    def memory(self, info: DeviceInfo) -> MemoryInfo | None:
        """A device's memory, as its server tells it."""
        from hotplug_rpc.requests import Memory  # noqa: PLC0415

        connection, position = self._place(info)
        body = connection.request(Memory(position)).body
        return MemoryInfo(body.get("total"), body.get("free"))

    def _place(self, info: DeviceInfo) -> tuple[Connection, int]:
        self._after_fork()
        address = parse_address(str(info.properties.get("address")))
        connection = self._connect(Address(address.host, address.port))
        for position, described in enumerate(connection.offered):
            if described.info.id == address.device:
                return connection, position
        raise DeviceUnavailableError(
            f"{address.server} does not offer {address.device} any more", device=info.id
        )

    def open(self, info: DeviceInfo) -> Device:
        """Take a device of a server into use.

        Raises:
            DeviceUnavailableError: the server does not offer it any more.
            RemoteError: the server does not answer.
        """
        from hotplug_rpc.client.device import RemoteDevice  # noqa: PLC0415

        connection, position = self._place(info)
        with self._lock:
            self._users[connection.address.server] += 1
        return RemoteDevice(info, connection, position, lambda: self._leave(connection))

    def _leave(self, connection: Connection) -> None:
        """A device was closed; the last one of a connection ends it, and frees all over there."""
        server = connection.address.server
        with self._lock:
            if self._connections.get(server) is connection:
                self._users[server] -= 1
                if self._users[server] > 0:
                    return
                del self._connections[server]
        if connection.lost is not None:
            self._watch(connection.address)
        connection.leave()

    def _watch(self, server: Address) -> None:
        """Tell the registry when a lost server is back: sessions with `hot_plug` take it in."""
        from hotplug_rpc.client.returning import Watcher  # noqa: PLC0415 - seldom needed

        with self._lock:
            if self._watcher is None:
                self._watcher = Watcher(self._back, seconds_of(_RETRY, _RETRY_SECONDS))
            self._watcher.add(server)

    def close(self) -> None:
        """End all connections."""
        with self._lock:
            connections, self._connections = self._connections, {}
            watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.end()
        for connection in connections.values():
            connection.leave()


def _device_of(info: DeviceInfo) -> str:
    return parse_address(str(info.properties["address"])).device


def _servers() -> list[Address]:
    text = os.environ.get(_SERVERS, "")
    try:
        return [parse_address(item.strip()) for item in text.split(",") if item.strip()]
    except UsageError as error:
        raise SettingsError(
            f"{_SERVERS}: {error.args[0]}", variable=_SERVERS, value=text
        ) from error
