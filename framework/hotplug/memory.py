"""Which bytes hold which value: lifetimes, storage shared in place, offsets in one arena.

`plan(graph)` decides for every node where its value lies:

    leaf      in the buffer bound to a leaf; also an update of a state, which is made where it lies
    output    in the buffer bound to an output
    arena     at an offset of the one block that holds all intermediate values

A view lies in its operand's storage. An op whose row says `inplace` takes over the storage of an
operand that nobody needs any more. An executor that computes several nodes at once says so, and
those that it never stores get no place. `hotplug.arena` does the arithmetic alone, for executors
that plan anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from hotplug import ops
from hotplug.arena import ALIGNMENT, Interval, allocate, lower_bound
from hotplug.graph import Graph
from hotplug.layout import Layout
from hotplug.node import Node
from hotplug.verify import state_chains, updated_operand

if TYPE_CHECKING:
    pass

__all__ = [
    "Fusion",
    "Location",
    "MemoryPlan",
    "Storage",
    "StorageKind",
    "plan",
]


class StorageKind(Enum):
    """Who owns the bytes."""

    LEAF = "leaf"
    OUTPUT = "output"
    ARENA = "arena"


@dataclass(slots=True, eq=False)
class Storage:
    """A run of bytes that one or more values live in. Compared by identity.

    Attributes:
        kind: what it is part of.
        name: the leaf's or output's name; empty in the arena.
        offset: bytes from the start of the arena; 0 for others.
        nbytes: its length.
        start: step (position in `graph.nodes`) at which it is first written.
        end: last step at which it is needed; the number of nodes if it outlives the run.
    """

    kind: StorageKind
    name: str
    nbytes: int
    start: int
    end: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Location:
    """Where one node's value lies.

    Attributes:
        storage: the bytes.
        layout: shape, strides and offset of the value in the storage, in elements.
        shares: the operand whose storage it is, for views, values made in place, and updates.
        copies: the op's rule takes the operand's storage, but the value has one of its own: a view
            that the operand's layout does not allow, or an update of a value still needed. The
            executor first copies the operand into it.
    """

    storage: Storage
    layout: Layout
    shares: Node | None = None
    copies: bool = False


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Storage of every value of a graph.

    A run does, in this order: the nodes; `output_copies`; `state_writes`.

    Attributes:
        locations: where each node's value lies.
        output_copies: (output name, node): outputs whose value lies elsewhere and is copied last.
        state_writes: (state name, node): new values of states that were not made in place.
        arena_bytes: size of the arena.
        lower_bound: bytes of intermediate values in use at the fullest step.
    """

    locations: dict[Node, Location]
    output_copies: tuple[tuple[str, Node], ...]
    state_writes: tuple[tuple[str, Node], ...]
    arena_bytes: int
    lower_bound: int


@dataclass(frozen=True, slots=True)
class Fusion:
    """Nodes that an executor computes at once, when the last of them is due.

    Each element of what is stored has to be read before the same element of a result is written.

    Attributes:
        nodes: in the graph's order. Before the last, nobody else uses what they make.
        stored: those whose values are stored, the last one among them; others get no place.
    """

    nodes: tuple[Node, ...]
    stored: frozenset[Node]


def plan(graph: Graph, alignment: int = ALIGNMENT, fusions: Iterable[Fusion] = ()) -> MemoryPlan:
    """Storage of every value of a verified graph.

    Args:
        graph: what runs; its hazards were checked by `hotplug.verify`.
        alignment: bytes; offsets in the arena are multiples of it.
        fusions: nodes that are computed at once, each in one of them.
    """
    planner = _Planner(graph, fusions)
    planner.find_values()
    planner.place_nodes()
    copies = planner.take_outputs()
    writes = planner.late_updates()
    arena = [s for s in planner.storages if s.kind is StorageKind.ARENA]
    intervals = [Interval(s.nbytes, s.start, s.end) for s in arena]
    allocation = allocate(intervals, alignment)
    for storage, offset in zip(arena, allocation.offsets, strict=True):
        storage.offset = offset
    bound = lower_bound(intervals, alignment)
    return MemoryPlan(planner.locations, copies, writes, allocation.peak, bound)


@dataclass(slots=True, eq=False)
class _Value:
    """A computed value together with its views: they are read, and die, as one.

    Attributes:
        last: last step at which it is read; the number of nodes if it outlives the run.
        storage: where it lies, once placed.
        base: where in the storage it begins, in elements.
        stored: whether it lies anywhere.
    """

    last: int
    storage: Storage | None = None
    base: int = 0
    stored: bool = True


