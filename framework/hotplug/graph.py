"""A graph: what to compute, apart from where.

A graph is built from its results backwards: every node reachable from `outputs` and `updates` is
in it, each once, operands before users. Leaves are known by name: *inputs* change on every run,
*weights* never, *states* (a KV cache) live on the device between runs. `updates` names the node
that becomes a state's next value.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from hotplug.errors import GraphError
from hotplug.node import Node

__all__ = ["Graph"]


@dataclass(frozen=True, eq=False)
class Graph:
    """Immutable; compares and hashes by key.

    Attributes:
        outputs: (name, node) pairs whose values a run returns.
        updates: (state name, node) pairs: the state's value after a run.
        nodes: every node, operands before users.
        key: 32 hex digits, the same in every process for the same graph.
    """

    outputs: tuple[tuple[str, Node], ...]
    updates: tuple[tuple[str, Node], ...]
    nodes: tuple[Node, ...]
    key: str

    @classmethod
    def build(cls, outputs: Mapping[str, Node], updates: Mapping[str, Node] | None = None) -> Graph:
        """Collect the graph of some results.

        Raises:
            GraphError: no result, two different leaves of one name, or an update of no state.
        """
        if not outputs and not updates:
            raise GraphError("a graph needs at least one output or update")
        pairs = tuple(outputs.items())
        renewed = tuple((updates or {}).items())
        nodes = _in_order(node for _, node in pairs + renewed)
        _check_leaves(nodes, renewed)
        return cls(pairs, renewed, nodes, _key(pairs, renewed))

    @classmethod
    def ordered(
        cls,
        nodes: Iterable[Node],
        outputs: Mapping[str, Node],
        updates: Mapping[str, Node] | None = None,
    ) -> Graph:
        """A graph whose nodes run in the order given, as a part of a graph or one read from bytes.

        Nodes that no result needs are left out.

        Raises:
            GraphError: a node comes before one of its operands or is missing, or as for `build`.
        """
        if not outputs and not updates:
            raise GraphError("a graph needs at least one output or update")
        pairs = tuple(outputs.items())
        renewed = tuple((updates or {}).items())
        needed = _needed(nodes, pairs + renewed, {name for name, _ in renewed})
        _check_leaves(needed, renewed)
        return cls(pairs, renewed, needed, _key(pairs, renewed))

    @cached_property
    def inputs(self) -> dict[str, Node]:
        """Input leaves by name."""
        return self._leaves("input")

    @cached_property
    def weights(self) -> dict[str, Node]:
        """Weight leaves by name."""
        return self._leaves("weight")

    @cached_property
    def states(self) -> dict[str, Node]:
        """State leaves by name."""
        return self._leaves("state")

    @cached_property
    def consumers(self) -> dict[Node, tuple[Node, ...]]:
        """For each node the nodes that use it, in graph order, each once."""
        found: list[list[Node]] = [[] for _ in self.nodes]
        for node, reads in zip(self.nodes, self.reads, strict=True):
            for position in reads:
                found[position].append(node)
        return dict(zip(self.nodes, map(tuple, found), strict=True))

    @cached_property
    def positions(self) -> dict[Node, int]:
        """For each node its place among `nodes`."""
        return {node: position for position, node in enumerate(self.nodes)}

    @cached_property
    def reads(self) -> tuple[tuple[int, ...], ...]:
        """For each node by position, the positions of its operands, each once.

        Raises:
            KeyError: an operand is not in the graph; see `hotplug.verify`.
        """
        at = self.positions
        found = []
        for node in self.nodes:
            reads = tuple([at[operand] for operand in node.operands])
            found.append(reads if len(reads) < _PAIR else tuple(dict.fromkeys(reads)))
        return tuple(found)

    @cached_property
    def kinds(self) -> dict[Node, int]:
        """For each node but leaves the number of its kind; see `Node.kind`."""
        numbers: dict[tuple[object, ...], int] = {}
        inner = (node for node in self.nodes if not node.is_leaf)
        return {node: numbers.setdefault(node.kind, len(numbers)) for node in inner}

    @cached_property
    def results(self) -> frozenset[Node]:
        """Nodes whose values outlive the run: outputs and updates."""
        return frozenset(node for _, node in self.outputs + self.updates)

    def _leaves(self, op: str) -> dict[str, Node]:
        return {node.name: node for node in self.nodes if node.op == op}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"<Graph {self.key[:8]}: {len(self.nodes)} nodes>"


_PAIR = 2


def _in_order(results: Iterable[Node]) -> tuple[Node, ...]:
    """Depth first without recursion: a chain may be longer than Python's stack."""
    ordered: dict[Node, None] = {}
    stack: list[tuple[Node, bool]] = [(node, False) for node in reversed(tuple(results))]
    while stack:
        node, operands_done = stack.pop()
        if node in ordered:
            continue
        if operands_done:
            ordered[node] = None
            continue
        stack.append((node, True))
        stack.extend((operand, False) for operand in reversed(node.operands))
    return tuple(ordered)


def _needed(
    nodes: Iterable[Node], results: Iterable[tuple[str, Node]], states: set[str]
) -> tuple[Node, ...]:
    """The given nodes that results need, their order checked; and the states to be updated."""
    at: dict[Node, int] = {}
    reads: list[list[int]] = []
    for node in nodes:
        if node in at:
            continue
        try:
            reads.append([at[operand] for operand in node.operands])
        except KeyError as missing:
            name = missing.args[0].name
            raise GraphError(f"{node.name} comes before its operand {name}", op=node.op) from None
        at[node] = len(at)
    needed = [node.op == "state" and node.name in states for node in at]
    for name, node in results:
        if node not in at:
            raise GraphError(f"{name!r} is {node.name}, which is not among the nodes", op=node.op)
        needed[at[node]] = True
    for number in reversed(range(len(reads))):
        if needed[number]:
            for operand in reads[number]:
                needed[operand] = True
    return tuple(itertools.compress(at, needed))


def _check_leaves(nodes: tuple[Node, ...], updates: tuple[tuple[str, Node], ...]) -> None:
    leaves: dict[str, Node] = {}
    for node in nodes:
        if node.is_leaf and leaves.setdefault(node.name, node) != node:
            raise GraphError(f"two different leaves are named {node.name!r}", op=node.op)
    for name, node in updates:
        state = leaves.get(name)
        if state is None or state.op != "state":
            raise GraphError(f"update of {name!r}, which is no state of the graph")
        if state.type != node.type:
            raise GraphError(f"state {name!r} is {state.type} and cannot become {node.type}")


def _key(outputs: tuple[tuple[str, Node], ...], updates: tuple[tuple[str, Node], ...]) -> str:
    text = repr([[(name, node.key) for name, node in pairs] for pairs in (outputs, updates)])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
