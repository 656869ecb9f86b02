"""What the kernel knows of connections that ZeroMQ made, by their descriptors."""

from __future__ import annotations

import contextlib
import os
import socket
import struct

__all__ = ["peer_address", "received_bytes", "shut_down"]

_BYTES_RECEIVED = 128
"""Offset in struct tcp_info. Source: include/uapi/linux/tcp.h, Linux 4.1 and later."""


def received_bytes(descriptor: int) -> int | None:
    """Bytes that a connection has received; None where that is not known."""
    with contextlib.suppress(OSError, struct.error), _borrowed(descriptor) as connection:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED + 8)
        return int(struct.unpack_from("=Q", info, _BYTES_RECEIVED)[0])
    return None


def peer_address(descriptor: int) -> str | None:
    """Where a connection comes from; None where that is not known.

    One that has ended may have left its number to anything, such as a socket without addresses.
    """
    with contextlib.suppress(OSError), _borrowed(descriptor) as connection:
        name = connection.getpeername()
        if isinstance(name, tuple) and isinstance(name[0], str):
            return name[0]
    return None


def shut_down(descriptor: int) -> None:
    """End a connection, which ZeroMQ then notices."""
    with contextlib.suppress(OSError), _borrowed(descriptor) as connection:
        connection.shutdown(socket.SHUT_RDWR)


def _borrowed(descriptor: int) -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=os.dup(descriptor))
