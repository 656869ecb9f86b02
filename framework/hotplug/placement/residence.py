"""Second pass: where weights and states live. Computation goes to them, not they to it.

A leaf that lives somewhere already stays; a pinned one lives where it is pinned. The other weights
fill the devices in order of preference, in the order in which the graph uses them, so that
neighbouring layers share a device and a model too large for one device is cut as seldom as
possible. A state lives with the weights used before.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hotplug.backend import Device
from hotplug.errors import DeviceNotFoundError, PlacementError
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.placement.support import SupportTable

__all__ = ["Home", "Residence", "reside"]


@dataclass(frozen=True, slots=True)
class Home:
    """The device a leaf lives on, and why there."""

    device: str
    reason: str


Residence = Mapping[str, Home]
"""Name of a weight or state -> its home."""


def reside(
    graph: Graph,
    devices: Sequence[Device],
    support: SupportTable,
    budgets: Mapping[str, int | None],
    pins: Mapping[str, str],
    settled: Mapping[str, str],
) -> Residence:
    """Homes of all weights and states.

    Args:
        graph: what will run.
        devices: in order of preference.
        support: answers of the first pass; a leaf goes to no device that runs none of its users.
        budgets: device id -> bytes that weights and states may take there; None for no limit.
        pins: pattern of leaf names, as for file names ("blk.0.*") -> device id; the first that
            matches counts.
        settled: leaf name -> id of the device it lives on already; takes none of its budget.

    Raises:
        DeviceNotFoundError: a pin names a device that is not in use.
        PlacementError: what has to be stored fits nowhere.
    """
    ids = [device.id for device in devices]
    _check_pins(pins, ids)
    shelves = {
        device.id: _Shelf(budgets.get(device.id), device.buffers.max_bytes) for device in devices
    }
    homes: dict[str, Home] = {}
    for node in graph.nodes:
        if node.op not in {"weight", "state"}:
            continue
        if settled.get(node.name) in shelves:
            homes[node.name] = Home(settled[node.name], "it lives there already")
            continue
        home = _pinned(node.name, pins)
        if home is None:
            home = _first_with_room(node, _refusals(node, graph, support, ids), shelves)
        shelves[home.device].take(node)
        homes[node.name] = home
    return homes


@dataclass(slots=True)
class _Shelf:
    """What a device has room for, in all and in one piece; None for no limit.

    Once something did not fit after other things had, it is closed: small tensors of later layers
    would fit still, and every one would drag the computation to and fro.
    """

    room: int | None
    piece: int | None
    used: bool = False
    closed: bool = False

    def refuses(self, leaf: Node) -> str:
        """Why the leaf does not go in; empty if it does."""
        if self.closed:
            return "full"
        if self.piece is not None and leaf.type.nbytes > self.piece:
            return f"it gives at most {self.piece} bytes in one piece, {leaf.type.nbytes} needed"
        if self.room is None or leaf.type.nbytes <= self.room:
            return ""
        self.closed = self.used
        return f"no room: {leaf.type.nbytes} bytes needed, {self.room} left"

    def take(self, leaf: Node) -> None:
        self.used = True
        if self.room is not None:
            self.room -= leaf.type.nbytes


def _check_pins(pins: Mapping[str, str], ids: Sequence[str]) -> None:
    for pattern, device in pins.items():
        if device not in ids:
            raise DeviceNotFoundError(
                f"{pattern!r} is pinned to {device}, which is not among the devices in use: "
                f"{', '.join(ids)}",
                device=device,
                available=tuple(ids),
            )


def _pinned(name: str, pins: Mapping[str, str]) -> Home | None:
    for pattern, device in pins.items():
        if fnmatch.fnmatchcase(name, pattern):
            return Home(device, f"pinned by {pattern!r}")
    return None


def _refusals(
    leaf: Node, graph: Graph, support: SupportTable, ids: Iterable[str]
) -> dict[str, str]:
    """Device id -> why none of the leaf's users runs there; empty text where one does."""
    users = graph.consumers[leaf]
    found: dict[str, str] = {}
    for device in ids:
        answers = [support[user][device] for user in users]
        found[device] = "" if not answers or any(answers) else answers[0].reason
    return found


def _first_with_room(
    leaf: Node, refusals: Mapping[str, str], shelves: Mapping[str, _Shelf]
) -> Home:
    passed: dict[str, str] = {}
    for device, refusal in refusals.items():
        problem = refusal or shelves[device].refuses(leaf)
        if not problem:
            return Home(device, _because(passed))
        passed[device] = problem
    reasons = "; ".join(f"{device}: {why}" for device, why in passed.items())
    raise PlacementError(
        f"{leaf.op} {leaf.name} ({leaf.type}) has no place: {reasons}",
        reasons=passed,
        remedy="use more devices, or a smaller model or context",
    )


def _because(passed: Mapping[str, str]) -> str:
    if not passed:
        return "first choice"
    return "; ".join(f"not {device}: {why}" for device, why in passed.items())
