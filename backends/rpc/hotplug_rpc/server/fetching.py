"""Bytes from another server, for a client of both."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

from hotplug.errors import UsageError
from hotplug_rpc.addresses import parse_address
from hotplug_rpc.client.connection import Connection
from hotplug_rpc.client.pending import Pending
from hotplug_rpc.errors import ProtocolError, VersionError
from hotplug_rpc.keys import Identity
from hotplug_rpc.requests import Redeem
from hotplug_rpc.server.peers import seconds_for

__all__ = ["fetch_from"]

_SECONDS = 30.0
_BESIDES = 4 << 20
"""Bytes that a server may send beside what is fetched and its encryption, a 64th of it at most."""

_PIECE = 1 << 20
_IN_FLIGHT = 4
_MINOR = 2
"""Of the protocol's first version in which tickets are redeemed piece by piece."""


def fetch_from(
    identity: Identity, endpoint: str, key: str, ticket: str, nbytes: int
) -> Iterator[memoryview]:
    """Redeem a ticket for so many bytes. The server is one that a client named: it is not believed.

    Yields:
        Pieces, in order; few are held at a time.

    Raises:
        ProtocolError: the endpoint is no address, or a piece has another length.
        VersionError: the other server would send all at once.
        RemoteError: the other server does not answer, or does not know the ticket.
    """
    try:
        address = parse_address(endpoint)
    except UsageError as error:
        raise ProtocolError(str(error)) from error
    most = nbytes + nbytes // 64 + _BESIDES
    connection = Connection(address, bytes.fromhex(key), identity, _SECONDS, most)
    try:
        if connection.minor < _MINOR:
            raise VersionError(f"{address.server} does not send a buffer in pieces")
        yield from _pieces(connection, ticket, nbytes)
    finally:
        connection.leave()


def _pieces(connection: Connection, ticket: str, nbytes: int) -> Iterator[memoryview]:
    until = time.monotonic() + seconds_for(nbytes)
    flight: deque[tuple[int, Pending]] = deque()

    def landed() -> memoryview:
        count, pending = flight.popleft()
        left = min(_SECONDS, until - time.monotonic())
        (piece,) = connection.wait(pending, left).contents([count])
        return piece

    for at in range(0, nbytes, _PIECE):
        if len(flight) == _IN_FLIGHT:
            yield landed()
        count = min(_PIECE, nbytes - at)
        flight.append((count, connection.submit(Redeem(ticket, count))))
    while flight:
        yield landed()
