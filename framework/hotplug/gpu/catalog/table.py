"""The catalog's table: op -> whether and how kernels compute it.

A row is a function that turns a node with its operands into launches, and one that says what it
does not do. Both see the device's capabilities.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias, cast

from hotplug.backend import YES, Support, no
from hotplug.gpu.driver import Capabilities, Gemm
from hotplug.gpu.sources import Variant
from hotplug.gpu.tensors import AXES, LIMIT, Place, Tensor, view_bytes
from hotplug.node import Node

__all__ = [
    "ITEMS", "ROWS", "Chooser", "Geometry", "Launch", "LibraryLaunch", "Lowering", "Part", "Row",
    "answer", "bucket", "counts", "first", "groups_of", "i32", "i64", "number", "optional",
    "plain_type", "present", "real", "row", "u64", "whole",
]  # fmt: skip

Part: TypeAlias = "Place | bytes"
"""An argument: a buffer (its offset is passed apart, in a View or as i64), or a number's bytes."""

Geometry: TypeAlias = "Mapping[str, int]"
"""Definitions of a kernel that change how fast it is, and not what it computes."""

Chooser: TypeAlias = "Callable[[str, Sequence[Geometry]], Geometry]"
"""Takes a question, a kernel with its dtypes and sizes, and the geometries that there are."""

ITEMS = 256
"""Work-items of a group where each has an element of its own."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch of a kernel.

    Attributes:
        variant: the kernel.
        groups: work-groups along x and y.
        items: work-items in a group.
        arguments: in the kernel's order.
        nodes: names of the nodes that it computes, or helps to.
    """

    variant: Variant
    groups: tuple[int, int]
    items: int
    arguments: tuple[Part, ...]
    nodes: tuple[str, ...] = ()

    def __str__(self) -> str:
        geometry = f"{self.groups[0] * self.groups[1]} x {self.items} items"
        return f"{self.variant} on {geometry}: {' + '.join(self.nodes)}"


@dataclass(frozen=True, slots=True)
class LibraryLaunch:
    """Products that the vendor's library computes.

    Attributes:
        gemm: what is computed.
        operands: buffers of a, b and y.
        nodes: as for `Launch`.
    """

    gemm: Gemm
    operands: tuple[Place, Place, Place]
    nodes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.gemm}: {' + '.join(self.nodes)}"


def first(question: str, candidates: Sequence[Geometry]) -> Geometry:
    """The geometry that is taken where none was found to be faster."""
    del question
    return candidates[0]


