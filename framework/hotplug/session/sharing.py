"""How several devices share the work of a graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from hotplug.backend import Device
from hotplug.errors import UsageError
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.placement import Rates
from hotplug.placement.cost import Peers, slowest_link
from hotplug.placement.experts import send_experts
from hotplug.placement.parallel import parallelise
from hotplug.placement.rules import pinned_leaves
from hotplug.placement.shards import Cut

__all__ = ["Mode", "Shared", "Sharing"]

Mode: TypeAlias = Literal["layer", "pipeline", "tensor"]


@dataclass(frozen=True, slots=True)
class Shared:
    """A graph in the form that several devices work at.

    Attributes:
        graph: it computes the same.
        devices: node -> the device it belongs to, where one was chosen.
        cuts: name of a piece of a weight or state -> what it is a piece of.
    """

    graph: Graph
    devices: Mapping[Node, str] = field(default_factory=dict)
    cuts: Mapping[str, Cut] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sharing:
    """How the devices of a session share the work.

    Attributes:
        mode: in "tensor" all work at pieces of each product.
        host_experts: in the other modes, whether experts' weights stay on the host.
    """

    mode: Mode
    host_experts: bool

    def __post_init__(self) -> None:
        """Refuse what is no mode.

        Raises:
            UsageError: as said; or experts of a mode that leaves them nowhere alone.
        """
        if self.mode not in get_args(Mode):
            raise UsageError(f"mode {self.mode!r} is none of {', '.join(get_args(Mode))}")
        if self.host_experts and self.mode == "tensor":
            raise UsageError("mode tensor cuts experts for all devices: none stay on the host")

    def of(
        self,
        graph: Graph,
        devices: Sequence[Device],
        speeds: Mapping[str, Rates],
        peers: Peers,
        shares: Sequence[float] | None,
        pins: Collection[str] = (),
    ) -> Shared:
        """The form in which a graph runs.

        Args:
            graph: any graph.
            devices: in order of preference.
            speeds: how fast they are.
            peers: links between them that need no host in between.
            shares: of each device, in mode "tensor"; None for as much as it has bandwidth.
            pins: patterns of weights and states that have to be on one device, and so stay whole.
        """
        if self.mode == "tensor" and len(devices) > 1:
            given = shares or [speeds[device.id].bandwidth for device in devices]
            names = [device.id for device in devices]
            parallel = parallelise(
                graph,
                dict(zip(names, given, strict=True)),
                link=slowest_link({name: speeds[name] for name in names}, peers),
                launch=max(speeds[name].launch for name in names),
                whole=pinned_leaves(pins, graph),
            )
            return Shared(parallel.graph, parallel.devices, parallel.cuts)
        near = [device.id for device in devices if device.buffers.is_host]
        far = [device.id for device in devices if not device.buffers.is_host]
        if self.host_experts and near and far:
            experts = send_experts(graph, near[0], far[0], speeds)
            return Shared(experts.graph, experts.devices)
        return Shared(graph)
