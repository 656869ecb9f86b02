"""Weights to a server: hashed here, asked for there, and sent only where they are missing."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from hotplug import progress
from hotplug.errors import HotplugError
from hotplug_rpc.client.hashes import Hashes
from hotplug_rpc.client.lending import can_lend, lend
from hotplug_rpc.client.pending import Pending
from hotplug_rpc.errors import ContentError, ProtocolError
from hotplug_rpc.requests import Content, Want, Weights

if TYPE_CHECKING:
    from hotplug_rpc.client.connection import Connection
    from hotplug_rpc.client.device import RemoteDevice

__all__ = ["WAYS", "Ahead", "upload"]

_log = logging.getLogger("hotplug.rpc")

_ROWS = 4096
"""Weights asked for in one message."""

_BATCH = 24 << 20
"""Bytes of weights that are hashed while others are brought."""

_PIECE = 4 << 20
_IN_FLIGHT = 64


@dataclass(frozen=True, slots=True)
class _Weight:
    handle: int
    digest: str
    data: memoryview


_Missing: TypeAlias = "tuple[_Weight, int]"
"""A weight, and the bytes of it that are there."""

_Way: TypeAlias = "Callable[[Connection, list[_Missing]], Iterator[int]]"


def upload(
    device: RemoteDevice, data: Sequence[memoryview], hashes: Hashes | None = None
) -> list[int]:
    """Bring several read-only memories to a device; returns handles of their buffers.

    Args:
        device: where they go.
        data: what they hold.
        hashes: that may be known already.

    Raises:
        OutOfDeviceMemoryError: the device has no room for them.
        ContentError: the server cannot keep what was sent.
        HotplugError: the connection is lost.
    """
    if not data:
        return []
    hashes = hashes or Hashes()
    digests = _hashed(device, data, hashes)
    hashes.keep()
    weights = [
        _Weight(device.connection.new_handle(), digest, item)
        for digest, item in zip(digests, data, strict=True)
    ]
    try:
        for start in range(0, len(weights), _ROWS):
            _place(device, weights[start : start + _ROWS])
    except BaseException:
        device.free_handles([weight.handle for weight in weights])
        raise
    return [weight.handle for weight in weights]


def _hashed(device: RemoteDevice, data: Sequence[memoryview], hashes: Hashes) -> list[str]:
    total = sum(item.nbytes for item in data)
    with progress.task(f"hash weights for {device.id}", total) as advance:
        return hashes.of(data, advance)


class Ahead:
    """Brings weights to a server in a thread of its own, before a device is to have them.

    What fails here is done again, and told, when they are asked for.

    Attributes:
        hashes: of the weights, once they are brought.
    """

    def __init__(self, device: RemoteDevice, data: Sequence[memoryview]) -> None:
        self._device = device
        self._data = data
        self.hashes = Hashes()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="hotplug-rpc-ahead", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Return when all is there, or cannot be brought."""
        self._thread.join()

    def stop(self) -> None:
        """Bring no more."""
        self._stopped = True

    def _run(self) -> None:
        try:
            with ThreadPoolExecutor(1) as pool:  # hashes the next ones while these are brought
                batches = _batches(self._data)
                hashed = [pool.submit(self._hashed, batch) for batch in islice(batches, 1)]
                while hashed and not self._stopped:
                    weights = hashed.pop().result()
                    hashed = [pool.submit(self._hashed, batch) for batch in islice(batches, 1)]
                    self._bring(weights)
        except (HotplugError, RuntimeError) as error:  # the latter where the program ends just now
            _log.info("weights are not brought ahead: %s", error)

    def _hashed(self, data: Sequence[memoryview]) -> list[_Weight]:
        digests = _hashed(self._device, data, self.hashes)
        return [_Weight(0, digest, item) for digest, item in zip(digests, data, strict=True)]

    def _bring(self, weights: list[_Weight]) -> None:
        wanted = Want(self._device.position, [(w.digest, w.data.nbytes) for w in weights])
        for how, way, can in WAYS:
            if self._stopped or not can(self._device.connection):
                continue
            missing = _missing(self._device.connection.request(wanted), weights)
            if _deliver(self._device, missing, how, way, lambda: self._stopped):
                return


def _batches(data: Sequence[memoryview]) -> Iterator[Sequence[memoryview]]:
    start = nbytes = 0
    for at, item in enumerate(data, start=1):
        nbytes += item.nbytes
        if nbytes >= _BATCH or at - start >= _ROWS or at == len(data):
            yield data[start:at]
            start, nbytes = at, 0


def _place(device: RemoteDevice, weights: list[_Weight]) -> None:
    missing = _ask(device, weights)
    for how, way, can in WAYS:
        if missing and can(device.connection):
            _deliver(device, missing, how, way)
            missing = _ask(device, [weight for weight, _ in missing])
    if missing:
        raise ContentError(
            f"{device.connection.address.server} does not keep {len(missing)} weights that were "
            "sent",
            endpoint=device.connection.address.server,
        )


def _ask(device: RemoteDevice, weights: list[_Weight]) -> list[_Missing]:
    """The weights that are not there, each with the bytes that are; one of equal ones."""
    rows = [(w.handle, w.digest, w.data.nbytes) for w in weights]
    return _missing(device.ask(Weights(device.position, rows)), weights)


def _missing(answer: Pending, weights: list[_Weight]) -> list[_Missing]:
    try:
        return [(weights[at], int(held)) for at, held in answer.body.get("missing", [])]
    except (TypeError, ValueError, IndexError) as error:
        raise ProtocolError(f"the server says wrongly what is missing: {error}") from error


def _deliver(
    device: RemoteDevice,
    missing: list[_Missing],
    how: str,
    way: _Way,
    stopped: Callable[[], bool] = lambda: False,
) -> bool:
    """Bring weights by one of the ways, until stopped; whether all of them are on their way."""
    different = list({weight.digest: (weight, held) for weight, held in missing}.values())
    total = sum(weight.data.nbytes - held for weight, held in different)
    done = 0
    with progress.task(f"{how} weights to {device.id}", total) as advance:
        for nbytes in way(device.connection, different):
            done += nbytes
            advance(done)
            if stopped():
                break
    return done == total


def _lent(connection: Connection, missing: list[_Missing]) -> Iterator[int]:
    """Lend the files that weights are of; yields bytes that the server has."""
    return lend(connection, [(weight.digest, weight.data) for weight, _ in missing])


def _sent(connection: Connection, missing: list[_Missing]) -> Iterator[int]:
    """Send weights in pieces, from where an earlier transfer ended; yields bytes on their way."""
    flight: deque[Pending] = deque()
    step = min(_PIECE, connection.frame_bytes)
    for weight, held in missing:
        flat = weight.data.cast("B")
        for at in range(held, flat.nbytes, step):
            if len(flight) >= _IN_FLIGHT:
                connection.wait(flight.popleft())
            piece = flat[at : at + step]
            request = Content(weight.digest, flat.nbytes, at)
            flight.append(connection.submit(request, [piece]))
            yield piece.nbytes
    while flight:
        connection.wait(flight.popleft())


WAYS: tuple[tuple[str, _Way, Callable[[Connection], bool]], ...] = (
    ("lend", _lent, can_lend),
    ("send", _sent, lambda _: True),
)
"""How weights come to a server, the better way first, and whether it can be gone."""
