"""Second pass: a graph as numbered steps, with what each needs and which states it touches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hotplug import ops
from hotplug.graph import Graph
from hotplug.node import Node

__all__ = ["Outline", "alike", "outline"]


@dataclass(frozen=True, slots=True)
class Outline:
    """A graph's steps: its nodes but for leaves, in graph order. Lists go by number of step.

    Attributes:
        graph: the graph.
        steps: the nodes.
        reads: numbers of the steps whose values each needs.
        inputs: names of the inputs that each reads.
        weights: weights that each reads.
        states: names of the states that each reads or updates, through views and updates as well.
        leaves: weights and states by name.
    """

    graph: Graph
    steps: tuple[Node, ...]
    reads: Sequence[tuple[int, ...]]
    inputs: Sequence[tuple[str, ...]]
    weights: Sequence[tuple[Node, ...]]
    states: Sequence[tuple[str, ...]]
    leaves: Mapping[str, Node]

    def users(self, leaf: str) -> list[int]:
        """Steps that read or update a weight or state."""
        if self.leaves[leaf].op == "state":
            return [number for number, states in enumerate(self.states) if leaf in states]
        node = self.leaves[leaf]
        return [number for number, weights in enumerate(self.weights) if node in weights]


def outline(graph: Graph) -> Outline:
    """Number the steps of a graph."""
    numbers: dict[Node, int] = {}
    state_of: dict[Node, str] = {}  # node -> the state that it is, or is a part of
    reads, inputs, weights, states = [], [], [], []
    leaves: dict[str, Node] = {}
    for node in graph.nodes:
        if node.is_leaf:
            if node.op != "input":
                leaves[node.name] = node
            if node.op == "state":
                state_of[node] = node.name
            continue
        operands = tuple(dict.fromkeys(node.operands))
        reads.append(tuple([numbers[n] for n in operands if n in numbers]))
        inputs.append(tuple([n.name for n in operands if n.op == "input"]))
        weights.append(tuple([n for n in operands if n.op == "weight"]))
        states.append(tuple(dict.fromkeys([state_of[n] for n in operands if n in state_of])))
        numbers[node] = len(numbers)
        row = ops.get(node.op)
        origin = node.inputs[0 if row.view else row.updates or 0] if _follows(node) else None
        if origin is not None and origin in state_of:
            state_of[node] = state_of[origin]
    return Outline(graph, tuple(numbers), reads, inputs, weights, states, leaves)


def _follows(node: Node) -> bool:
    """Whether a node is another look at an operand, or that operand updated."""
    row = ops.get(node.op)
    return row.view or row.updates is not None


def alike(one: Graph, other: Graph) -> bool:
    """Whether graphs are the same but for sizes, as a decoder's of different widths are."""
    return len(one.nodes) == len(other.nodes) and all(
        a.op == b.op and (not a.is_leaf or a.name == b.name)
        for a, b in zip(one.nodes, other.nodes, strict=True)
    )
