"""Messages without end: what clients have sent that has come to no message yet.

ZeroMQ bounds a frame, but gathers the frames of a message without bound, and shows nothing of it
before the last one. The kernel knows what each connection has received; one whose bytes come to no
message is ended. Only Linux tells; elsewhere nothing is bounded here.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from hotplug_rpc.descriptors import received_bytes, shut_down

__all__ = ["Backlog"]

_HEARTBEATS = 1024
"""Bytes a second that an idle connection may receive besides."""


@dataclass(slots=True)
class _Connection:
    received: int
    since: float
    delivered: bool = False


class Backlog:
    """The connections of a server, by descriptor.

    Args:
        most: bytes that one connection may have under way.
        most_together: and all of them.
    """

    def __init__(self, most: int, most_together: int) -> None:
        self._most = most
        self._most_together = most_together
        self._open: dict[int, _Connection] = {}
        self._watches = sys.platform == "linux"

    def opened(self, descriptor: int) -> None:
        """A connection was made."""
        if self._watches:
            self._open[descriptor] = _Connection(received_bytes(descriptor) or 0, time.monotonic())

    def closed(self, descriptor: int) -> None:
        """A connection has ended."""
        self._open.pop(descriptor, None)

    def delivered(self, descriptor: int) -> None:
        """A message of a connection has come to its end."""
        connection = self._open.get(descriptor)
        if connection is not None:
            connection.delivered = True

    def end_excessive(self) -> int:
        """End connections that have too much under way, largest first; returns how many."""
        under_way = {fd: self._under_way(fd) for fd in tuple(self._open)}
        together, ended = sum(under_way.values()), 0
        for descriptor, nbytes in sorted(under_way.items(), key=lambda item: -item[1]):
            if nbytes <= self._most and together <= self._most_together:
                break
            together -= nbytes
            ended += 1
            self.closed(descriptor)
            shut_down(descriptor)
        return ended

    def _under_way(self, descriptor: int) -> int:
        connection, now = self._open[descriptor], time.monotonic()
        received = received_bytes(descriptor)
        if received is None or connection.delivered:
            connection.received = received or connection.received
            connection.since, connection.delivered = now, False
            return 0
        idle = int(_HEARTBEATS * (now - connection.since))
        return max(0, received - connection.received - idle)
