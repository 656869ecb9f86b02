"""Fourth pass: a graph's steps as an assignment problem in seconds and bytes.

What is told by `rules` leaves a step one device. A state's readers and updaters are tied together
if any device runs them all; else, and where a rule says where the state lives, those of them that
run there do, and the others have the whole state copied.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hotplug.backend import Device
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.placement.cost import Link, Peers, Rates, copy_seconds, work, work_seconds
from hotplug.placement.outline import Outline
from hotplug.placement.problem import Matrix, Problem, Step
from hotplug.placement.rules import Rule, Rules, refuse_pins
from hotplug.placement.support import SupportTable

__all__ = ["Built", "build"]


@dataclass(slots=True)
class Built:
    """A problem, and what its numbers stand for.

    Attributes:
        problem: the numbers.
        ids: device ids by position.
        rules: where leaves and steps have to be, those of states that had to be given a home too.
        refused: for each step, by device id why it cannot run there.
        homes: states that live at a place of their own -> device; the others live with their steps.
    """

    problem: Problem
    ids: tuple[str, ...]
    rules: Rules
    refused: Sequence[Mapping[str, str]]
    homes: Mapping[str, str]


def build(
    outline: Outline,
    devices: Sequence[Device],
    support: SupportTable,
    rules: Rules,
    rates: Mapping[str, Rates],
    *,
    budgets: Mapping[str, int | None],
    settled: Mapping[str, str],
    workload: Sequence[tuple[Graph, float]],
    peers: Peers,
    known: bool = True,
) -> Built:
    """Put a graph into numbers.

    Args:
        outline: the graph.
        devices: in order of preference.
        support: which of them runs what.
        rules: where steps have to run.
        rates: how fast each device is, by id.
        budgets: device id -> bytes of weights and states.
        settled: weights and states that are in a device's memory already.
        workload: graphs that are alike, the outline's own among them, and how often each is run.
        peers: links between devices.
        known: whether rates are more than guesses. Where not, only copies cost anything, and each
            step a little the more the later its device is in the order; or much, where there are
            no weights that others could follow.

    Raises:
        PlacementError: something is pinned to a device that does not run it.
    """
    builder = _Builder(outline, devices, support, rules, settled)
    speeds = [rates[device.id] for device in devices]
    preference = _LITTLE if outline.leaves else _MUCH
    table = _Table(speeds, builder.ids, workload, peers, known, preference)
    return builder.build(table, budgets)


_LITTLE, _COPY, _MUCH = 1e-9, 1e-6, 1.0
"""Where speeds are not known: seconds of a step by place in the order, far less than any copy or
far more, and of a copy at least."""


@dataclass
class _Table:
    """Seconds of nodes and copies, each kind worked out once."""

    rates: Sequence[Rates]
    ids: Sequence[str]
    workload: Sequence[tuple[Graph, float]]
    peers: Peers
    known: bool
    preference: float
    _seconds: dict[tuple[int, ...], tuple[float, ...]] = field(default_factory=dict)
    _copies: dict[tuple[int, ...], Matrix] = field(default_factory=dict)
    _crossing: dict[tuple[int, ...], Matrix] = field(default_factory=dict)
    _kinds: Sequence[tuple[int, ...]] = ()
    _same: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        kinds = [graph.kinds.values() for graph, _ in self.workload]
        self._kinds = list(zip(*kinds, strict=True))
        self._same = tuple([self.preference * (1 + place) for place in range(len(self.rates))])

    def _twins(self, node: Node) -> list[Node]:
        """What stands for a node of the first graph in each of them."""
        position = self.workload[0][0].positions[node]
        return [graph.nodes[position] for graph, _ in self.workload]

    def seconds(self, number: int, node: Node) -> tuple[float, ...]:
        """By device, what a step takes in all runs of the workload."""
        if not self.known:
            return self._same
        kind = self._kinds[number]
        found = self._seconds.get(kind)
        if found is None:
            pairs = zip(self._twins(node), self.workload, strict=True)
            works = [(work(twin), times) for twin, (_, times) in pairs]
            found = self._seconds[kind] = tuple(
                sum(times * work_seconds(each, speed) for each, times in works)
                for speed in self.rates
            )
        return found

    def fetched(self, node: Node) -> tuple[float, ...]:
        """By device, what reading a node's value from there takes."""
        return tuple(self._sum(node, speed.download) for speed in self.rates)

    def sent(self, node: Node) -> tuple[float, ...]:
        """By device, what writing a value there takes."""
        return tuple(self._sum(node, speed.upload) for speed in self.rates)

    def made(self, number: int, node: Node) -> Matrix:
        """What bringing a step's value from one device to another takes."""
        kind = self._kinds[number]
        found = self._copies.get(kind)
        if found is None:
            found = self._copies[kind] = self.crossing(node)
        return found

    def crossing(self, node: Node) -> Matrix:
        """What bringing a node's value from one device to another takes."""
        return self._matrix(tuple([twin.type.nbytes for twin in self._twins(node)]))

    def _matrix(self, sizes: tuple[int, ...]) -> Matrix:
        found = self._crossing.get(sizes)
        if found is None:
            count = range(len(self.rates))
            found = self._crossing[sizes] = tuple(
                tuple(self._copy(sizes, a, b) for b in count) for a in count
            )
        return found

    def launch(self) -> tuple[float, ...]:
        """By device, what a part takes beside its nodes."""
        runs = sum(times for _, times in self.workload)
        return tuple([runs * speed.launch if self.known else _LITTLE / 2 for speed in self.rates])

    def _sum(self, node: Node, link: Link) -> float:
        if not self.known:
            return 0.0
        pairs = zip(self._twins(node), self.workload, strict=True)
        return sum(times * link.seconds(twin.type.nbytes) for twin, (_, times) in pairs)

    def _copy(self, sizes: Sequence[int], source: int, target: int) -> float:
        if source == target:
            return 0.0
        peer = self.peers.get((self.ids[source], self.ids[target]))
        a, b = self.rates[source], self.rates[target]
        # Processors usually have no link at all; but a copy ends one part and begins another.
        least = 0.0 if self.known else _COPY
        return least + sum(
            times * copy_seconds(nbytes, a, b, peer)
            for nbytes, (_, times) in zip(sizes, self.workload, strict=True)
        )


