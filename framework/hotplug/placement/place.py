"""The passes in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hotplug.backend import Device
from hotplug.errors import PlacementError
from hotplug.graph import Graph
from hotplug.placement.assign import assign
from hotplug.placement.plan import Plan
from hotplug.placement.residence import reside
from hotplug.placement.split import split
from hotplug.placement.support import ask
from hotplug.verify import verify

__all__ = ["place"]


def place(
    graph: Graph,
    devices: Sequence[Device],
    *,
    pins: Mapping[str, str] | None = None,
    budgets: Mapping[str, int | None] | None = None,
    settled: Mapping[str, str] | None = None,
) -> Plan:
    """Decide where each node of a graph runs.

    Args:
        graph: what will run; it is verified first.
        devices: in order of preference.
        pins: pattern of the names of weights and states -> id of the device they live on.
        budgets: device id -> bytes that weights and states may take there; None or absent for no
            limit.
        settled: name of a weight or state -> id of the device that it lives on already.

    Raises:
        GraphError: the graph breaks a rule.
        UnsupportedOpError: a node runs on none of the devices.
        DeviceNotFoundError: a pin names a device that is not in use.
        PlacementError: there is no device, or not enough memory.
    """
    if not devices:
        raise PlacementError("there is no device to run on")
    verify(graph)
    limits = {device.id: (budgets or {}).get(device.id) for device in devices}
    support = ask(graph, devices)
    homes = reside(graph, devices, support, limits, pins or {}, settled or {})
    choices = assign(graph, devices, support, homes)
    return Plan(graph, split(graph, choices), choices, limits)
