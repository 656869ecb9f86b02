"""Looking at values while they are made.

A device hands out results and not what lies between them, and it computes several nodes at once
where it can. So a graph that is looked at is run as another graph, in which the nodes in question
are outputs: they have a place of their own, and are there once the part that makes them has run.
Nothing of this is done, and nothing costs anything, while nobody looks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from hotplug import ops
from hotplug.errors import UsageError
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.session.values import Value

__all__ = [
    "OBSERVED",
    "Observation",
    "Observer",
    "callback_observer",
    "is_observed",
    "with_observed",
]

OBSERVED = "observed:"
"""First characters of the names of outputs that are there to be looked at."""

Callback: TypeAlias = "Callable[[Observation], object]"


@dataclass(frozen=True, slots=True)
class Observation:
    """A node that has been computed; good for as long as the call that it is given to.

    Attributes:
        node: the node of the graph.
        device: id of the device that computed it.
        read: gives a copy of the value; `value` is the name to use.
    """

    node: Node
    device: str
    read: Callable[[], Value]

    @property
    def op(self) -> str:
        """The node's op."""
        return self.node.op

    @property
    def name(self) -> str:
        """Op and start of the key, with the names of the weights and states it takes."""
        return self.node.label

    def value(self) -> Value:
        """A copy of the value: an array, or a host tensor where NumPy lacks the dtype."""
        return self.read()


class Observer(Protocol):
    """Whoever looks at the values of nodes."""

    def wants(self, node: Node) -> bool:
        """Whether a node, which is no leaf, is to be looked at. Asked once for each graph."""

    def begin(self, graph: Graph, leaf: Callable[[str], Value]) -> None:
        """A run of a graph begins, in the form in which devices share it.

        Args:
            graph: what runs; observed nodes are of it.
            leaf: reads a leaf by name: inputs and states until this returns, weights at any time.
        """

    def see(self, seen: Observation) -> object:
        """A node was computed. False cancels the whole run, on all devices."""


class _Callback:
    """A function as an observer."""

    def __init__(self, callback: Callback, wants: Callable[[Node], bool]) -> None:
        self.see = callback
        self.wants = wants

    def begin(self, graph: Graph, leaf: Callable[[str], Value]) -> None:
        del graph, leaf


def callback_observer(
    callback: Callback, nodes: str | Callable[[Node], bool] | None = None
) -> Observer:
    """An observer that calls a function.

    Args:
        callback: called with each observation.
        nodes: a regular expression found in the nodes' labels, or a function of a node; None for
            all nodes but views.

    Raises:
        UsageError: the expression is none.
    """
    if nodes is None:
        return _Callback(callback, lambda node: not ops.get(node.op).view)
    if not isinstance(nodes, str):
        return _Callback(callback, nodes)
    try:
        pattern = re.compile(nodes)
    except re.error as error:
        raise UsageError(f"{nodes!r} is no regular expression: {error}") from error
    return _Callback(callback, lambda node: pattern.search(node.label) is not None)


def with_observed(graph: Graph, observers: Iterable[Observer]) -> Graph:
    """The graph with all nodes that any observer wants as further outputs.

    Raises:
        UsageError: an observer wants no node.
    """
    wanted: dict[Node, None] = {}
    computed = [node for node in graph.nodes if not node.is_leaf]
    for observer in observers:
        found = [node for node in computed if observer.wants(node)]
        if not found:
            raise UsageError("no node of the graph is one of those to be observed")
        wanted.update(dict.fromkeys(found))
    outputs = dict(graph.outputs) | {OBSERVED + node.key: node for node in wanted}
    return Graph.ordered(graph.nodes, outputs, dict(graph.updates))


def is_observed(graph: Graph) -> bool:
    """Whether a graph is the form in which another one is looked at."""
    return any(name.startswith(OBSERVED) for name, _ in graph.outputs)
