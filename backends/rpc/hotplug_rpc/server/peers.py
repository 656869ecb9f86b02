"""Copies between two servers: tickets that are given out, and what is fetched with others'."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass

from hotplug.errors import RemoteError, UsageError
from hotplug_rpc.errors import ServerLostError, SessionError
from hotplug_rpc.server.holdings import HeldBuffer

__all__ = ["Fetcher", "Peers", "seconds_for"]

_SECONDS = 30.0
_SLOWEST = 1 << 20
_MOST = 1024

_log = logging.getLogger("hotplug.rpc")

Fetcher = Callable[[str, str, str, int, bool], Iterable[memoryview]]
"""Endpoint, that server's key, ticket, how many bytes, and whether it may be on this machine ->
bytes in pieces."""


def seconds_for(nbytes: int) -> float:
    """How long another server may take for so many bytes: a MiB a second is slow."""
    return _SECONDS + nbytes / _SLOWEST


@dataclass(slots=True)
class _Issued:
    held: HeldBuffer
    peer: str
    until: float
    given: int = 0  # bytes, from the beginning on


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
            until = time.monotonic() + seconds_for(held.nbytes)
            self._issued[ticket] = _Issued(held, peer, until)
        return ticket

    def expects(self, peer: str) -> bool:
        """Whether a ticket is out for this public key."""
        with self._lock:
            self._forget_old()
            return any(issued.peer == peer for issued in self._issued.values())

    def redeem(
        self, ticket: str, peer: str, nbytes: int | None, most: int
    ) -> tuple[HeldBuffer, int, int]:
        """The next bytes of a ticket, which is used up with the last: buffer, offset, how many.

        Args:
            ticket: what `issue` gave.
            peer: who redeems it.
            nbytes: how many; None for all that are left.
            most: that are given at once.

        Raises:
            SessionError: there is no such ticket for this peer.
            UsageError: it gives fewer bytes, or that is too much at once.
        """
        with self._lock:
            self._forget_old()
            issued = self._issued.get(ticket)
            if issued is None or issued.peer != peer:
                raise SessionError("there is no such ticket; one is good once, and not for long")
            at, left = issued.given, issued.held.nbytes - issued.given
            count = left if nbytes is None else nbytes
            if count > min(left, most):
                raise UsageError(f"{count} bytes are not given at once, but {min(left, most)}")
            issued.given += count
            if count == left:
                del self._issued[ticket]
            return issued.held, at, count

    def fetch(
        self, endpoint: str, key: str, ticket: str, nbytes: int, *, nearby: bool
    ) -> Generator[memoryview]:
        """So many bytes from another server, in pieces.

        Args:
            endpoint: where it is, as a client says.
            key: its public key, in hex.
            ticket: what it gave to the client.
            nbytes: how many.
            nearby: whether it may be on this machine.

        Raises:
            SessionError: this server does not do that.
            RemoteError: the other one does not answer, or refuses.
        """
        if self._fetch is None:
            raise SessionError("this server does not fetch from others")
        try:
            yield from self._fetch(endpoint, key, ticket, nbytes, nearby)
        except ServerLostError as error:  # which is the other one, and not this
            # Why is for this server's log: a client could find out what listens where.
            _log.info("nothing is fetched from another server: %s", error)
            raise RemoteError(f"it cannot fetch from {endpoint}") from error

    def _forget_old(self) -> None:
        now = time.monotonic()
        for ticket in [t for t, issued in self._issued.items() if issued.until < now]:
            del self._issued[ticket]
