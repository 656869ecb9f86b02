"""How often something has happened lately at each of many places that clients come from."""

from __future__ import annotations

import ipaddress
import time
from collections import deque

__all__ = ["Tally", "site_of"]

_MOST_PLACES = 4096
_SITE_BITS = 64  # what a network of IPv6 gives to one site, which has all addresses within


class Tally:
    """A count for each place, of the last minute or so.

    Args:
        most: how often it may happen at one place.
        seconds: within which time.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._times: dict[str, deque[float]] = {}

    def add(self, place: str) -> None:
        """It has happened once more."""
        if len(self._times) >= _MOST_PLACES and place not in self._times:
            self._times.pop(next(iter(self._times)))
        self._times.setdefault(place, deque(maxlen=self._most)).append(time.monotonic())

    def is_full(self, place: str) -> bool:
        """Whether it has happened there as often as it may."""
        times = self._times.get(place)
        if times is None or len(times) < self._most:
            return False
        return time.monotonic() - times[0] < self._seconds

    def __len__(self) -> int:
        """Places that are kept in mind."""
        return len(self._times)


def site_of(address: str) -> str:
    """What is counted as one place that clients come from."""
    try:
        six = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    return str(six.ipv4_mapped or ipaddress.IPv6Network((int(six), _SITE_BITS), strict=False))
