"""Plans executed in simulated time, on machines of up to many devices that are not here.

    cluster = Cluster.of("H100 SXM5", 8)
    plan = cluster.plan(graph, mode="pipeline")
    print(cluster.run(plan, runs=16).seconds)

It is a discrete-event simulation: devices and links are resources that do one thing at a time,
tasks are those that a session's threads would do (`hotplug.placement.schedule`), and a device that
receives a value waits for it, as a session's thread does. Work takes what the cost model says, so
that what is looked at is how plans and schedules behave, and not how good kernels are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hotplug.backend import DeviceInfo, DeviceType
from hotplug.graph import Graph
from hotplug.placement import Plan, Rates, Wishes, place
from hotplug.placement.cost import NO_LINK, Link
from hotplug.placement.parallel import parallelise
from hotplug.placement.plan import Choice, Copy
from hotplug.placement.schedule import Event, balanced_shares, simulate, tasks
from hotplug.placement.split import split
from hotplug.testing.hardware import EFFICIENCY, GPU, GPUS, LINKS
from hotplug.testing.reference import ReferenceDevice

__all__ = ["Cluster", "Run"]

_LAUNCH, _STEP = 1e-5, 2e-6
"""Seconds of a part, and of a kernel within one: of a CUDA graph's launch and of its nodes."""


@dataclass(frozen=True, slots=True)
class Run:
    """What came of some runs of a plan.

    Attributes:
        seconds: until all were done.
        busy: device id -> share of that time that it computed.
        waited: device id -> seconds that it waited for values on their way.
        copied: bytes that crossed between devices.
        events: all tasks.
    """

    seconds: float
    busy: Mapping[str, float]
    waited: Mapping[str, float]
    copied: int
    events: Sequence[Event]


class Cluster:
    """Machines with devices, in order of preference.

    Args:
        gpus: the devices.
        per_machine: how many are in one machine; between machines each has a network link.

    Attributes:
        ids: of the devices.
        rates: how fast each is, by id.
    """

    def __init__(self, gpus: Sequence[GPU], per_machine: int = 8) -> None:
        self.gpus = tuple(gpus)
        self.ids = tuple(f"sim:{number}" for number in range(len(gpus)))
        self.rates = dict(zip(self.ids, map(_rates, gpus), strict=True))
        self._per_machine = per_machine
        self._numbers = {name: number for number, name in enumerate(self.ids)}

    @classmethod
    def of(cls, name: str, count: int) -> Cluster:
        """So many devices of one kind, eight to a machine."""
        return cls([GPUS[name]] * count)

    def plan(
        self,
        graph: Graph,
        mode: str = "layer",
        *,
        shares: Sequence[float] | None = None,
        budgets: bool = False,
    ) -> Plan:
        """The plan that a session would make.

        Args:
            graph: what is to run.
            mode: "layer", "pipeline" or "tensor".
            shares: as `--split` gives them; None for what the mode does by itself.
            budgets: whether devices' memory is limited.

        Raises:
            PlacementError: there is not enough memory.
        """
        speeds = list(self.rates.values())
        if mode == "tensor":
            return self._in_pieces(graph, shares or [speed.bandwidth for speed in speeds])
        if mode == "pipeline" and shares is None:
            shares = balanced_shares(graph, speeds)
        devices = [ReferenceDevice(_info(n, gpu)) for n, gpu in enumerate(self.gpus)]
        limits = {d.id: int(0.9 * gpu.memory) for d, gpu in zip(devices, self.gpus, strict=True)}
        return place(
            graph,
            devices,
            wishes=Wishes(shares=shares),
            budgets=dict(limits) if budgets else None,
            speeds=self.rates,
            peers=self._peers(),
        )

    def _in_pieces(self, graph: Graph, shares: Sequence[float]) -> Plan:
        """Pieces where they belong, all else on the first device."""
        links = list(self._peers().values())
        pieces = parallelise(
            graph,
            dict(zip(self.ids, shares, strict=True)),
            link=max(links, key=lambda link: link.seconds(1 << 16), default=NO_LINK),
            launch=_LAUNCH,
        )
        first = self.ids[0]
        choices = {node: Choice(pieces.devices.get(node, first), "") for node in pieces.graph.nodes}
        parts = split(pieces.graph, choices, eager=True)
        model = self.plan(graph, shares=[1.0] + [0.0] * (len(shares) - 1))
        return replace(model, graph=pieces.graph, parts=parts, choices=choices)

    def run(self, plan: Plan, runs: int = 1, depth: int | None = None) -> Run:
        """Execute a plan.

        Args:
            plan: whose devices are the cluster's.
            runs: how often.
            depth: sets of buffers; None for more than can be of use.
        """
        depth = len(self.ids) + 1 if depth is None else depth
        costs = plan.costs
        links = _Links(self)

        def receive(part: int, now: float) -> float:
            for copy in plan.parts[part].receives:
                now = links.carry(copy, now)
            return now

        events = simulate(tasks(plan.parts, runs, min(depth, runs)), costs, receive)
        seconds = max(event.ended for event in events)
        return Run(seconds, *_times(events, seconds), links.copied, events)

    def path(self, source: str, target: str) -> list[tuple[str, Link]]:
        """The links that a copy takes at the same time, by name."""
        here, there = self._numbers[source], self._numbers[target]
        ways = [(f"{source} out", here), (f"{target} in", there)]
        if here // self._per_machine != there // self._per_machine:
            return [(f"network {name}", LINKS["ndr"]) for name, _ in ways]
        peers = [self.gpus[number].peer for _, number in ways]
        found = []
        for (name, number), peer in zip(ways, peers, strict=True):
            link = peer if None not in peers and peer is not None else self.gpus[number].host
            found.append((name, link))
        return found

    def _peers(self) -> dict[tuple[str, str], Link]:
        """Links as the planner takes them."""
        near = self.ids[: 2 * self._per_machine]  # one of each kind is enough for large clusters
        pairs = [(a, b) for a in near for b in near if a != b]
        return {pair: _joined([link for _, link in self.path(*pair)]) for pair in pairs}


