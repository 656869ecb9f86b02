"""What a server allows; told to clients in the answer to HELLO."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from hotplug_rpc.errors import LimitError

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds. See docs/protocol.md.

    Attributes:
        frame_bytes: of one frame; ZeroMQ refuses more before it takes memory for it.
        nodes: of a graph.
        waiting: requests of a session that are not answered yet.
        waiting_bytes: their payloads.
        handles: buffers and executables of all sessions of a client together; each takes memory of
            the host, besides what it holds.
        compiled_nodes: of all executables of a session together.
        client_bytes: device memory of all sessions of a client, on all devices; None for no limit
            of its own.
        sessions: of a server.
        client_sessions: of one client.
        run_seconds: that a run may keep a device for; None for no limit.
        stalled_seconds: how long a client may leave its answers unread.
    """

    frame_bytes: int = 16 << 20
    nodes: int = 100_000
    waiting: int = 256
    waiting_bytes: int = 64 << 20
    handles: int = 65_536
    compiled_nodes: int = 500_000
    client_bytes: int | None = None
    sessions: int = 256
    client_sessions: int = 128
    run_seconds: float | None = None
    stalled_seconds: float = 30.0

    def check_sessions(self, client: str, open_: Collection[str]) -> None:
        """Refuse one session too many.

        Args:
            client: that wants one.
            open_: clients of the sessions that there are.

        Raises:
            LimitError: the server has all that it takes, or the client.
        """
        if len(open_) >= self.sessions:
            raise LimitError(
                f"the server has {self.sessions} sessions, which is all it takes",
                limit=self.sessions,
            )
        if sum(other == client for other in open_) >= self.client_sessions:
            raise LimitError(
                f"this client has {self.client_sessions} sessions, which is all it may have",
                limit=self.client_sessions,
            )

    def check_waiting(self, requests: int, held: int, more: int) -> None:
        """Refuse a request of a session in which others wait.

        Args:
            requests: that wait.
            held: bytes of their payloads.
            more: bytes of its own.

        Raises:
            LimitError: they are too many, or too many bytes.
        """
        if requests >= self.waiting:
            raise LimitError(
                f"{requests} requests wait; no more are taken",
                limit=self.waiting,
                given=requests + 1,
            )
        if requests and held + more > self.waiting_bytes:
            raise LimitError(
                f"{held + more} bytes wait; at most {self.waiting_bytes} are taken",
                limit=self.waiting_bytes,
                given=held + more,
            )
