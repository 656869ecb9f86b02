"""What both ends set on their ZeroMQ sockets, and how frames are sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import zmq

from hotplug_rpc.keys import Identity

__all__ = ["HANDSHAKE_MS", "prepare", "send_frames"]

HANDSHAKE_MS = 5000
_HEARTBEAT_MS, _HEARTBEAT_TIMEOUT_MS = 2000, 10_000

_LARGE = 1 << 16
"""Bytes from which handing a frame to ZeroMQ without a copy is faster."""


def prepare(socket: zmq.Socket[bytes], identity: Identity, *, ipv6: bool) -> None:
    """Who we are, and how long a silent peer is waited for."""
    options: dict[int, int | bytes] = {
        zmq.CURVE_PUBLICKEY: identity.public,
        zmq.CURVE_SECRETKEY: identity.secret,
        zmq.HANDSHAKE_IVL: HANDSHAKE_MS,
        zmq.HEARTBEAT_IVL: _HEARTBEAT_MS,
        zmq.HEARTBEAT_TIMEOUT: _HEARTBEAT_TIMEOUT_MS,
        zmq.HEARTBEAT_TTL: _HEARTBEAT_TIMEOUT_MS,
        zmq.IPV6: int(ipv6),
    }
    for option, value in options.items():
        socket.set(option, value)


def send_frames(socket: zmq.Socket[bytes], frames: Sequence[Any], flags: int = 0) -> None:
    """Send one message, large frames as they lie: they must not change until they have arrived.

    Raises:
        ZMQError: the first frame cannot be sent; then none was.
    """
    last = len(frames) - 1
    for at, frame in enumerate(frames):
        more = zmq.SNDMORE if at < last else 0
        if len(frame) < _LARGE:
            socket.send(frame, flags | more)
        else:
            socket.send(frame, flags | more, copy=False)
