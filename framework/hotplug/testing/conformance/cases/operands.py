"""Operands of cases: leaves, and leaves seen through views, so that strides and offsets matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from hotplug import ops
from hotplug.node import Node

__all__ = [
    "BLOCK_QUANTS", "FLOATS", "INTS", "LAYOUTS", "NUMBERS", "PLAIN", "QUANTS", "SUPER_QUANTS",
    "Leaf", "leaf",
]  # fmt: skip

FLOATS = ("f32", "f64", "f16", "bf16")
INTS = ("i32", "i64", "i16", "i8")
NUMBERS = FLOATS + INTS
PLAIN = (*NUMBERS, "bool")
BLOCK_QUANTS = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q8_1", "iq4_nl", "mxfp4")
SUPER_QUANTS = (
    "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "q8_k", "iq4_xs", "tq1_0", "tq2_0", "iq1_s", "iq1_m",
    "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "nvfp4", "q1_0", "q2_0",
)  # fmt: skip
QUANTS = BLOCK_QUANTS + SUPER_QUANTS
"""Every quantised dtype that a backend may be asked to compute with."""

Leaf: TypeAlias = "Callable[[str, str, tuple[int, ...]], Node]"
"""(name, dtype, shape) -> a node of that shape over the input `name`."""


def leaf(name: str, dtype: str, shape: tuple[int, ...]) -> Node:
    """An input as it is."""
    return ops.input(name=name, dtype=dtype, shape=shape)


def _transposed(name: str, dtype: str, shape: tuple[int, ...]) -> Node:
    if len(shape) < 2:
        return _strided(name, dtype, shape)
    return ops.transpose(leaf(name, dtype, (*shape[:-2], shape[-1], shape[-2])))


def _reversed(name: str, dtype: str, shape: tuple[int, ...]) -> Node:
    """All axes permuted."""
    axes = tuple(range(len(shape)))[::-1]
    return ops.permute(leaf(name, dtype, shape[::-1]), axes=axes)


def _offset(name: str, dtype: str, shape: tuple[int, ...]) -> Node:
    """The inner box of a larger input."""
    outer = leaf(name, dtype, tuple(n + 3 for n in shape))
    return ops.slice(outer, starts=(1,) * len(shape), stops=tuple(n + 1 for n in shape))


def _strided(name: str, dtype: str, shape: tuple[int, ...]) -> Node:
    """Every second element along every axis, from the second one on."""
    outer = leaf(name, dtype, tuple(2 * n + 1 for n in shape))
    starts, steps = (1,) * len(shape), (2,) * len(shape)
    return ops.slice(outer, starts=starts, stops=tuple(2 * n + 1 for n in shape), steps=steps)


def _view_of_view(name: str, dtype: str, shape: tuple[int, ...]) -> Node:
    """Strided, then permuted, then given an axis of length 1 and rid of it."""
    axes = tuple(range(len(shape)))[::-1]
    turned = ops.permute(_strided(name, dtype, shape[::-1]), axes=axes)
    return ops.reshape(ops.reshape(turned, shape=(1, *shape)), shape=shape)


LAYOUTS: dict[str, Leaf] = {
    "transposed": _transposed,
    "reversed": _reversed,
    "offset": _offset,
    "strided": _strided,
    "view of view": _view_of_view,
}
"""Ways to come by an operand that is not contiguous, or not at the start of its storage."""