class _Builder:
    def __init__(
        self,
        outline: Outline,
        devices: Sequence[Device],
        support: SupportTable,
        rules: Rules,
        settled: Mapping[str, str],
    ) -> None:
        self.ids = tuple(device.id for device in devices)
        self._outline = outline
        self._rules = Rules(dict(rules.leaves), dict(rules.steps))
        self._settled = settled
        self._refused = _refusals(outline, devices, support)
        refuse_pins(rules, outline, self._refused)
        self._homes = {
            name: rule.device
            for name, rule in rules.leaves.items()
            if outline.leaves[name].op == "state"
        }
        self._ties = self._tie()

    def build(self, table: _Table, budgets: Mapping[str, int | None]) -> Built:
        room = [math.inf if (b := budgets.get(name)) is None else float(b) for name in self.ids]
        for name, device in self._homes.items():
            if name not in self._settled:
                room[self.ids.index(device)] -= self._outline.leaves[name].type.nbytes
        outside = _Outside(table, self._homes, self.ids)
        shared = self._shared()
        needs = self._needs(shared)
        results = {node for _, node in self._outline.graph.outputs}
        steps = []
        for number, node in enumerate(self._outline.steps):
            seconds = table.seconds(number, node)
            if node in results:
                seconds = tuple(map(float.__add__, seconds, table.fetched(node)))
            step = Step(
                self._allowed(number, seconds),
                table.made(number, node),
                self._outline.reads[number],
                outside.of(node),
                self._shares(number, shared),
                needs[number],
                self._ties.get(number, -1),
            )
            steps.append(step)
        sizes = tuple([self._outline.leaves[name].type.nbytes for name in shared])
        problem = Problem(tuple(steps), table.launch(), tuple(room), tuple(outside.rows), sizes)
        return Built(problem, self.ids, self._rules, self._refused, self._homes)

    def _shares(self, number: int, shared: Mapping[str, int]) -> tuple[int, ...]:
        weights = self._outline.weights[number] if shared else ()
        return tuple([shared[w.name] for w in weights if w.name in shared]) if weights else ()

    def _allowed(self, number: int, seconds: tuple[float, ...]) -> tuple[float, ...]:
        refused = self._refused[number]
        rule = self._rules.steps.get(number)
        if rule is not None and rule.device not in refused:
            pairs = zip(self.ids, seconds, strict=True)
            return tuple([s if name == rule.device else math.inf for name, s in pairs])
        if not refused:
            return seconds
        return tuple(
            [math.inf if i in refused else s for i, s in zip(self.ids, seconds, strict=True)]
        )

    def _tie(self) -> dict[int, int]:
        """Steps of states that have no home yet -> number of their tie."""
        groups: dict[str, str] = {}  # state -> the state that stands for its tie

        def root(name: str) -> str:
            while groups.setdefault(name, name) != name:
                name = groups[name]
            return name

        touching: dict[int, list[str]] = {}
        for number, states in enumerate(self._outline.states):
            free = [name for name in states if name not in self._homes]
            if free:
                touching[number] = free
            for name in free:
                groups[root(name)] = root(free[0])
        members: dict[str, list[int]] = {}
        for number, names in touching.items():
            members.setdefault(root(names[0]), []).append(number)
        ties: dict[int, int] = {}
        for tie, numbers in enumerate(members.values()):
            if self._common(numbers):
                ties |= dict.fromkeys(numbers, tie)
            else:
                self._house(numbers, touching)
        return ties

    def _common(self, numbers: Sequence[int]) -> bool:
        """Whether any device runs all of some steps."""
        able = set(self.ids)
        for number in numbers:
            rule = self._rules.steps.get(number)
            able -= self._refused[number].keys()
            if rule is not None and rule.device not in self._refused[number]:
                able &= {rule.device}
        return bool(able)

    def _house(self, numbers: Sequence[int], touching: Mapping[int, Sequence[str]]) -> None:
        """Give states a home where most of their steps can run."""
        count = {name: sum(name not in self._refused[n] for n in numbers) for name in self.ids}
        home = max(self.ids, key=lambda name: count[name])
        for number in numbers:
            for name in touching[number]:
                self._homes[name] = home
                rule = Rule(home, "most of its steps run there")
                self._rules.leaves.setdefault(name, rule)
                self._rules.steps.setdefault(number, Rule(home, f"state {name} lives there"))

    def _shared(self) -> dict[str, int]:
        """Weights of several steps -> their number."""
        users: dict[str, int] = {}
        for weights in self._outline.weights:
            for weight in weights:
                users[weight.name] = users.get(weight.name, 0) + 1
        names = [n for n, count in users.items() if count > 1 and n not in self._settled]
        return {name: number for number, name in enumerate(names)}

    def _needs(self, shared: Mapping[str, int]) -> list[int]:
        """Bytes of each step: weights of its own, and states that it is the first to touch."""
        met: set[str] = set()
        needs = []
        for weights, states in zip(self._outline.weights, self._outline.states, strict=True):
            need = 0
            for weight in weights:
                if weight.name not in shared and weight.name not in self._settled:
                    need += weight.type.nbytes
            for name in states:
                if name not in met and name not in self._homes:
                    met.add(name)
                    need += self._outline.leaves[name].type.nbytes
            needs.append(need)
        return needs


