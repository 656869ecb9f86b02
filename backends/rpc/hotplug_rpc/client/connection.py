"""A session with a server: HELLO, graphs named by key, handles."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import hotplug
from hotplug import ops, serialize
from hotplug.backend import DeviceInfo, DeviceType
from hotplug.graph import Graph
from hotplug.registry.guard import info_from_json
from hotplug_rpc.addresses import Address
from hotplug_rpc.client.exchange import Exchange
from hotplug_rpc.client.pending import Pending
from hotplug_rpc.errors import ProtocolError, UnknownGraphError
from hotplug_rpc.keys import Identity
from hotplug_rpc.requests import Bye, Compile, Hello, Ping, Supports
from hotplug_rpc.wire import VERSION

__all__ = ["Connection", "Described"]

_PINGS = 5
_PINGS_SECONDS = 0.01
_LARGE_GRAPH = 100
_FRAME_BYTES = 1 << 16
"""Of a server that does not say what frames it takes."""


@dataclass(frozen=True, slots=True)
class Described:
    """A device as the server tells of it.

    Attributes:
        info: what it is there; `index` and `backend` are the server's.
    """

    info: DeviceInfo
    alignment: int
    max_bytes: int | None


class Connection(Exchange):
    """An exchange that has said HELLO.

    Attributes:
        offered: the server's devices.
        minor: of the protocol's version that both speak.
        frame_bytes: the largest payload frame it takes.
        door: path of a socket that takes open files, if the server is on this machine; or empty.
    """

    def __init__(
        self,
        address: Address,
        server_key: bytes,
        identity: Identity,
        timeout: float,
        most_bytes: int | None = None,
    ) -> None:
        """Connect and begin a session; the arguments are those of an exchange.

        Raises:
            RemoteError: the server is not there, does not let us in, speaks another version, or
                answers with what is no answer.
        """
        super().__init__(address, server_key, identity, timeout, most_bytes)
        self.server_key = server_key
        self.identity = identity
        self._handles = itertools.count(1)
        self._known_graphs: set[str] = set()
        self.lock = threading.RLock()
        try:
            body = self.request(Hello(VERSION, hotplug.__version__, ops.fingerprint())).body
            self.offered = _offered(body)
            self.library = str(body.get("library"))
            self.frame_bytes = _limit(body, "frame_bytes", _FRAME_BYTES)
            self.minor = _minor(body)
            self.door = str(body.get("door", ""))
        except BaseException:
            self.close()
            raise

    @cached_property
    def latency(self) -> float:
        """Seconds that the fastest of a few empty round trips takes; over a slow link, of one."""
        trips = [self._round_trip()]
        while len(trips) < _PINGS and sum(trips) < _PINGS_SECONDS:
            trips.append(self._round_trip())
        return min(trips)

    def _round_trip(self) -> float:
        began = time.perf_counter()
        self.request(Ping())
        return time.perf_counter() - began

    def new_handle(self) -> int:
        """A number that this session has not used."""
        return next(self._handles)

    def ask_about(self, request: Supports | Compile, graph: Graph) -> Pending:
        """Send a request about a graph, and the graph if the server does not have it.

        Raises:
            HotplugError: what the server says is wrong, or the connection is lost.
        """
        # A large graph may be there from an earlier client: to ask is less than to send it.
        if graph.key in self._known_graphs or len(graph.nodes) >= _LARGE_GRAPH:
            try:
                return self.request(request)
            except UnknownGraphError:  # it never had it, or has forgotten
                pass
        answer = self.request(request, [serialize.dump(graph)])
        self._known_graphs.add(graph.key)
        return answer

    def leave(self) -> None:
        """End the session and the connection."""
        if self.lost is None:
            self.tell(Bye())
        self.close()

    def describe(self, position: int, index: int) -> DeviceInfo:
        """A device as this process knows it: of our backend, with the server's facts."""
        info = self.offered[position].info
        facts: dict[str, str | int | float | bool] = {
            **info.properties,
            "address": f"{self.address.server}/{info.id}",
            "remote_type": info.type.value,
            "link_latency": self.latency / 2,
        }
        return replace(info, backend="rpc", index=index, type=DeviceType.REMOTE, properties=facts)


def _offered(body: Mapping[str, Any]) -> list[Described]:
    try:
        return [
            Described(info_from_json(row["info"]), int(row["alignment"]), row["max_bytes"])
            for row in body["devices"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProtocolError(f"the server describes its devices wrongly: {error!r}") from error


def _minor(body: Mapping[str, Any]) -> int:
    version = body.get("protocol")
    minor = version[1] if isinstance(version, list) and len(version) == 2 else 0
    return minor if isinstance(minor, int) else 0


def _limit(body: Mapping[str, Any], name: str, default: int) -> int:
    limits = body.get("limits")
    value = limits.get(name) if isinstance(limits, dict) else None
    return value if isinstance(value, int) and value > 0 else default
