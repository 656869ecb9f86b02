"""What was decided, and how it is told: as a table, as JSON, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hotplug import memory
from hotplug.amounts import size_text, time_text
from hotplug.graph import Graph
from hotplug.node import Node
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
        guessed = [device for device, rates in self.rates.items() if rates.source == "usual"]
        if not guessed:
            return ""
        names = ", ".join(guessed) if len(guessed) <= _NAMED else f"{len(guessed)} devices"
        ordered = len(self.budgets) > 1 and not self.stats.shares
        effect = "the order of the devices decided" if ordered else "a guess"
        return f"{effect}, since `hotplug calibrate` has not measured {names}"

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
        return {
            "graph": self.graph.key,
            "seconds": self.seconds,
            "parts": [
                {
                    "device": part.device,
                    "nodes": sum(not node.is_leaf for node in part.graph.nodes),
                    "receives": [copy.name for copy in part.receives],
                    "compute_seconds": time.compute,
                    "copy_seconds": time.copies,
                }
                for part, time in zip(self.parts, self.times, strict=True)
            ],
            "nodes": [
                {
                    "name": node.name,
                    "weights": [n.name for n in node.operands if n.op == "weight"],
                    "type": str(node.type),
                    "device": self.choices[node].device,
                    "reason": self.choices[node].reason,
                }
                for node in self.graph.nodes
            ],
            "copies": [
                {
                    "name": copy.name,
                    "value": copy.node.name,
                    "from": copy.source,
                    "to": copy.target,
                    "bytes": copy.nbytes,
                    "direct": self.is_direct(copy),
                    "seconds": self.copy_seconds(copy),
                }
                for copy in self.copies
            ],
            "memory": {
                device: {
                    "weights": use.weights,
                    "states": use.states,
                    "values": use.values,
                    "arena": use.arena,
                    "total": use.total,
                    "budget": use.budget,
                    "free": self.free.get(device),
                }
                for device, use in self.memory.items()
            },
            "speeds": {device: rates.source for device, rates in self.rates.items()},
            "stats": {
                "planning_seconds": self.stats.seconds,
                "speeds_decided": self.stats.known,
                "exact": self.stats.exact,
                "gap": self.stats.gap,
                "labels": self.stats.labels,
                "shares": self.stats.shares,
                "parts": len(self.parts),
                "copies": len(self.copies),
                "copied_bytes": sum(copy.nbytes for copy in self.copies),
                "refused": _counts(self.stats.refused),
                "fallbacks": _counts(self.stats.fallbacks),
            },
        }

    def table(self) -> str:
        """A line per node that computes something: label, type, device, reason."""
        rows = [
            (node.label, str(node.type), self.choices[node].device, self.choices[node].reason)
            for node in self.graph.nodes
            if not node.is_leaf
        ]
        return _columns(("node", "result", "device", "because"), rows)

    def explain(self) -> str:
        """The decisions in short: parts, what crosses, memory, and how often each reason held."""
        lines = [f"{len(self.parts)} part(s) on {', '.join(self.devices)}; {self._basis()}"]
        for number, part in enumerate(self.parts):
            count = sum(not node.is_leaf for node in part.graph.nodes)
            crossing = sum(copy.nbytes for copy in part.receives)
            brought = f", {size_text(crossing)} brought" if part.receives else ""
            lines.append(f"  part {number}: {count} nodes on {part.device}{brought}")
        lines += [f"  memory of {device}: {_told(use)}" for device, use in self.memory.items()]
        lines += self._reasons()
        return "\n".join(lines)

    def _basis(self) -> str:
        """What decided, and how good it is."""
        expected = f"{time_text(self.seconds)} expected"
        if self.stats.shares:
            doubt = f"; {self.doubt}" if self.doubt else ""
            return f"{expected}, in given shares{doubt}"
        if not self.stats.known:
            return f"{expected}; {self.doubt}"
        sources = Counter(self.rates[device].source for device in self.budgets)
        speeds = ", ".join(f"{count} {source}" for source, count in sources.items())
        best = f"within {self.stats.gap:.1%} of the best"
        if self.stats.exact:
            best = "the best there is"
        elif self.stats.gap < _NEGLIGIBLE:
            best = "the best that keeps pieces of the graph together"
        return f"{expected}, {best} by speeds {speeds}"

    def _reasons(self) -> list[str]:
        counts = Counter(
            (choice.device, _general(choice.reason))
            for node, choice in self.choices.items()
            if not node.is_leaf
        )
        return [f"  {n} node(s) on {device}: {why}" for (device, why), n in counts.most_common()]


_NEGLIGIBLE = 5e-4
_NAMED = 4


def _counts(counts: Mapping[tuple[str, str], int]) -> list[dict[str, Any]]:
    return [{"device": at, "op": op, "nodes": count} for (at, op), count in counts.items()]


def _bytes(nodes: Any) -> int:
    return sum(node.type.nbytes for node in nodes)


def _told(use: MemoryUse) -> str:
    limit = "no limit" if use.budget is None else f"limit {size_text(use.budget)}"
    return (
        f"{size_text(use.total)} (weights {size_text(use.weights)}, "
        f"states {size_text(use.states)}, values {size_text(use.values)}, "
        f"arena {size_text(use.arena)}; {limit})"
    )


def _general(reason: str) -> str:
    """The reason without what is only true of the single node."""
    if reason.startswith(("fastest there:", "near its operands:")):
        return reason.partition(":")[0]
    for kind in ("weight", "state"):
        if reason.startswith(f"{kind} ") and reason.endswith("lives there"):
            return f"its {kind} lives there"
    return reason


def _columns(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in [titles, *rows]) for i in range(len(titles))]
    lines = [titles, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