class _Outside:
    """Values that no step makes: inputs, and states that are read where they do not live."""

    def __init__(self, table: _Table, homes: Mapping[str, str], ids: Sequence[str]) -> None:
        self.rows: list[tuple[float, ...]] = []
        self._table = table
        self._homes = {name: ids.index(home) for name, home in homes.items()}
        self._numbers: dict[Node, int | None] = {}

    def of(self, node: Node) -> tuple[int, ...]:
        """Numbers of those that a step reads."""
        leaves = [n for n in node.operands if n.is_leaf and n.op != "weight"]
        if not leaves:
            return ()
        found = [self._number(leaf) for leaf in dict.fromkeys(leaves)]
        return tuple([item for item in found if item is not None])

    def _number(self, leaf: Node) -> int | None:
        if leaf not in self._numbers:
            row = self._row(leaf)
            self._numbers[leaf] = len(self.rows) if row and any(row) else None
            if row and any(row):
                self.rows.append(row)
        return self._numbers[leaf]

    def _row(self, leaf: Node) -> tuple[float, ...] | None:
        if leaf.op == "input":
            return self._table.sent(leaf)
        home = self._homes.get(leaf.name)
        return None if home is None else self._table.crossing(leaf)[home]


def _refusals(
    outline: Outline, devices: Sequence[Device], support: SupportTable
) -> list[Mapping[str, str]]:
    """For each step, by device id why it cannot run there."""
    pieces = {device.id: device.buffers.max_bytes for device in devices}
    limits = {name: most for name, most in pieces.items() if most is not None}
    nothing: dict[str, str] = {}
    known: dict[int, dict[str, str]] = {}
    found: list[Mapping[str, str]] = []
    for number, node in enumerate(outline.steps):
        answers = support[node]
        if id(answers) not in known:
            known[id(answers)] = {name: a.reason for name, a in answers.items() if not a} or nothing
        refused = known[id(answers)]
        if limits:
            refused = _too_large(outline, number, limits) | refused
        found.append(refused)
    return found


def _too_large(outline: Outline, number: int, limits: Mapping[str, int]) -> dict[str, str]:
    leaves = [*outline.weights[number], *[outline.leaves[n] for n in outline.states[number]]]
    largest = max([leaf.type.nbytes for leaf in leaves], default=0)
    return {
        name: f"it gives at most {most} bytes in one piece, {largest} needed"
        for name, most in limits.items()
        if largest > most
    }
