"""Connections that come to nothing: noise, half a greeting, a handshake for another server's key.

ZeroMQ asks the `Door` about sound handshakes alone. Its monitor names connections by descriptors,
and so do messages: one that ends before its first message has failed. Where an address has too
many of them, further ones are ended before anything is read.
"""

from __future__ import annotations

from hotplug_rpc.addresses import is_loopback
from hotplug_rpc.descriptors import peer_address, shut_down
from hotplug_rpc.server.tally import Tally, site_of

__all__ = ["Strangers"]

_MOST, _SECONDS = 60, 60.0
_MOST_KNOWN = 4096


class Strangers:
    """Who has connected and said nothing yet, and how often that came to nothing.

    Not limited are loopback addresses, whose users would keep each other out, and places that a
    client came in from before, for the same reason.
    """

    def __init__(self) -> None:
        self._silent: dict[int, str] = {}
        self._known: dict[str, None] = {}
        self._failures = Tally(_MOST, _SECONDS)

    def opened(self, descriptor: int) -> bool:
        """A connection was made; False if it was ended at once."""
        address = peer_address(descriptor)
        if address is None or is_loopback(address):
            return True
        site = site_of(address)
        if site in self._known:
            return True
        if self._failures.is_full(site):
            shut_down(descriptor)
            return False
        self._silent[descriptor] = site
        return True

    def delivered(self, descriptor: int) -> None:
        """A message came, so that its client has been let in."""
        site = self._silent.pop(descriptor, None)
        if site is not None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.pop(next(iter(self._known)))
            self._known[site] = None

    def closed(self, descriptor: int) -> None:
        """A connection has ended."""
        site = self._silent.pop(descriptor, None)
        if site is not None:
            self._failures.add(site)