@dataclass(slots=True)
class Lowering:
    """What rows need to know and leave behind while a graph is turned into launches.

    Attributes:
        capabilities: of the device.
        launches: in order.
        constants: tables that are uploaded once; the buffer "constants" holds them.
        scratch: bytes of the buffer "scratch", whose contents last for one node.
        held_bytes: bytes of the buffer "held", whose contents last until another value is held.
        kept_bytes: bytes of the buffer "kept", whose contents last for a run.
        choose: which of some geometries to take, of which the first is the usual one.
    """

    capabilities: Capabilities
    launches: list[Launch | LibraryLaunch] = field(default_factory=list)
    constants: bytearray = field(default_factory=bytearray)
    scratch: int = 0
    held_bytes: int = 0
    kept_bytes: int = 0
    choose: Chooser = first
    _known: dict[bytes, Place] = field(default_factory=dict)
    _held: object = None
    _kept: dict[object, Place] = field(default_factory=dict)
    _computing: tuple[str, ...] = ()

    @contextmanager
    def computing(self, *nodes: Node) -> Iterator[None]:
        """Note that launches are those of some nodes."""
        self._computing = tuple(node.name for node in nodes)
        yield
        self._computing = ()

    def constant(self, data: bytes) -> Place:
        """A table in device memory."""
        if data not in self._known:
            self.constants += bytes(-len(self.constants) % 64)
            self._known[data] = Place("constants", len(self.constants))
            self.constants += data
        return self._known[data]

    def temporary(self, nbytes: int) -> Place:
        """Memory for values between the launches of one node."""
        self.scratch = max(self.scratch, nbytes)
        return Place("scratch")

    def hold(self, value: object, nbytes: int) -> bool:
        """Hold what several nodes need of a value in "held"; whether it is there already."""
        known, self._held = self._held == value, value
        self.held_bytes = max(self.held_bytes, nbytes)
        return known

    def keep(self, value: object, nbytes: int) -> tuple[Place, bool]:
        """Memory for what nodes need throughout a run; whether it is there already."""
        known = value in self._kept
        if not known:
            self._kept[value] = Place("kept", self.kept_bytes)
            self.kept_bytes += -(-nbytes // 64) * 64
        return self._kept[value], known

    def launch(
        self, variant: Variant, groups: int | tuple[int, int], items: int, *arguments: Part
    ) -> None:
        """Add a launch, unless it has nothing to do.

        Groups of ITEMS, whose items have an element each, become smaller ones where a device has no
        groups so large.
        """
        x, y = groups if isinstance(groups, tuple) else (groups, 1)
        if items == ITEMS > self.largest_group:
            items, x = self.largest_group, x * (ITEMS // self.largest_group)
            variant = variant.with_items(items)
        if x and y:
            self.launches.append(Launch(variant, (x, y), items, arguments, self._computing))

    @property
    def largest_group(self) -> int:
        """Work-items of the largest group that is a power of two."""
        return 1 << (self.capabilities.max_items.bit_length() - 1)

    def multiply(self, gemm: Gemm, a: Place, b: Place, y: Place) -> None:
        """Add products of the vendor's library."""
        self.launches.append(LibraryLaunch(gemm, (a, b, y), self._computing))

    @property
    def reducing_items(self) -> int:
        """Work-items that reduce one row together; a processor runs them one after the other."""
        return 1 if self.capabilities.is_cpu else min(128, self.largest_group)


Lower: TypeAlias = "Callable[[Lowering, Node, Sequence[Tensor | None], Tensor], None]"
Check: TypeAlias = "Callable[[Node, Capabilities], str]"


@dataclass(frozen=True, slots=True)
class Row:
    """One op of the catalog.

    Attributes:
        lower: adds the launches that compute a node from its operands into a contiguous result.
        check: why a node is not supported; empty if it is.
    """

    lower: Lower
    check: Check


ROWS: dict[str, Row] = {}
"""The catalog, filled when the modules beside this one are imported."""


def row(*ops: str, check: Check) -> Callable[[Lower], Lower]:
    """Enter a function for some ops."""

    def enter(lower: Lower) -> Lower:
        ROWS.update(dict.fromkeys(ops, Row(lower, check)))
        return lower

    return enter


_PLAIN = frozenset({"f32", "f16", "bf16", "f64", "i8", "i16", "i32", "i64", "bool"})


def plain_type(node: Node, capabilities: Capabilities) -> str:
    """What no kernel does: unknown dtypes, f64 where the device lacks it, very large tensors."""
    for value in (node, *node.operands):
        if value.dtype.name == "f64" and not capabilities.f64:
            return "the device does not compute in f64"
        if value.dtype.name not in _PLAIN:
            return f"there is no kernel for {value.dtype}"
        if value.type.size > LIMIT:
            return f"{value.type} has more than {LIMIT} elements"
        if len(value.shape) > AXES:
            return f"{value.type} has more than {AXES} axes"
    return ""


def real(node: Node, name: str) -> float:
    """A parameter that the op's rule made a float."""
    return cast("float", node.param(name))


def whole(node: Node, name: str) -> int:
    """A parameter that the op's rule made an int."""
    return cast("int", node.param(name))


def counts(node: Node, name: str) -> tuple[int, ...]:
    """A parameter that the op's rule made a tuple of ints."""
    return cast("tuple[int, ...]", node.param(name))


def present(*tensors: Tensor | None) -> list[Tensor]:
    """Operands that the op always has."""
    return [cast("Tensor", tensor) for tensor in tensors]


def optional(tensor: Tensor | None, other: Tensor) -> list[Part]:
    """Arguments of an operand that may be absent; another's buffer then stands for it."""
    if tensor is None:
        return [other.place, view_bytes(0, (0,))]
    return [tensor.place, view_bytes(tensor.at, tensor.strides)]


def answer(reason: str) -> Support:
    """A reason as the contract's answer."""
    return no(reason) if reason else YES


def groups_of(size: int, items: int = ITEMS) -> int:
    """Work-groups for one item per element."""
    return -(-size // items)


def bucket(*sizes: int) -> str:
    """Sizes as a question about geometry names them: each rounded up to a power of two."""
    return "x".join(str(1 << max(0, size - 1).bit_length()) for size in sizes)


def i32(*values: int) -> bytes:
    """One argument of type int, or a struct of them."""
    return struct.pack(f"<{len(values)}i", *values)


def i64(value: int) -> bytes:
    """An argument of type LONG."""
    return struct.pack("<q", value)


def u64(value: int) -> bytes:
    """An argument of type ULONG."""
    return struct.pack("<Q", value)


def number(dtype: str, value: float) -> bytes:
    """An argument of type NUM for a dtype."""
    if dtype == "f64":
        return struct.pack("<d", value)
    if dtype in {"f32", "f16", "bf16"}:
        return struct.pack("<f", value)
    return struct.pack("<q", int(value))
