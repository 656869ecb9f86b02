"""Copies between two servers: tickets that are given out, and what is fetched with others'."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from hotplug.errors import RemoteError
from hotplug_rpc.errors import ServerLostError, SessionError
from hotplug_rpc.server.holdings import HeldBuffer

__all__ = ["Fetcher", "Peers"]

_SECONDS = 30.0
_MOST = 1024

Fetcher = Callable[[str, str, str, int], list[memoryview]]
"""Endpoint, that server's key, ticket, how many bytes -> bytes in pieces."""


@dataclass(frozen=True, slots=True)
class _Issued:
    held: HeldBuffer
    peer: str
    until: float


class Peers:
    """Tickets of one server.

    Args:
        fetch: gets bytes from another server; None where sessions are kept apart from others.
    """

    def __init__(self, fetch: Fetcher | None = None) -> None:
        self._fetch = fetch
        self._issued: dict[str, _Issued] = {}
        self._lock = threading.Lock()

    def issue(self, held: HeldBuffer, peer: str) -> str:
        """A new ticket for the server with this public key.

        Raises:
            SessionError: too many are out, or this server gives none.
        """
        if self._fetch is None:
            raise SessionError("this server has nothing to do with others")
        ticket = secrets.token_hex(32)
        with self._lock:
            self._forget_old()
            if len(self._issued) >= _MOST:
                raise SessionError("too many tickets are out; try again later")
            self._issued[ticket] = _Issued(held, peer, time.monotonic() + _SECONDS)
        return ticket

    def expects(self, peer: str) -> bool:
        """Whether a ticket is out for this public key."""
        with self._lock:
            self._forget_old()
            return any(issued.peer == peer for issued in self._issued.values())

    def redeem(self, ticket: str, peer: str) -> HeldBuffer:
        """The buffer of a ticket, which is used up thereby.

        Raises:
            SessionError: there is no such ticket for this peer.
        """
        with self._lock:
            self._forget_old()
            issued = self._issued.get(ticket)
            if issued is None or issued.peer != peer:
                raise SessionError("there is no such ticket; one is good once, for 30 seconds")
            del self._issued[ticket]
            return issued.held

    def fetch(self, endpoint: str, key: str, ticket: str, nbytes: int) -> list[memoryview]:
        """So many bytes from another server.

        Raises:
            SessionError: this server does not do that.
            RemoteError: the other one does not answer, or refuses.
        """
        if self._fetch is None:
            raise SessionError("this server does not fetch from others")
        try:
            return self._fetch(endpoint, key, ticket, nbytes)
        except ServerLostError as error:  # which is the other one, and not this
            raise RemoteError(f"it cannot fetch from another server: {error}") from error

    def _forget_old(self) -> None:
        now = time.monotonic()
        for ticket in [t for t, issued in self._issued.items() if issued.until < now]:
            del self._issued[ticket]
