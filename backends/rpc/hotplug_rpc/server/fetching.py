"""Bytes from another server, for a client of both."""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Iterator

from hotplug.errors import UsageError
from hotplug_rpc.addresses import Address, by_number, parse_address
from hotplug_rpc.client.connection import Connection
from hotplug_rpc.client.pending import Pending
from hotplug_rpc.errors import ProtocolError, ServerLostError, VersionError
from hotplug_rpc.keys import Identity
from hotplug_rpc.requests import Redeem
from hotplug_rpc.server.peers import seconds_for

__all__ = ["IN_FLIGHT", "fetch_from"]

_SECONDS = 30.0
_BESIDES = 4 << 20
"""Bytes that a server may send beside what is fetched and its encryption, a 64th of it at most."""

_PIECE = 1 << 20
IN_FLIGHT = 32
"""Pieces on their way: what a link of a gigabit holds at a round trip of a quarter of a second."""
_MINOR = 2
"""Of the protocol's first version in which tickets are redeemed piece by piece."""


def fetch_from(
    identity: Identity, endpoint: str, key: str, ticket: str, nbytes: int, nearby: bool
) -> Iterator[memoryview]:
    """Redeem a ticket for so many bytes. The server is one that a client named: it is not believed.

    Args:
        identity: who this server is.
        endpoint: where the other one is.
        key: its public key, in hex.
        ticket: what it gave to the client.
        nbytes: how many.
        nearby: whether it may be at an address that this machine alone reaches.

    Yields:
        Pieces, in order; few are held at a time.

    Raises:
        ProtocolError: the endpoint is no address, or a piece has another length.
        ServerLostError: it cannot be reached, or must not be.
        VersionError: the other server would send all at once.
        RemoteError: the other server does not answer, or does not know the ticket.
    """
    try:
        address = parse_address(endpoint)
    except UsageError as error:
        raise ProtocolError(str(error)) from error
    if not nearby:
        address = _elsewhere(address)
    most = nbytes + nbytes // 64 + _BESIDES
    connection = Connection(address, bytes.fromhex(key), identity, _SECONDS, most)
    try:
        if connection.minor < _MINOR:
            raise VersionError(f"{address.server} does not send a buffer in pieces")
        yield from _pieces(connection, ticket, nbytes)
    finally:
        connection.leave()


def _elsewhere(address: Address) -> Address:
    """The same by number, so that its name cannot come to mean another one.

    What listens on loopback trusts whoever reaches it, and a client of another machine must not do
    so by way of this server. The same goes for a link's own addresses, such as those of clouds.

    Raises:
        ServerLostError: it is such an address, or none at all.
    """
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ServerLostError(f"{address.server} is not known: {error}") from error
    numbers = [str(row[4][0]) for row in found]
    if any(map(_is_own, numbers)):
        raise ServerLostError(f"{address.server} is for this machine alone, and its client is not")
    return Address(numbers[0], address.port)


def _is_own(number: str) -> bool:
    ip = by_number(number.partition("%")[0])
    return ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast


def _pieces(connection: Connection, ticket: str, nbytes: int) -> Iterator[memoryview]:
    until = time.monotonic() + seconds_for(nbytes)
    flight: deque[tuple[int, Pending]] = deque()

    def landed() -> memoryview:
        count, pending = flight.popleft()
        left = min(_SECONDS, until - time.monotonic())
        (piece,) = connection.wait(pending, left).contents([count])
        return piece

    for at in range(0, nbytes, _PIECE):
        if len(flight) == IN_FLIGHT:
            yield landed()
        count = min(_PIECE, nbytes - at)
        flight.append((count, connection.submit(Redeem(ticket, count))))
    while flight:
        yield landed()
