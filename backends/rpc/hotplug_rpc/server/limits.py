"""What a server allows; told to clients in the answer to HELLO."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds. See docs/protocol.md.

    Attributes:
        frame_bytes: of one frame; ZeroMQ refuses more before it takes memory for it.
        nodes: of a graph.
        waiting: requests of a session that are not answered yet.
        waiting_bytes: their payloads.
        handles: buffers, executables and bindings of a session, each.
        client_bytes: device memory of a session, on all devices; None for no limit of its own.
        sessions: of a server.
        stalled_seconds: how long a client may leave its answers unread.
    """

    frame_bytes: int = 16 << 20
    nodes: int = 100_000
    waiting: int = 256
    waiting_bytes: int = 64 << 20
    handles: int = 65_536
    client_bytes: int | None = None
    sessions: int = 256
    stalled_seconds: float = 30.0
