"""Answers on their way out: sent, or kept for a client that does not read, as far as that may go.

ZeroMQ counts messages, of which 64 may be a gigabyte. So large frames are followed until they have
left, and what goes beyond a client's share waits here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import zmq

from hotplug_rpc.sockets import Unsent, send_frames

__all__ = ["Message", "Outgoing"]

Message: TypeAlias = "list[bytes | bytearray]"

_MOST_UNSENT = 32 << 20
"""Bytes in ZeroMQ's queue for one client; one message may go beyond."""

_MOST_KEPT = 128 << 20
"""Bytes kept here for one client."""

_MOST_KEPT_IN_ALL = 1 << 30


@dataclass(slots=True)
class _Kept:
    """For a client that does not read as fast as it asks."""

    since: float
    messages: deque[Message] = field(default_factory=deque)
    nbytes: int = 0


class Outgoing:
    """Sends to clients. For one thread.

    Args:
        router: the server's socket.
        seconds: how long a client may leave its answers unread.
        end: ends a client's session, for a reason.
    """

    def __init__(
        self, router: zmq.Socket[bytes], seconds: float, end: Callable[[bytes, str], None]
    ) -> None:
        self._router = router
        self._seconds = seconds
        self._end = end
        self._kept: dict[bytes, _Kept] = {}
        self._unsent: dict[bytes, deque[Unsent]] = {}

    @property
    def waits(self) -> bool:
        """Whether anything is kept."""
        return bool(self._kept)

    def send(self, peer: bytes, message: Message) -> None:
        """Send, or keep for later."""
        if peer not in self._kept and self._sent(peer, message):
            return
        kept = self._kept.setdefault(peer, _Kept(time.monotonic()))
        kept.messages.append(message)
        kept.nbytes += _size(message)
        if sum(one.nbytes for one in self._kept.values()) > _MOST_KEPT_IN_ALL:
            self._give_up(max(self._kept, key=lambda one: self._kept[one].nbytes))

    def nudge(self, peer: bytes, message: Message) -> None:
        """Send what does not matter, if there is room."""
        if peer not in self._kept:
            self._sent(peer, message)

    def retry(self) -> None:
        """Try again to send what is kept."""
        for peer, kept in tuple(self._kept.items()):
            while kept.messages and self._sent(peer, kept.messages[0]):
                kept.nbytes -= _size(kept.messages.popleft())
                kept.since = time.monotonic()
            if not kept.messages:
                del self._kept[peer]
            elif kept.nbytes > _MOST_KEPT or time.monotonic() - kept.since > self._seconds:
                self._give_up(peer)

    def _give_up(self, peer: bytes) -> None:
        del self._kept[peer]
        self._end(peer, "the client does not read its answers")

    def _sent(self, peer: bytes, message: Message) -> bool:
        """Send, or drop what is for a client that is gone; False if there is no room now."""
        unsent = self._still_unsent(peer)
        if sum(nbytes for _, nbytes in unsent) > _MOST_UNSENT:
            return False
        try:
            fresh = send_frames(self._router, [peer, *message], zmq.NOBLOCK, track=True)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._end(peer, "the connection is gone")
            return True
        if fresh:
            self._unsent.setdefault(peer, deque()).extend(fresh)
        return True

    def _still_unsent(self, peer: bytes) -> Sequence[Unsent]:
        unsent = self._unsent.get(peer)
        if unsent is None:
            return ()
        while unsent and unsent[0][0].done:
            unsent.popleft()
        if not unsent:
            del self._unsent[peer]
        return unsent

    def forget_sent(self) -> None:
        """Let go of what has left, of clients that are gone too."""
        for peer in tuple(self._unsent):
            self._still_unsent(peer)


def _size(message: Message) -> int:
    return sum(map(len, message))
