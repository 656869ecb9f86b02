"""Who comes in: ZeroMQ asks here about every client whose handshake was sound.

Source: https://rfc.zeromq.org/spec/27/ (ZAP).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence

from hotplug_rpc.errors import KeyFileError
from hotplug_rpc.keys import KeyRing
from hotplug_rpc.server.metrics import Metrics
from hotplug_rpc.server.peers import Peers
from hotplug_rpc.server.tally import Tally, site_of

__all__ = ["Door"]

_log = logging.getLogger("hotplug.rpc")

_ADMITTED, _LATER, _REFUSED = b"200", b"300", b"400"
_MOST_REFUSALS, _SECONDS = 20, 60.0


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
        self._refusals = Tally(_MOST_REFUSALS, _SECONDS)
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
        if self._refusals.is_full(site_of(address)):
            return self._later()
        self._refusals.add(site_of(address))
        self._metrics.add("refused_total", 1, 'reason="key"')
        _log.warning("refused a client whose key is not allowed", extra={"address": address})
        return _REFUSED

    def _later(self) -> bytes:
        self._metrics.add("refused_total", 1, 'reason="rate"')
        return _LATER
