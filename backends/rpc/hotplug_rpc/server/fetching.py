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


def fetch_from(identity: Identity, endpoint: str, key: str, ticket: str) -> list[memoryview]:
    """Redeem a ticket.

    Raises:
        ProtocolError: the endpoint is no address.
        RemoteError: the other server does not answer, or does not know the ticket.
    """
    try:
        address = parse_address(endpoint)
    except UsageError as error:
        raise ProtocolError(str(error)) from error
    connection = Connection(address, bytes.fromhex(key), identity, _SECONDS)
    try:
        return connection.request(Redeem(ticket)).frames
    finally:
        connection.leave()
