"""Which bytes hold which value: lifetimes, storage shared in place, offsets in one arena.

`plan(graph)` decides for every node where its value lies:

    leaf      in the buffer bound to a leaf; also an update of a state, which is made where it lies
    output    in the buffer bound to an output
    arena     at an offset of the one block that holds all intermediate values

A view lies in its operand's storage. An op whose row says `inplace` takes over the storage of an
operand that nobody needs any more. An executor that computes several nodes at once says so, and
those that it never stores get no place. `allocate` does the arithmetic alone, for executors that
plan anew.

Offsets are found by two greedy methods, of which the better is kept: best fit in order of time, and
best fit of the largest value first (Pisarchyk and Lee, arXiv 2001.03288).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from hotplug import ops
from hotplug.graph import Graph
from hotplug.layout import Layout
from hotplug.node import Node
from hotplug.verify import state_chains, updated_operand

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "Allocation",
    "Fusion",
    "Interval",
    "Location",
    "MemoryPlan",
    "Storage",
    "StorageKind",
    "allocate",
    "lower_bound",
    "plan",
]

ALIGNMENT = 64
GOOD_ENOUGH = 1.01  # a peak this close to the bound is not worth a second, slower method


@dataclass(frozen=True, slots=True)
class Interval:
    """A block of `size` bytes in use from step `start` to step `end`, both included."""

    size: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Allocation:
    """Byte offsets of intervals in the order given, and the bytes that all of them need."""

    offsets: tuple[int, ...]
    peak: int


def allocate(intervals: Sequence[Interval], alignment: int = ALIGNMENT) -> Allocation:
    """Offsets such that intervals that are in use at the same step do not overlap.

    Args:
        intervals: what to place.
        alignment: bytes; every offset is a multiple of it.
    """
    sizes = [_aligned(interval.size, alignment) for interval in intervals]
    by_time = _best_fit_by_time(intervals, sizes)
    if by_time.peak <= GOOD_ENOUGH * _bound(intervals, sizes):
        return by_time
    by_size = _best_fit_by_size(intervals, sizes)
    return by_size if by_size.peak < by_time.peak else by_time


def lower_bound(intervals: Sequence[Interval], alignment: int = ALIGNMENT) -> int:
    """Bytes in use at the fullest step; no placement can need less."""
    return _bound(intervals, [_aligned(interval.size, alignment) for interval in intervals])


def _aligned(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _bound(intervals: Sequence[Interval], sizes: Sequence[int]) -> int:
    changes: dict[int, int] = {}
    for interval, size in zip(intervals, sizes, strict=True):
        changes[interval.start] = changes.get(interval.start, 0) + size
        changes[interval.end + 1] = changes.get(interval.end + 1, 0) - size
    live = most = 0
    for step in sorted(changes):
        live += changes[step]
        most = max(most, live)
    return most


def _best_fit_by_time(intervals: Sequence[Interval], sizes: Sequence[int]) -> Allocation:
    """In order of start, the larger first: the tightest gap between blocks in use."""
    offsets = [0] * len(intervals)
    busy: list[tuple[int, int, int]] = []  # (offset, end offset, last step), by offset
    peak = step = 0
    for i in sorted(range(len(intervals)), key=lambda i: (intervals[i].start, -sizes[i])):
        interval, size = intervals[i], sizes[i]
        if interval.start != step:
            step = interval.start
            busy = [block for block in busy if block[2] >= step]
        offsets[i] = _tightest_gap(busy, size)
        if size:
            insort(busy, (offsets[i], offsets[i] + size, interval.end))
            peak = max(peak, offsets[i] + size)
    return Allocation(tuple(offsets), peak)


def _best_fit_by_size(intervals: Sequence[Interval], sizes: Sequence[int]) -> Allocation:
    """In order of size, the largest first: the tightest gap between placed blocks it meets."""
    count = len(intervals)
    offsets = [0] * count
    # The placed blocks, by offset: begin, end, first step, last step.
    placed = np.empty((4, count), np.int64)
    order = sorted(range(count), key=lambda i: (-sizes[i], intervals[i].start))
    for known, i in enumerate(order):
        start, end = intervals[i].start, intervals[i].end
        blocks = placed[:, :known]
        met = blocks[:2, (blocks[2] <= end) & (blocks[3] >= start)]
        offset = offsets[i] = _tightest_gap_of(met[0], met[1], sizes[i])
        at = int(np.searchsorted(blocks[0], offset))
        placed[:, at + 1 : known + 1] = placed[:, at:known].copy()
        placed[:, at] = (offset, offset + sizes[i], start, end)
    peak = max((o + size for o, size in zip(offsets, sizes, strict=True)), default=0)
    return Allocation(tuple(offsets), peak)


def _tightest_gap_of(begins: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], size: int) -> int:
    """`_tightest_gap` for many blocks at once."""
    if not begins.size:
        return 0
    reached = np.maximum.accumulate(ends)
    before = np.concatenate(([0], reached[:-1]))
    gaps = begins - before
    fitting = np.flatnonzero(gaps >= size)
    if not fitting.size:
        return int(reached[-1])
    return int(before[fitting[np.argmin(gaps[fitting])]])


def _tightest_gap(blocks: Iterable[tuple[int, ...]], size: int) -> int:
    """Offset of the smallest gap of at least `size` among blocks sorted by offset, or their end."""
    found = -1
    tightest = end = 0
    for block in blocks:
        gap = block[0] - end
        if gap >= size and (found < 0 or gap < tightest):
            found, tightest = end, gap
        end = max(end, block[1])
    return end if found < 0 else found


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
