"""Weights to a server: hashed here, asked for there, and sent only where they are missing."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hotplug import progress
from hotplug_rpc.client.exchange import Pending
from hotplug_rpc.contents import digest_of
from hotplug_rpc.errors import ContentError
from hotplug_rpc.requests import Content, Weights

if TYPE_CHECKING:
    from hotplug_rpc.client.device import RemoteDevice

__all__ = ["upload"]

_ROWS = 4096
"""Weights asked for in one message."""

_PIECE = 4 << 20
_IN_FLIGHT = 64


@dataclass(frozen=True, slots=True)
class _Weight:
    handle: int
    digest: str
    data: memoryview


def upload(device: RemoteDevice, data: Sequence[memoryview]) -> list[int]:
    """Bring several read-only memories to a device; returns handles of their buffers.

    Raises:
        OutOfDeviceMemoryError: the device has no room for them.
        ContentError: the server cannot keep what was sent.
        HotplugError: the connection is lost.
    """
    if not data:
        return []
    total = sum(item.nbytes for item in data)
    weights = []
    with progress.task(f"hash weights for {device.id}", total) as advance:
        done = 0
        for item in data:
            weights.append(_Weight(device.connection.new_handle(), digest_of(item), item))
            done += item.nbytes
            advance(done)
    try:
        for start in range(0, len(weights), _ROWS):
            _place(device, weights[start : start + _ROWS])
    except BaseException:
        device.free_handles([weight.handle for weight in weights])
        raise
    return [weight.handle for weight in weights]


def _place(device: RemoteDevice, weights: list[_Weight]) -> None:
    missing = _ask(device, weights)
    if not missing:
        return
    _send(device, missing)
    still = _ask(device, [weight for weight, _ in missing])
    if still:
        raise ContentError(
            f"{device.connection.address.server} does not keep {len(still)} weights that were sent",
            endpoint=device.connection.address.server,
        )


def _ask(device: RemoteDevice, weights: list[_Weight]) -> list[tuple[_Weight, int]]:
    """The weights that are not there, each with the bytes that are; one of equal ones."""
    rows = [(w.handle, w.digest, w.data.nbytes) for w in weights]
    body = device.ask(Weights(device.position, rows)).body
    return [(weights[at], int(held)) for at, held in body.get("missing", [])]


def _send(device: RemoteDevice, missing: list[tuple[_Weight, int]]) -> None:
    different = {weight.digest: (weight, held) for weight, held in missing}
    total = sum(weight.data.nbytes - held for weight, held in different.values())
    flight: deque[Pending] = deque()
    connection = device.connection
    with progress.task(f"send weights to {device.id}", total) as advance:
        done = 0
        for weight, held in different.values():
            flat = weight.data.cast("B")
            step = min(_PIECE, connection.frame_bytes)
            for at in range(held, flat.nbytes, step):
                if len(flight) >= _IN_FLIGHT:
                    connection.wait(flight.popleft())
                piece = flat[at : at + step]
                request = Content(weight.digest, flat.nbytes, at)
                flight.append(connection.submit(request, [piece]))
                done += piece.nbytes
                advance(done)
        while flight:
            connection.wait(flight.popleft())
