"""Messages without end: what clients have sent that has come to no message yet.

ZeroMQ bounds a frame, but gathers the frames of a message without bound, and shows nothing of it
before the last one. The kernel knows what each connection has received; one whose bytes come to no
message is ended. Only Linux tells; elsewhere nothing is bounded here.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import time
from dataclasses import dataclass

__all__ = ["Backlog"]

_BYTES_RECEIVED = 128
"""Offset in struct tcp_info. Source: include/uapi/linux/tcp.h, Linux 4.1 and later."""

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
            self._open[descriptor] = _Connection(_received(descriptor) or 0, time.monotonic())

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
        received = _received(descriptor)
        if received is None or connection.delivered:
            connection.received = received or connection.received
            connection.since, connection.delivered = now, False
            return 0
        idle = int(_HEARTBEATS * (now - connection.since))
        return max(0, received - connection.received - idle)


def _received(descriptor: int) -> int | None:
    """Bytes that a connection has received; None where that is not known."""
    with contextlib.suppress(OSError, struct.error), _borrowed(descriptor) as connection:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED + 8)
        return int(struct.unpack_from("=Q", info, _BYTES_RECEIVED)[0])
    return None


def shut_down(descriptor: int) -> None:
    """End a connection, which ZeroMQ then notices."""
    with contextlib.suppress(OSError), _borrowed(descriptor) as connection:
        connection.shutdown(socket.SHUT_RDWR)


def _borrowed(descriptor: int) -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=os.dup(descriptor))
