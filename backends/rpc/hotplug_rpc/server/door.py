"""Who comes in: ZeroMQ asks here about every client whose handshake was sound.

Source: https://rfc.zeromq.org/spec/27/ (ZAP).
"""

from __future__ import annotations

import ipaddress
import logging
import time
from collections import deque
from collections.abc import Collection, Sequence

from hotplug_rpc.errors import KeyFileError
from hotplug_rpc.keys import KeyRing
from hotplug_rpc.server.metrics import Metrics
from hotplug_rpc.server.peers import Peers

__all__ = ["Door"]

_log = logging.getLogger("hotplug.rpc")

_ADMITTED, _LATER, _REFUSED = b"200", b"300", b"400"
_MOST_REFUSALS, _SECONDS = 20, 60.0
_MOST_ADDRESSES = 4096
_SITE_BITS = 64  # what a network of IPv6 gives to one site, which has all addresses within


class Door:
    """The list of keys, read again when its file changes, and the count of refusals.

    Args:
        keys: where the list is.
        extra: further public keys that may come in.
        peers: whose tickets let other servers in.
    """

    def __init__(
        self, keys: KeyRing, extra: Collection[bytes], peers: Peers, metrics: Metrics
    ) -> None:
        self._keys = keys
        self._own = frozenset({keys.identity().public, *extra})
        self._peers = peers
        self._metrics = metrics
        self._stamp = (-1, -1)
        self._names: dict[bytes, str] = {}
        self._refusals: dict[str, deque[float]] = {}
        self._turned_away: dict[bytes, float] = {}

    def knows(self, key: bytes) -> bool:
        """Whether a client may use devices."""
        return key in self._own or key in self._listed()

    def _listed(self) -> dict[bytes, str]:
        stamp = self._keys.stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._names = self._keys.allowed()
            except KeyFileError as error:
                self._names = {}  # a list that cannot be read lets nobody in
                _log.error("nobody on the list is let in: %s", error)
        return self._names

    def turn_away(self, key: bytes) -> None:
        """Let a client that broke the rules not come in for a while, but for the user's own."""
        if key not in self._own:
            self._turned_away[key] = time.monotonic() + _SECONDS

    def answer(self, question: Sequence[bytes]) -> list[bytes]:
        """ZAP's reply to one of its requests."""
        version, number, _, address, _, mechanism = question[:6]
        key = question[6] if len(question) > 6 and mechanism == b"CURVE" else b""
        status = self._decide(key, address.decode("utf-8", "replace"))
        user = key.hex().encode() if status == _ADMITTED else b""
        return [version, number, status, b"", user, b""]

    def _decide(self, key: bytes, address: str) -> bytes:
        if self._turned_away.get(key, 0.0) > time.monotonic():
            return self._later()
        # Asked for a key that is known, ZeroMQ has checked already that it is the client's own:
        # what others did from the same address must not keep it out.
        if len(key) == 32 and (self.knows(key) or self._peers.expects(key.hex())):
            return _ADMITTED
        if self._is_banned(address):
            return self._later()
        refusals = self._refusals.setdefault(_site(address), deque(maxlen=_MOST_REFUSALS))
        refusals.append(time.monotonic())
        self._metrics.add("refused_total", 1, 'reason="key"')
        _log.warning("refused a client whose key is not allowed", extra={"address": address})
        return _REFUSED

    def _later(self) -> bytes:
        self._metrics.add("refused_total", 1, 'reason="rate"')
        return _LATER

    def _is_banned(self, address: str) -> bool:
        if len(self._refusals) > _MOST_ADDRESSES:
            self._refusals.pop(next(iter(self._refusals)))
        found = self._refusals.get(_site(address))
        if found is None or len(found) < _MOST_REFUSALS:
            return False
        return time.monotonic() - found[0] < _SECONDS


def _site(address: str) -> str:
    """What is counted as one place that clients come from."""
    try:
        six = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    return str(six.ipv4_mapped or ipaddress.IPv6Network((int(six), _SITE_BITS), strict=False))
