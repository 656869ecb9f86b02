"""Second pass: a graph as numbered steps, with what each needs and which states it touches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hotplug import ops
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.verify import updated_operand

__all__ = ["Outline", "alike", "outline"]


@dataclass(frozen=True, slots=True)
class Outline:
    """A graph's steps: its nodes but for leaves, in graph order. Lists go by number of step.

    Attributes:
        graph: the graph.
        steps: the nodes.
        reads: numbers of the steps whose values each needs.
        weights: weights that each reads.
        states: names of the states that each reads or updates, through views and updates as well.
        leaves: weights and states by name.
    """

    graph: Graph
    steps: tuple[Node, ...]
    reads: Sequence[tuple[int, ...]]
    weights: Sequence[tuple[Node, ...]]
    states: Sequence[tuple[str, ...]]
    leaves: Mapping[str, Node]


def outline(graph: Graph) -> Outline:
    """Number the steps of a graph."""
    nodes = graph.nodes
    steps: list[Node] = []
    reads, weights, states = [], [], []
    numbers = [-1] * len(nodes)  # by position, the number of the step
    state_of = [""] * len(nodes)  # by position, the state that it is, or is a part of
    leaves: dict[str, Node] = {}
    for position, (node, operands) in enumerate(zip(nodes, graph.reads, strict=True)):
        if node.is_leaf:
            if node.op != "input":
                leaves[node.name] = node
            if node.op == "state":
                state_of[position] = node.name
            continue
        reads.append(tuple([numbers[n] for n in operands if numbers[n] >= 0]))
        weights.append(tuple([nodes[n] for n in operands if nodes[n].op == "weight"]))
        touched = [state_of[n] for n in operands if state_of[n]]
        states.append(tuple(dict.fromkeys(touched)) if touched else ())
        numbers[position] = len(steps)
        steps.append(node)
        if touched and (origin := _followed(node)) is not None:
            state_of[position] = state_of[graph.positions[origin]]
    return Outline(graph, tuple(steps), reads, weights, states, leaves)


def _followed(node: Node) -> Node | None:
    """The operand that a node is another look at, or an update of."""
    row = ops.get(node.op)
    return node.inputs[0] if row.view else updated_operand(node)


def alike(one: Graph, other: Graph) -> bool:
    """Whether graphs are the same but for sizes, as a decoder's of different widths are."""
    return len(one.nodes) == len(other.nodes) and all(
        a.op == b.op and (not a.is_leaf or a.name == b.name)
        for a, b in zip(one.nodes, other.nodes, strict=True)
    )
