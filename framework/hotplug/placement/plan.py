"""What was decided: parts, copies, memory, times, and a reason for every node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hotplug import memory
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.placement import told
from hotplug.placement.cost import Peers, Rates, copy_seconds, node_seconds
from hotplug.placement.rooms import Held, rooms
from hotplug.placement.schedule import Cost, Event, Task, simulate, tasks, within_a_run

__all__ = ["Choice", "Copy", "MemoryUse", "Part", "PartTime", "Plan", "Stats"]


@dataclass(frozen=True, slots=True)
class Choice:
    """A device, and why that one."""

    device: str
    reason: str


@dataclass(frozen=True, slots=True)
class Copy:
    """A value that one part makes and a part on another device needs.

    Attributes:
        name: what it is called in both parts: an output here, an input there.
        node: the value, as a node of the whole graph.
        source: device it is made on.
        target: device it is brought to.
    """

    name: str
    node: Node
    source: str
    target: str

    @property
    def nbytes(self) -> int:
        """Bytes that cross."""
        return self.node.type.nbytes


@dataclass(frozen=True)
class Part:
    """Work that one device does without a pause.

    Attributes:
        device: id of the device.
        graph: a graph whole in itself.
        receives: values brought from other devices before it runs.
    """

    device: str
    graph: Graph
    receives: tuple[Copy, ...] = ()

    @cached_property
    def arena_bytes(self) -> int:
        """Bytes of intermediate values, by the core's own memory plan."""
        return memory.plan(self.graph).arena_bytes


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes that a plan takes on one device.

    Attributes:
        weights: weights used there; mapped files count, though they may take none of their own.
        states: states that live there.
        values: inputs, outputs, and values that cross, of which some share memory.
        arena: intermediate values of the largest part.
        budget: bytes the plan may take there; None for no limit.
    """

    weights: int
    states: int
    values: int
    arena: int
    budget: int | None

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.states + self.values + self.arena


@dataclass(frozen=True, slots=True)
class PartTime:
    """Seconds that a part is expected to take.

    Attributes:
        compute: launch and nodes.
        copies: bringing values from other devices, inputs from the host, and outputs to it.
    """

    compute: float
    copies: float

    @property
    def total(self) -> float:
        """Both."""
        return self.compute + self.copies


@dataclass(frozen=True, slots=True)
class Stats:
    """Figures of how a plan came about.

    Attributes:
        seconds: that planning took.
        known: whether the speeds of the devices decided, which else are guesses, and their order
            did.
        exact: whether no other assignment is better, by what is known.
        gap: by what share of its time another one may be better at most, of those that keep large
            pieces of the graph, such as half a layer, together but for what a device does not run.
        labels: ways that the search looked at.
        shares: whether each device was to have a share that was given.
        refused: (device id, op) -> nodes that the device does not run.
        fallbacks: (device id, op) -> those of them that would have run there, were it not for that:
            they run on a device that comes later in the order.
        reasons: (device id, op) -> why the first of those does not run there.
    """

    seconds: float
    known: bool
    exact: bool
    gap: float
    labels: int
    shares: bool
    refused: Mapping[tuple[str, str], int]
    fallbacks: Mapping[tuple[str, str], int]
    reasons: Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class Plan:
    """A graph with a device for each of its nodes.

    Attributes:
        graph: the whole graph.
        parts: in the order in which they run.
        choices: node -> device and reason.
        budgets: device id -> bytes it may take there; also the order of preference.
        rates: device id -> how fast it is taken to be.
        stats: how the plan came about.
        peers: links between devices without the host between them.
        free: device id -> bytes of its memory that were free, as far as that was asked.
        at_once: whether devices work at the same time at parts that do not need each other.
    """

    graph: Graph
    parts: tuple[Part, ...]
    choices: Mapping[Node, Choice]
    budgets: Mapping[str, int | None]
    rates: Mapping[str, Rates]
    stats: Stats
    peers: Peers = field(default_factory=dict)
    free: Mapping[str, int | None] = field(default_factory=dict)
    at_once: bool = False

    @property
    def devices(self) -> tuple[str, ...]:
        """Ids of the devices that have something to do, in order of preference."""
        used = {part.device for part in self.parts}
        return tuple(device for device in self.budgets if device in used)

    @property
    def copies(self) -> tuple[Copy, ...]:
        """All values that cross between devices, in the order in which they do."""
        return tuple(copy for part in self.parts for copy in part.receives)

    @cached_property
    def rooms(self) -> dict[Held, str]:
        """Values that cross -> the one whose memory each has; see `hotplug.placement.rooms`."""
        return rooms(self.parts, within_a_run(self.parts))

    @cached_property
    def memory(self) -> dict[str, MemoryUse]:
        """Bytes by device."""
        return {device: self._use(device) for device in self.devices}

    def _use(self, device: str) -> MemoryUse:
        parts = [part for part in self.parts if part.device == device]
        leaves = {n.name: n for part in parts for n in part.graph.nodes if n.is_leaf}
        values = {name: node for name, node in leaves.items() if node.op == "input"}
        values |= {name: node for part in parts for name, node in part.graph.outputs}
        placed = {self.rooms.get((device, name), name): node for name, node in values.items()}
        return MemoryUse(
            weights=_bytes(node for node in leaves.values() if node.op == "weight"),
            states=_bytes(node for node in leaves.values() if node.op == "state"),
            values=_bytes(placed.values()),
            arena=max(part.arena_bytes for part in parts),
            budget=self.budgets[device],
        )

    @cached_property
    def times(self) -> tuple[PartTime, ...]:
        """Seconds that each part is expected to take, one run alone."""
        sent: set[tuple[str, str]] = set()
        return tuple(self._time(part, sent) for part in self.parts)

    @property
    def costs(self) -> list[Cost]:
        """The same, as schedules take it."""
        pairs = zip(self.parts, self.times, strict=True)
        return [Cost(part.device, time.copies, time.compute) for part, time in pairs]

    @cached_property
    def timeline(self) -> tuple[Event, ...]:
        """When each part is expected to run, one run alone, in the order in which they begin."""
        waits = tasks(self.parts, 1, 1)
        if not self.at_once:
            waits = {task: {Task(0, task.part - 1)} & waits.keys() for task in waits}
        return tuple(simulate(waits, self.costs))

    @property
    def seconds(self) -> float:
        """Seconds that a run is expected to take."""
        return max([event.ended for event in self.timeline], default=0.0)

    @property
    def doubt(self) -> str:
        """What comes of speeds that are guesses, and what helps; empty if there are none."""
        return told.doubt(self)

    def is_direct(self, copy: Copy) -> bool:
        """Whether a copy goes from device to device, and not by way of the host's memory."""
        peer = self.peers.get((copy.source, copy.target))
        return peer is not None and copy.nbytes >= peer.least

    def copy_seconds(self, copy: Copy) -> float:
        """Seconds that a copy is expected to take."""
        peer = self.peers.get((copy.source, copy.target))
        return copy_seconds(copy.nbytes, self.rates[copy.source], self.rates[copy.target], peer)

    def _time(self, part: Part, sent: set[tuple[str, str]]) -> PartTime:
        rates = self.rates[part.device]
        nodes = [node for node in part.graph.nodes if not node.is_leaf]
        compute = rates.launch + sum(node_seconds(node, rates) for node in nodes)
        copies = 0.0
        for copy in part.receives:
            if (part.device, copy.name) not in sent:
                sent.add((part.device, copy.name))
                copies += self.copy_seconds(copy)
        for name, node in part.graph.inputs.items():
            if name in self.graph.inputs and (part.device, name) not in sent:
                sent.add((part.device, name))
                copies += rates.upload.seconds(node.type.nbytes)
        wanted = {name for name, _ in self.graph.outputs}
        for name, node in part.graph.outputs:
            if name in wanted:
                copies += rates.download.seconds(node.type.nbytes)
        return PartTime(compute, copies)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return told.to_json(self)

    def table(self) -> str:
        """A line per node that computes something: label, type, device, reason."""
        return told.table(self)

    def explain(self) -> str:
        """The decisions in short: parts, what crosses, memory, and how often each reason held."""
        return told.explain(self)


def _bytes(nodes: Any) -> int:
    return sum(node.type.nbytes for node in nodes)
