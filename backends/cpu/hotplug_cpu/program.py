"""What a plan is made of before addresses are known: steps, and the stores they read and write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from hotplug.arena import Interval, allocate
from hotplug.layout import Layout
from hotplug.node import Node

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "Address",
    "Argument",
    "KernelAddress",
    "NumpyStep",
    "Place",
    "Program",
    "Rows",
    "Step",
    "Store",
]


@dataclass(slots=True, eq=False)
class Store:
    """A run of bytes. Compared by identity.

    Attributes:
        nbytes: its length.
        buffer: name of the bound buffer that it is; empty if it is none.
        constant: bytes known beforehand; None if it is no constant.
        offset: where in the arena it lies, if it is neither.
        first: the stretch in which it is first used, -1 if it never is. A *stretch* is a run of
            steps between which threads do not wait for each other.
        last: the last stretch in which it is used.
    """

    nbytes: int
    buffer: str = ""
    constant: npt.NDArray[Any] | None = None
    offset: int = 0
    first: int = -1
    last: int = -1

    @property
    def in_arena(self) -> bool:
        """Whether it holds an intermediate value."""
        return not self.buffer and self.constant is None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value lies: a layout, in elements, over a store."""

    store: Store
    layout: Layout


@dataclass(frozen=True, slots=True)
class Address:
    """An argument that is an address: so many bytes into a store."""

    store: Store
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Rows:
    """A value as rows.

    Attributes:
        start: where they begin.
        stride: bytes from one to the next.
        number: how many there are.
        count: elements of each.
        copies: bytes from one thread's own copy to the next one's; 0 if there is one for all.
        chunk: bytes from one part of a row to the next where rows lie in parts, else 0.
    """

    start: Address
    stride: int
    number: int
    count: int
    copies: int = 0
    chunk: int = 0


@dataclass(frozen=True, slots=True)
class KernelAddress:
    """An argument that is a kernel's address."""

    name: str


Argument: TypeAlias = int | Address | KernelAddress


@dataclass(slots=True, eq=False)
class Step:
    """A row of a plan.

    Attributes:
        kernel: name of the compiled kernel.
        arguments: its words in the catalogue's order.
        writes: the stores among them that it writes; it may read all others.
        nodes: what it computes, several where nodes are fused.
        own: stores that threads share in a certain way, each touching its part: between a step
            that writes and one that reads in the same way, they need not wait.
        barrier: whether threads wait for each other after it.
    """

    kernel: str
    arguments: tuple[Argument, ...]
    writes: tuple[Store, ...]
    nodes: tuple[Node, ...]
    own: Mapping[Store, object] = field(default_factory=dict)
    barrier: bool = False

    @property
    def stores(self) -> tuple[Store, ...]:
        """Every store that it touches."""
        return tuple(a.store for a in self.arguments if isinstance(a, Address))


@dataclass(slots=True, eq=False)
class NumpyStep:
    """A node run by its NumPy kernel, or, without operands, the copy of a value.

    Attributes:
        node: what it computes.
        operands: where its operands lie.
        out: where the result goes.
        copies: only copy the one operand.
    """

    node: Node
    operands: tuple[tuple[Node, Place] | None, ...]
    out: Place
    copies: bool = False

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The node, as of a compiled step."""
        return (self.node,)

    @property
    def stores(self) -> tuple[Store, ...]:
        """Every store that it touches."""
        return (self.out.store, *(o[1].store for o in self.operands if o is not None))


@dataclass(slots=True)
class Program:
    """Steps in order, and the bytes of arena that they need."""

    steps: list[Step | NumpyStep] = field(default_factory=list)
    arena_bytes: int = 0

    def place_stores(self) -> None:
        """Order the steps so that threads wait as seldom as can be, and lay out the arena."""
        placed = _in_stretches(self.steps)
        self.steps = [step for _, step in placed]
        for (stretch, step), (following, _) in pairwise(placed):
            if isinstance(step, Step):
                step.barrier = following != stretch
        inside = [store for store in _lifetimes(placed) if store.in_arena]
        allocation = allocate([Interval(s.nbytes, s.first, s.last) for s in inside])
        for store, offset in zip(inside, allocation.offsets, strict=True):
            store.offset = offset
        self.arena_bytes = allocation.peak


def _in_stretches(steps: Sequence[Step | NumpyStep]) -> list[tuple[int, Step | NumpyStep]]:
    """Each step in the first stretch in which all that it needs is there; in order of stretches.

    A step comes after those that write what it touches, and after those that read what it writes.
    A NumPy step has a stretch to itself.
    """
    read: dict[Store, int] = {}
    written: dict[Store, int] = {}
    shared: dict[Store, object] = {}
    floor = top = 0
    placed = []
    for step in steps:
        touched = step.stores
        numpy = isinstance(step, NumpyStep)
        writes = (step.out.store,) if isinstance(step, NumpyStep) else step.writes
        own = {} if isinstance(step, NumpyStep) else step.own
        after = [
            written[store] - (store in own and own[store] == shared.get(store))
            for store in touched
            if store in written
        ]
        after += [read.get(store, -1) for store in writes]
        stretch = top + 1 if numpy else max(floor, 1 + max(after, default=-1))
        top = max(top, stretch)
        floor = top + 1 if numpy else floor
        for store in touched:
            read[store] = max(stretch, read.get(store, -1))
        for store in writes:
            written[store] = stretch
            shared[store] = own.get(store)
        placed.append((stretch, step))
    return sorted(placed, key=lambda pair: pair[0])


def _lifetimes(placed: Sequence[tuple[int, Step | NumpyStep]]) -> list[Store]:
    """Tell stores when they are in use; returns them in order of first use."""
    stores: dict[Store, None] = {}
    for stretch, step in placed:
        for store in step.stores:
            stores[store] = None
            store.first = stretch if store.first < 0 else store.first
            store.last = stretch
    return list(stores)