class _Links:
    """Links in use: each carries one copy at a time."""

    def __init__(self, cluster: Cluster) -> None:
        self.copied = 0
        self._cluster = cluster
        self._free: dict[str, float] = {}

    def carry(self, copy: Copy, now: float) -> float:
        """When a copy that may begin now has arrived."""
        path = self._cluster.path(copy.source, copy.target)
        begin = max([now, *(self._free.get(name, 0.0) for name, _ in path)])
        end = begin + _joined([link for _, link in path]).seconds(copy.nbytes)
        self._free.update((name, end) for name, _ in path)
        self.copied += copy.nbytes
        return end


def _joined(links: Sequence[Link]) -> Link:
    """Links one behind the other, through which bytes stream."""
    slowest = min(link.bandwidth for link in links)
    return Link(max(link.latency for link in links), EFFICIENCY * slowest)


def _rates(gpu: GPU) -> Rates:
    link = replace(gpu.host, bandwidth=EFFICIENCY * gpu.host.bandwidth)
    return Rates(EFFICIENCY * gpu.flops, EFFICIENCY * gpu.bandwidth, link, link, _LAUNCH, _STEP)


def _info(number: int, gpu: GPU) -> DeviceInfo:
    return DeviceInfo("sim", number, gpu.name, DeviceType.GPU)


def _times(events: Sequence[Event], seconds: float) -> tuple[dict[str, float], dict[str, float]]:
    """By device: share of the time that it computed, and seconds that it waited for values."""
    busy: dict[str, float] = {}
    waited: dict[str, float] = {}
    for event in events:
        busy[event.device] = busy.get(event.device, 0.0) + (event.ended - event.computed) / seconds
        waited[event.device] = waited.get(event.device, 0.0) + event.computed - event.began
    return busy, waited
