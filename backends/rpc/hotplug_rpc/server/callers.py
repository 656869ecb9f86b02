"""Connections that messages came by, and whose keys they bear."""

from __future__ import annotations

from collections.abc import Callable

from hotplug_rpc.descriptors import shut_down

__all__ = ["Callers"]


class Callers:
    """Open connections by descriptor. Those whose key is taken off the list are ended."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[bytes, bytes]] = {}
        self._told: set[int] = set()

    def delivered(self, descriptor: int, peer: bytes, key: bytes) -> None:
        """A message came, from a routing id and the owner of a key."""
        self._open[descriptor] = peer, key

    def closed(self, descriptor: int) -> None:
        """A connection has ended."""
        self._open.pop(descriptor, None)
        self._told.discard(descriptor)

    def end_unwelcome(self, welcome: Callable[[bytes, bytes], bool]) -> None:
        """End those that are not welcome, by routing id and key, and were not the last time either.

        Until then they are answered, so that a client learns what has become of its key.
        """
        unwelcome = {fd for fd, caller in self._open.items() if not welcome(*caller)}
        for descriptor in unwelcome & self._told:
            shut_down(descriptor)
        self._told = unwelcome
