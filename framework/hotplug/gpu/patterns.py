"""Patterns found in a graph so far: which nodes are in one, and which may wait to be computed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from hotplug.gpu.catalog.table import Lowering
from hotplug.gpu.tensors import Tensor
from hotplug.graph import Graph
from hotplug.memory import Fusion
from hotplug.node import Node

__all__ = ["Emit", "Found", "Fused"]

Emit: TypeAlias = "Callable[[Lowering, Sequence[Node], Mapping[Node, Tensor]], None]"
"""Adds the launches of some nodes, given where their operands and what is stored of them lie."""


@dataclass(frozen=True, slots=True)
class Fused(Fusion):
    """Nodes of a pattern, and the function of the catalog that adds their launches."""

    emit: Emit


class Found:
    """The patterns that were found in a graph so far.

    Attributes:
        graph: the graph.
        order: places of its nodes.
        groups: in the order in which they were found; no node is in two.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.order = {node: position for position, node in enumerate(graph.nodes)}
        self.groups: list[Fused] = []
        self._last: dict[Node, int] = {}

    def __contains__(self, node: Node) -> bool:
        return node in self._last

    def add(self, members: Collection[Node], stored: Collection[Node], emit: Emit) -> None:
        """Take some nodes, which become one group."""
        nodes = tuple(sorted(members, key=self.order.__getitem__))
        self.groups.append(Fused(nodes, frozenset(stored), emit))
        self._last.update(dict.fromkeys(nodes, self.order[nodes[-1]]))

    def may_wait(self, members: Collection[Node], stored: Collection[Node]) -> bool:
        """Whether nodes may be computed when the last of them is due, and nobody sees a difference.

        Args:
            members: the nodes, none of which reads what a state was.
            stored: those whose values others use.
        """
        last = max(map(self.order.__getitem__, members))
        for node in members:
            if node in stored:
                users = (user for user in self._users(node) if user not in members)
                if any(self._step(user) < last for user in users):
                    return False
            elif node in self.graph.results or not set(self.graph.consumers[node]) <= set(members):
                return False
        return True

    def _step(self, node: Node) -> int:
        """When a node is computed; patterns that are found later only let it wait for longer."""
        return self._last.get(node, self.order[node])

    def _users(self, node: Node) -> Iterator[Node]:
        """Who reads a node's value, in another shape maybe."""
        for user in self.graph.consumers[node]:
            if user.op == "reshape" and user not in self:
                yield from self._users(user)
            else:
                yield user
