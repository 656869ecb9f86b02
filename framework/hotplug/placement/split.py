"""Fourth pass: runs of nodes on one device become graphs of their own.

Nodes are taken in an order in which each device keeps going for as long as it has something ready,
so that there are few parts. A value that another device needs becomes an output "@<key>" of its
part and an input of that name where it is needed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

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
    homes = [choices[node].device for node in graph.nodes]
    if len(set(homes)) == 1:
        return (Part(homes[0], graph),)
    chains = state_chains(graph)
    runs = _runs(_waits(graph, homes, chains), homes, eager=eager)
    parts = _Splitter(graph, homes, chains, runs).parts()
    names = {position: [copy.name for copy in part.receives] for position, part in enumerate(parts)}
    verify_parts([part.graph for part in parts], names)
    return parts


Waits = Sequence[Sequence[int] | None]
"""By position of a node, those that must have run before; None for a leaf that stays at home."""

Run = tuple[str, list[int]]
"""A device, and the positions of nodes that it runs without a pause."""


def _runs(waits: Waits, homes: Sequence[str], *, eager: bool) -> list[Run]:
    """Nodes by device, in an order that keeps operands before users and reads before updates."""
    users: list[list[int]] = [[] for _ in waits]
    missing = [0] * len(waits)
    ready: dict[str, deque[int]] = {home: deque() for home in homes}
    for node, needed in enumerate(waits):
        if needed is None:
            continue
        missing[node] = len(needed)
        for other in needed:
            users[other].append(node)
        if not needed:
            ready[homes[node]].append(node)
    runs: list[Run] = []
    while any(ready.values()):
        device = max(ready, key=lambda name: len(ready[name]))
        run: list[int] = []
        queue = ready[device]
        while queue:
            node = queue.popleft()
            run.append(node)
            for user in users[node]:
                missing[user] -= 1
                if not missing[user]:
                    ready[homes[user]].append(user)
            if eager and any(homes[user] != device for user in users[node]):
                break
        runs.append((device, run))
    return runs


def _waits(graph: Graph, homes: Sequence[str], chains: Mapping[str, tuple[Node, ...]]) -> Waits:
    at = graph.positions
    moved = _read_elsewhere(graph, homes)
    results = {at[node] for _, node in graph.outputs}
    waits: list[list[int] | None] = []
    for position, (node, reads) in enumerate(zip(graph.nodes, graph.reads, strict=True)):
        if not node.is_leaf:
            waits.append([operand for operand in reads if waits[operand] is not None])
        else:
            waits.append([] if position in results or position in moved else None)
    for read in state_reads(graph, chains):
        later = chains[read.state][read.version :]
        if read.reader is not None and later and later[0] != read.reader:
            _wait(waits, at[later[0]], at[read.reader])
    for name, chain in chains.items():
        if chain:
            _wait(waits, at[chain[0]], at[graph.states[name]])
    return waits


def _wait(waits: Sequence[list[int] | None], node: int, other: int) -> None:
    """Have a node wait for one more, where both are run."""
    needed = waits[node]
    if needed is not None and waits[other] is not None and other not in needed:
        needed.append(other)


def _read_elsewhere(graph: Graph, homes: Sequence[str]) -> set[int]:
    """States that nodes of other devices read, or that states of other devices become."""
    at = graph.positions
    readers = [(state, user) for user, reads in enumerate(graph.reads) for state in reads]
    readers += [(at[node], at[graph.states[name]]) for name, node in graph.updates]
    return {
        state
        for state, user in readers
        if homes[state] != homes[user] and graph.nodes[state].op == "state"
    }


class _Splitter:
    def __init__(
        self,
        graph: Graph,
        homes: Sequence[str],
        chains: Mapping[str, tuple[Node, ...]],
        runs: list[Run],
    ) -> None:
        self.graph = graph
        self._homes = homes
        self._runs = runs
        self._part_of = {node: n for n, (_, run) in enumerate(runs) for node in run}
        self._updates = self._placed_updates(chains)
        self._exported = self._crossing_values()

    def parts(self) -> tuple[Part, ...]:
        """All runs as graphs."""
        return tuple(self._part(position) for position in range(len(self._runs)))

    def stays(self, node: int, position: int) -> bool:
        """Whether a part can use a leaf directly."""
        leaf = self.graph.nodes[node]
        if leaf.op == "state":
            return self._homes[node] == self._runs[position][0]
        return leaf.is_leaf

    def _part(self, position: int) -> Part:
        """One run as a graph, and what it is sent."""
        device, run = self._runs[position]
        nodes, at = self.graph.nodes, self.graph.positions
        builder = _Rebuilder(self, position)
        for node in run:
            builder.add(node)
        outputs = {
            name: builder.get(at[node])
            for name, node in self.graph.outputs
            if self._part_of[at[node]] == position
        }
        exported = [node for node in run if node in self._exported]
        outputs |= {name_of(nodes[node]): builder.get(node) for node in exported}
        updates = {name: builder.get(node) for name, node in self._updates.get(position, ())}
        for name in updates:
            builder.get(at[self.graph.states[name]])
        graph = Graph.ordered(builder.nodes, outputs, updates)
        return Part(device, graph, self._copies(device, graph, builder.received))

    def _copies(self, device: str, graph: Graph, received: Mapping[str, int]) -> tuple[Copy, ...]:
        found = []
        for name, node in received.items():
            source = self._runs[self._part_of[node]][0]
            if name in graph.inputs and source != device:
                found.append(Copy(name, self.graph.nodes[node], source, device))
        return tuple(found)

    def _placed_updates(
        self, chains: Mapping[str, tuple[Node, ...]]
    ) -> dict[int, list[tuple[str, int]]]:
        """By part: the states that become something new in it.

        A state that is updated where it lies, by the part that does so; any other by the last part
        on its device, since earlier ones may still read the old value.
        """
        at = self.graph.positions
        placed: dict[int, list[tuple[str, int]]] = {}
        for name, node in self.graph.updates:
            home = self._homes[at[self.graph.states[name]]]
            position = self._part_of.get(at[node], -1)
            if name not in chains or self._device(position) != home:
                position = self._last_part_on(home, position)
            placed.setdefault(position, []).append((name, at[node]))
        return placed

    def _device(self, position: int) -> str | None:
        return self._runs[position][0] if position >= 0 else None

    def _last_part_on(self, device: str, after: int) -> int:
        for position in range(len(self._runs) - 1, after - 1, -1):
            if self._device(position) == device:
                return position
        self._runs.append((device, []))
        return len(self._runs) - 1

    def _crossing_values(self) -> set[int]:
        """Values that another part than their own needs."""
        found = set()
        for position, (_, run) in enumerate(self._runs):
            needed = {operand for node in run for operand in self.graph.reads[node]}
            needed.update(node for _, node in self._updates.get(position, ()))
            for node in needed - set(run):
                if not self.stays(node, position) and self._part_of[node] != position:
                    found.add(node)
        return found


class _Rebuilder:
    """Nodes of the whole graph as nodes of one part."""

    def __init__(self, splitter: _Splitter, position: int) -> None:
        self.received: dict[str, int] = {}
        self._splitter = splitter
        self._graph = splitter.graph
        self._position = position
        self._made: dict[int, Node] = {}
        self._changed: set[int] = set()

    @property
    def nodes(self) -> Iterable[Node]:
        """The part's nodes, operands before users."""
        return self._made.values()

    def add(self, number: int) -> None:
        """A node of the run, after its operands."""
        node, reads = self._graph.nodes[number], self._graph.reads[number]
        for operand in reads:
            if operand not in self._made:
                self.get(operand)
        if not self._changed.isdisjoint(reads):
            node = Node(node.op, self._renewed(node, reads), node.params, node.type)
            self._changed.add(number)
        self._made[number] = node

    def _renewed(self, node: Node, reads: Sequence[int]) -> tuple[Node | None, ...]:
        if len(reads) == len(node.inputs):
            return tuple([self._made[read] for read in reads])
        at = self._graph.positions
        return tuple([None if n is None else self._made[at[n]] for n in node.inputs])

    def get(self, number: int) -> Node:
        """What stands for a node in this part: itself, or an input of its type."""
        if number not in self._made:
            node = self._graph.nodes[number]
            if not self._splitter.stays(number, self._position):
                name = name_of(node)
                self.received[name] = number
                self._changed.add(number)
                node = ops.input(name=name, dtype=node.dtype.name, shape=node.shape)
            self._made[number] = node
        return self._made[number]


def name_of(node: Node) -> str:
    """Name of a value that crosses."""
    return CROSSING + node.key
