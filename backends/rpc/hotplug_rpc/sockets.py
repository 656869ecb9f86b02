"""What both ends set on their ZeroMQ sockets, and how frames are sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import zmq

from hotplug_rpc.keys import Identity
from hotplug_rpc.variables import seconds_of

__all__ = ["HANDSHAKE_MS", "Unsent", "dealer", "heartbeat_ms", "prepare", "send_frames"]

HANDSHAKE_MS = 5000

_MOST_FRAME = 64 << 20
"""Bytes of a frame that a client takes."""

_LARGE = 1 << 16
"""Bytes from which handing a frame to ZeroMQ without a copy is faster."""

_TRACKED = 1 << 18
"""Bytes from which a frame is followed until it has left, which costs 20 us."""


Unsent: TypeAlias = "tuple[zmq.MessageTracker, int]"
"""A frame that ZeroMQ may still hold, and its size."""

_HEARTBEAT = "HOTPLUG_RPC_HEARTBEAT"
_SECONDS = 10.0


def heartbeat_ms() -> int:
    """HOTPLUG_RPC_HEARTBEAT: after how long a silent peer is given up.

    Raises:
        SettingsError: it is no number of seconds.
    """
    return round(1000 * seconds_of(_HEARTBEAT, _SECONDS, 3600))


def prepare(socket: zmq.Socket[bytes], identity: Identity, silence: int, *, ipv6: bool) -> None:
    """Set who we are, and for how many ms a silent peer is asked whether it is there."""
    options: dict[int, int | bytes] = {
        zmq.CURVE_PUBLICKEY: identity.public,
        zmq.CURVE_SECRETKEY: identity.secret,
        zmq.HANDSHAKE_IVL: HANDSHAKE_MS,
        zmq.HEARTBEAT_IVL: max(1, silence // 5),
        zmq.HEARTBEAT_TIMEOUT: silence,
        zmq.HEARTBEAT_TTL: silence,
        zmq.IPV6: int(ipv6),
    }
    for option, value in options.items():
        socket.set(option, value)


def dealer(server_key: bytes, identity: Identity, *, ipv6: bool) -> zmq.Socket[bytes]:
    """A client's socket, which is for one connection to the server with that key."""
    silence = heartbeat_ms()
    made: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    prepare(made, identity, silence, ipv6=ipv6)
    options: dict[int, int | bytes] = {
        zmq.CURVE_SERVERKEY: server_key,
        zmq.LINGER: 0,
        zmq.SNDHWM: 0,  # bounded by what may be pending
        zmq.RCVHWM: 0,
        zmq.IMMEDIATE: 1,
        zmq.RECONNECT_IVL: -1,  # a new connection would be a new session
        zmq.CONNECT_TIMEOUT: HANDSHAKE_MS,
        zmq.MAXMSGSIZE: _MOST_FRAME,
    }
    for option, value in options.items():
        made.set(option, value)
    return made


def send_frames(
    socket: zmq.Socket[bytes], frames: Sequence[Any], flags: int = 0, *, track: bool = False
) -> list[Unsent]:
    """Send one message, large frames as they lie: they must not change until they have arrived.

    Returns:
        With `track`, those of its frames that are large.

    Raises:
        ZMQError: the first frame cannot be sent; then none was.
    """
    last = len(frames) - 1
    unsent: list[Unsent] = []
    for at, frame in enumerate(frames):
        more = zmq.SNDMORE if at < last else 0
        if len(frame) < _LARGE:
            socket.send(frame, flags | more)
            continue
        tracked = track and len(frame) >= _TRACKED
        tracker = socket.send(frame, flags | more, copy=False, track=tracked)
        if tracker is not None:
            unsent.append((tracker, len(frame)))
    return unsent