class _Planner:
    """The steps of `plan`, in the order of its methods."""

    def __init__(self, graph: Graph, fusions: Iterable[Fusion]) -> None:
        self.graph = graph
        self.locations: dict[Node, Location] = {}
        self.storages: list[Storage] = []
        self._steps = {node: step for step, node in enumerate(graph.nodes)}
        self._fused = {node: fusion for fusion in fusions for node in fusion.nodes}
        self._chains = state_chains(graph)
        self._in_state = frozenset(node for chain in self._chains.values() for node in chain)
        self._values: dict[Node, _Value] = {}
        self._layouts: dict[Node, Layout] = {}  # within the value, not yet within the storage

    def find_values(self) -> None:
        """Gather views with what they look at, and note when each value is last read."""
        for node in self.graph.nodes:
            fusion, step = self._fused.get(node), self._step(node)
            layout = None if fusion else self._layout_as_view(node)
            if layout is not None:
                self._values[node] = self._values[node.operands[0]]
            else:
                self._values[node] = _Value(step, stored=not fusion or node in fusion.stored)
                for operand in node.operands:
                    value = self._values[operand]
                    value.last = max(value.last, step)
            self._layouts[node] = layout or Layout.contiguous(node.shape)
        for node in self.graph.results:
            self._values[node].last = len(self.graph.nodes)

    def _step(self, node: Node) -> int:
        """When a node is computed."""
        fusion = self._fused.get(node)
        return self._steps[fusion.nodes[-1] if fusion else node]

    def _layout_as_view(self, node: Node) -> Layout | None:
        if not ops.get(node.op).view:
            return None
        return ops.view_layout(node, self._layouts[node.operands[0]])

    def place_nodes(self) -> None:
        """Give every node a location; offsets in the arena come later."""
        for step, node in enumerate(self.graph.nodes):
            value = self._values[node]
            if not value.stored:
                continue
            shares: Node | None = None
            copies = False
            if value.storage is not None:
                shares = node.operands[0]
            elif node.is_leaf:
                value.storage = self._leaf_storage(node)
            else:
                shares = self._operand_to_overwrite(node)
                copies = shares is None and _wants_operand_storage(node)
                self._give_storage(step, node, value, shares)
            assert value.storage is not None
            layout = _moved(self._layouts[node], value.base)
            self.locations[node] = Location(value.storage, layout, shares, copies)

    def _leaf_storage(self, leaf: Node) -> Storage:
        return Storage(StorageKind.LEAF, leaf.name, leaf.type.nbytes, 0, len(self.graph.nodes))

    def _give_storage(self, step: int, node: Node, value: _Value, shares: Node | None) -> None:
        if shares is None:
            value.storage = Storage(StorageKind.ARENA, "", node.type.nbytes, step, value.last)
            self.storages.append(value.storage)
            return
        location = self.locations[shares]
        value.storage, value.base = location.storage, location.layout.offset
        value.storage.end = max(value.storage.end, value.last)

    def _operand_to_overwrite(self, node: Node) -> Node | None:
        """The operand whose storage the node may take over, if there is one."""
        if node in self._in_state:
            return updated_operand(node)
        row = ops.get(node.op)
        positions = row.inplace if row.updates is None else (row.updates,)
        for position in positions:
            operand = node.inputs[position] if position < len(node.inputs) else None
            if operand is not None and self._may_overwrite(node, operand):
                return operand
        return None

    def _may_overwrite(self, node: Node, operand: Node) -> bool:
        value = self._values[operand]
        location = self.locations.get(operand)
        # Who reads one value through two operands could meet its own results in the other.
        fusion = self._fused.get(node)
        together = fusion.nodes if fusion else (node,)
        readers = sum(self._values[other] is value for one in together for other in one.operands)
        return (
            location is not None
            and location.storage.kind is StorageKind.ARENA
            and value.last == self._step(node)
            and readers == 1
            and operand.type == node.type
            and location.layout.is_contiguous
        )

    def take_outputs(self) -> tuple[tuple[str, Node], ...]:
        """Let outputs be computed in their own buffers; returns those to be copied there."""
        copies = []
        for name, node in self.graph.outputs:
            storage = self.locations[node].storage
            layout = self.locations[node].layout
            fills = layout.is_contiguous and storage.nbytes == node.type.nbytes
            if storage.kind is StorageKind.ARENA and fills:
                storage.kind, storage.name = StorageKind.OUTPUT, name
            else:
                copies.append((name, node))
        return tuple(copies)

    def late_updates(self) -> tuple[tuple[str, Node], ...]:
        """States whose next value is copied into them after the run."""
        return tuple((name, node) for name, node in self.graph.updates if name not in self._chains)


def _wants_operand_storage(node: Node) -> bool:
    row = ops.get(node.op)
    return row.view or row.updates is not None


def _moved(layout: Layout, base: int) -> Layout:
    return Layout(layout.shape, layout.strides, layout.offset + base) if base else layout
