"""Graph nodes: immutable, hashable, each known by a key made from what it computes.

Two nodes with the same key compute the same value, so a graph holds each value once, and caches,
comparison and remote execution need no other identity.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TypeAlias

from hotplug.dtypes import DType
from hotplug.tensor import TensorType

__all__ = ["LEAF_OPS", "Node", "Param"]

Param: TypeAlias = "int | float | bool | str | tuple[int, ...] | tuple[float, ...] | None"
"""What a node's parameter may be; dtypes are given by name."""

LEAF_OPS = frozenset({"input", "weight", "state"})
"""Ops without operands whose value comes from outside the graph, found by their `name`."""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One value of a graph. Made by the functions of `hotplug.ops`, not by hand.

    Attributes:
        op: name of a row of the op table.
        inputs: operands by position; None where an optional operand is absent.
        params: parameters by name, in the op row's order.
        type: dtype and shape of the value.
        operands: the operands that are present.
        is_leaf: whether the value comes from outside the graph.
        key: 32 hex digits; equal for nodes that compute the same value.
    """

    op: str
    inputs: tuple[Node | None, ...]
    params: tuple[tuple[str, Param], ...]
    type: TensorType
    operands: tuple[Node, ...] = field(init=False)
    is_leaf: bool = field(init=False)
    key: str = field(init=False)

    def __post_init__(self) -> None:
        present = tuple([node for node in self.inputs if node is not None])
        object.__setattr__(self, "operands", present)
        object.__setattr__(self, "is_leaf", self.op in LEAF_OPS)
        operands = ",".join(["-" if node is None else node.key for node in self.inputs])
        text = f"{self.op}({operands}){self.params!r}:{self.type}"
        digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        object.__setattr__(self, "key", digest)

    @property
    def kind(self) -> tuple[object, ...]:
        """Op, parameters and types: equal for nodes that do the same to other values."""
        inputs = [None if n is None else (n.type.dtype.name, n.type.shape) for n in self.inputs]
        return self.op, self.params, self.type.dtype.name, self.type.shape, tuple(inputs)

    @property
    def dtype(self) -> DType:
        """Dtype of the value."""
        return self.type.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Row-major shape of the value."""
        return self.type.shape

    @property
    def name(self) -> str:
        """A leaf's name; for other nodes the op and the start of the key, such as "matmul#1f0c"."""
        if self.is_leaf:
            return str(self.param("name"))
        return f"{self.op}#{self.key[:4]}"

    @property
    def label(self) -> str:
        """The name, and those of the weights and states it takes: "matmul#1f0c blk.0.attn_q"."""
        held = [operand.name for operand in self.operands if operand.op in {"weight", "state"}]
        return " ".join([self.name, *held])

    def param(self, name: str) -> Param:
        """Value of one parameter.

        Raises:
            KeyError: the op has no such parameter.
        """
        for key, value in self.params:
            if key == name:
                return value
        raise KeyError(name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"<Node {self.name} {self.type}>"
