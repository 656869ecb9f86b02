"""Graph -> program: which kernel computes which nodes, several at once where there is one for that.

Nodes are taken in the graph's order. `patterns` says which nodes are left to those that use them,
and how a node becomes steps. What no compiled kernel does becomes a step of its NumPy kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hotplug import ops
from hotplug.graph import Graph
from hotplug.layout import Layout
from hotplug.node import Node
from hotplug.verify import state_chains, updated_operand
from hotplug_cpu import patterns
from hotplug_cpu.program import Address, Argument, NumpyStep, Place, Program, Rows, Step, Store

__all__ = ["Lowering", "lower"]


def lower(graph: Graph, threads: int) -> Program:
    """The program of a graph for so many threads."""
    lowering = Lowering(graph, threads)
    for node in graph.nodes:
        lowering.take(node)
    lowering.give_results()
    lowering.program.place_stores()
    return lowering.program


class Lowering:
    """A graph on its way to a program; what `patterns` works with.

    Attributes:
        graph: the graph.
        threads: how many threads will run it.
        program: the steps so far.
        places: where the values computed so far lie.
        bytes: values as blocks of bytes.
        memo: other things computed from values, by what they are and of which nodes.
        laid_out: values laid out for products, by the form and the node.
        left: nodes that are left to their users.
    """

    def __init__(self, graph: Graph, threads: int) -> None:
        self.graph = graph
        self.threads = threads
        self.program = Program()
        self.places: dict[Node, Place] = {}
        self.bytes: dict[Node, Rows] = {}
        self.memo: dict[tuple[object, ...], Store] = {}
        self.laid_out: dict[tuple[str, Node], Rows] = {}
        self.left = patterns.left_to_users(graph)
        chains = state_chains(graph)
        self._in_place = {node for chain in chains.values() for node in chain}
        self._chained = chains.keys()

    def take(self, node: Node) -> None:
        """Make steps of the next node."""
        if node.is_leaf:
            store = Store(node.type.nbytes, buffer=node.name)
            self.places[node] = Place(store, Layout.contiguous(node.shape))
        elif node not in self.left:
            self._compute(node)

    def require(self, node: Node) -> None:
        """Compute a value that was left to its users, because a user cannot do it after all."""
        if node not in self.places:
            for operand in node.operands:
                self.require(operand)
            self._compute(node)

    def give_results(self) -> None:
        """Have outputs computed where they belong or copied there; then states."""
        for name, node in self.graph.outputs:
            place = self.places[node]
            fills = place.layout.is_contiguous and place.store.nbytes == node.type.nbytes
            if place.store.in_arena and fills:
                place.store.buffer = f"output:{name}"
            else:
                self._copy(node, f"output:{name}")
        for name, node in self.graph.updates:
            if name not in self._chained:
                self._copy(node, name)

    def emit(
        self,
        kernel: str,
        arguments: Sequence[Argument],
        writes: Store,
        nodes: Sequence[Node],
        scratch: Store | None = None,
        own: Mapping[Store, object] | None = None,
    ) -> None:
        """Add a step that writes a store, and maybe scratch memory; `own` as in `Step`."""
        written = (writes,) if scratch is None else (writes, scratch)
        step = Step(kernel, tuple(arguments), written, tuple(nodes), own or {})
        self.program.steps.append(step)

    def new(self, node: Node) -> Place:
        """A new contiguous place for a node's value."""
        place = Place(Store(node.type.nbytes), Layout.contiguous(node.shape))
        self.places[node] = place
        return place

    def updated(self, node: Node) -> Place | None:
        """For an update that is done where its operand lies: that place."""
        operand = updated_operand(node)
        if operand is None or not self.can_update(node):
            return None
        self.places[node] = self.places[operand]
        return self.places[node]

    def address(self, node: Node) -> Address:
        """Where the first element of a value lies."""
        place = self.places[node]
        return Address(place.store, node.dtype.nbytes(place.layout.offset))

    def is_contiguous(self, *nodes: Node) -> bool:
        """Whether values lie in row-major order without gaps."""
        return all(self.places[node].layout.is_contiguous for node in nodes)

    def rows(self, node: Node) -> Rows | None:
        """A plain value as rows along its last axis; None if they do not lie evenly."""
        place, count = self.places[node], node.shape[-1] if node.shape else 1
        number = node.type.size // count if count else 0
        layout = place.layout.reshape((number, count)) if number else None
        if layout is None or (layout.strides[1] != 1 and count > 1):
            return None
        stride = layout.strides[0] if number > 1 else count
        size = node.dtype.block_bytes
        return Rows(Address(place.store, layout.offset * size), stride * size, number, count)

    def can_update(self, node: Node) -> bool:
        """Whether an update is done where its operand lies."""
        return node in self._in_place

    def _compute(self, node: Node) -> None:
        if ops.get(node.op).view:
            self._view(node)
            return
        rule = patterns.RULES.get(node.op)
        if rule is None or node.type.size == 0 or not rule(self, node):
            self._numpy(node, self._result(node))

    def _view(self, node: Node) -> None:
        place = self.places[node.operands[0]]
        layout = ops.view_layout(node, place.layout)
        if layout is None:
            self._numpy(node, self.new(node))
        else:
            self.places[node] = Place(place.store, layout)

    def _result(self, node: Node) -> Place:
        return self.updated(node) or self.new(node)

    def _numpy(self, node: Node, out: Place) -> None:
        for operand in node.operands:
            self.require(operand)
        operands = tuple(
            None if operand is None else (operand, self.places[operand]) for operand in node.inputs
        )
        self.program.steps.append(NumpyStep(node, operands, out))

    def _copy(self, node: Node, buffer: str) -> None:
        out = Place(Store(node.type.nbytes, buffer=buffer), Layout.contiguous(node.shape))
        step = NumpyStep(node, ((node, self.places[node]),), out, copies=True)
        self.program.steps.append(step)
