"""Bytes from another server, for a client of both."""

from __future__ import annotations

from hotplug.errors import UsageError
from hotplug_rpc.addresses import parse_address
from hotplug_rpc.client.connection import Connection
from hotplug_rpc.errors import ProtocolError
from hotplug_rpc.keys import Identity
from hotplug_rpc.requests import Redeem

__all__ = ["fetch_from"]

_SECONDS = 30.0
_BESIDES = 4 << 20
"""Bytes that a server may send beside what is fetched and its encryption, a 64th of it at most."""


def fetch_from(
    identity: Identity, endpoint: str, key: str, ticket: str, nbytes: int
) -> list[memoryview]:
    """Redeem a ticket for so many bytes. The server is one that a client named: it is not believed.

    Raises:
        ProtocolError: the endpoint is no address.
        RemoteError: the other server does not answer, or does not know the ticket.
    """
    try:
        address = parse_address(endpoint)
    except UsageError as error:
        raise ProtocolError(str(error)) from error
    most = nbytes + nbytes // 64 + _BESIDES
    connection = Connection(address, bytes.fromhex(key), identity, _SECONDS, most)
    try:
        return connection.request(Redeem(ticket)).frames
    finally:
        connection.leave()
