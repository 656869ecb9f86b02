"""Fourth pass: runs of nodes on one device become graphs of their own.

Nodes are taken in an order in which each device keeps going for as long as it has something ready,
so that there are few parts. A value that another device needs becomes an output "@<key>" of its
part and an input of that name where it is needed.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Iterable, Mapping

from hotplug import ops
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.placement.plan import Choice, Copy, Part
from hotplug.verify import CROSSING, state_chains, state_reads, verify_parts

__all__ = ["split"]


def split(graph: Graph, choices: Mapping[Node, Choice], *, eager: bool = False) -> tuple[Part, ...]:
    """Parts in the order in which they run.

    Args:
        graph: the graph.
        choices: the device of each node.
        eager: whether a part ends once it has made what another device waits for, so that the two
            can go on at the same time; else parts are as long as can be.
    """
    if len({choice.device for choice in choices.values()}) == 1:
        return (Part(next(iter(choices.values())).device, graph),)
    runs = _runs(graph, choices, eager=eager)
    parts = _Splitter(graph, choices, runs).parts()
    names = {position: [copy.name for copy in part.receives] for position, part in enumerate(parts)}
    verify_parts([part.graph for part in parts], names)
    return parts


def _runs(
    graph: Graph, choices: Mapping[Node, Choice], *, eager: bool
) -> list[tuple[str, list[Node]]]:
    """Nodes by device, in an order that keeps operands before users and reads before updates."""
    waiting = _waits(graph, choices)
    users: dict[Node, list[Node]] = {node: [] for node in waiting}
    for node, needed in waiting.items():
        for other in needed:
            users[other].append(node)
    missing = {node: len(needed) for node, needed in waiting.items()}
    ready: dict[str, deque[Node]] = {choice.device: deque() for choice in choices.values()}
    for node, count in missing.items():
        if not count:
            ready[choices[node].device].append(node)
    runs: list[tuple[str, list[Node]]] = []
    while any(ready.values()):
        device = max(ready, key=lambda name: len(ready[name]))
        run: list[Node] = []
        while ready[device]:
            node = ready[device].popleft()
            run.append(node)
            for user in users[node]:
                missing[user] -= 1
                if not missing[user]:
                    ready[choices[user].device].append(user)
            if eager and any(choices[user].device != device for user in users[node]):
                break
        runs.append((device, run))
    return runs


def _waits(graph: Graph, choices: Mapping[Node, Choice]) -> dict[Node, set[Node]]:
    """For each node to be run, those that must have run. Leaves that stay at home are not run."""
    results = {node for _, node in graph.outputs}
    waits: dict[Node, set[Node]] = {}
    for node in graph.nodes:
        if not node.is_leaf:
            waits[node] = {operand for operand in node.operands if operand in waits}
        elif node in results or (node.op == "state" and _is_read_elsewhere(node, graph, choices)):
            waits[node] = set()
    chains = state_chains(graph)
    for read in state_reads(graph, chains):
        later = chains[read.state][read.version :]
        if read.reader in waits and later and later[0] != read.reader:
            waits[later[0]].add(read.reader)
    for name, chain in chains.items():
        state = graph.states[name]
        if state in waits and chain:
            waits[chain[0]].add(state)
    return waits


def _is_read_elsewhere(state: Node, graph: Graph, choices: Mapping[Node, Choice]) -> bool:
    home = choices[state].device
    places = [choices[user].device for user in graph.consumers[state]]
    places += [choices[graph.states[name]].device for name, node in graph.updates if node == state]
    return any(place != home for place in places)


class _Splitter:
    def __init__(
        self,
        graph: Graph,
        choices: Mapping[Node, Choice],
        runs: list[tuple[str, list[Node]]],
    ) -> None:
        self._graph = graph
        self._choices = choices
        self._runs = runs
        self._part_of = {node: n for n, (_, run) in enumerate(runs) for node in run}
        self._updates = self._placed_updates()
        self._exported = self._crossing_values()

    def parts(self) -> tuple[Part, ...]:
        """All runs as graphs."""
        return tuple(self._part(position) for position in range(len(self._runs)))

    def stays(self, node: Node, position: int) -> bool:
        """Whether a part can use a leaf directly."""
        if node.op == "state":
            return self._choices[node].device == self._runs[position][0]
        return node.is_leaf

    def _part(self, position: int) -> Part:
        """One run as a graph, and what it is sent."""
        device, run = self._runs[position]
        builder = _Rebuilder(self, position)
        for node in run:
            builder.add(node)
        outputs = {
            name: builder.get(node)
            for name, node in self._graph.outputs
            if self._part_of[node] == position
        }
        outputs |= {name_of(node): builder.get(node) for node in run if node in self._exported}
        updates = {name: builder.get(node) for name, node in self._updates.get(position, ())}
        for name in updates:
            builder.get(self._graph.states[name])
        graph = Graph.ordered(builder.nodes, outputs, updates)
        return Part(device, graph, self._copies(device, graph, builder.received))

    def _copies(self, device: str, graph: Graph, received: Mapping[str, Node]) -> tuple[Copy, ...]:
        found = []
        for name, node in received.items():
            source = self._runs[self._part_of[node]][0]
            if name in graph.inputs and source != device:
                found.append(Copy(name, node, source, device))
        return tuple(found)

    def _placed_updates(self) -> dict[int, list[tuple[str, Node]]]:
        """By part: the states that become something new in it.

        A state that is updated where it lies, by the part that does so; any other by the last part
        on its device, since earlier ones may still read the old value.
        """
        chains = state_chains(self._graph)
        placed: dict[int, list[tuple[str, Node]]] = {}
        for name, node in self._graph.updates:
            home = self._choices[self._graph.states[name]].device
            position = self._part_of.get(node, -1)
            if name not in chains or self._device(position) != home:
                position = self._last_part_on(home, position)
            placed.setdefault(position, []).append((name, node))
        return placed

    def _device(self, position: int) -> str | None:
        return self._runs[position][0] if position >= 0 else None

    def _last_part_on(self, device: str, after: int) -> int:
        for position in range(len(self._runs) - 1, after - 1, -1):
            if self._device(position) == device:
                return position
        self._runs.append((device, []))
        return len(self._runs) - 1

    def _crossing_values(self) -> set[Node]:
        """Values that another part than their own needs."""
        found = set()
        for position, (_, run) in enumerate(self._runs):
            needed = [operand for node in run for operand in node.operands]
            needed += [node for _, node in self._updates.get(position, ())]
            for node in needed:
                if not self.stays(node, position) and self._part_of[node] != position:
                    found.add(node)
        return found


class _Rebuilder:
    """Nodes of the whole graph as nodes of one part."""

    def __init__(self, splitter: _Splitter, position: int) -> None:
        self.received: dict[str, Node] = {}
        self._splitter = splitter
        self._position = position
        self._made: dict[Node, Node] = {}

    @property
    def nodes(self) -> Iterable[Node]:
        """The part's nodes, operands before users."""
        return dict.fromkeys(self._made.values())

    def add(self, node: Node) -> None:
        """A node of the run, after its operands."""
        if node.is_leaf:
            self._made[node] = node
            return
        inputs = tuple(None if operand is None else self.get(operand) for operand in node.inputs)
        same = all(map(operator.is_, inputs, node.inputs))
        self._made[node] = node if same else Node(node.op, inputs, node.params, node.type)

    def get(self, node: Node) -> Node:
        """What stands for a node in this part: itself, or an input of its type."""
        if node not in self._made:
            if self._splitter.stays(node, self._position):
                self._made[node] = node
            else:
                name = name_of(node)
                self.received[name] = node
                self._made[node] = ops.input(name=name, dtype=node.dtype.name, shape=node.shape)
        return self._made[node]


def name_of(node: Node) -> str:
    """Name of a value that crosses."""
    return CROSSING + node.key
