"""Reductions along an axis, softmax and norms: a work-group per row."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence

from hotplug.gpu.catalog.table import (
    Lowering,
    Part,
    i32,
    i64,
    number,
    optional,
    plain_type,
    present,
    real,
    row,
    whole,
)
from hotplug.gpu.driver import Capabilities
from hotplug.gpu.sources import Variant
from hotplug.gpu.tensors import Tensor, joined, shape_bytes, view_bytes
from hotplug.node import Node

__all__ = ["NORMS", "alibi_slopes", "norm_of_sum", "rounded_norm", "rows_beside"]

_FUNCTIONS = ("sum", "prod", "mean", "max", "min")


def _first(operands: Sequence[Tensor | None]) -> Tensor:
    return present(operands[0])[0]


def rows_beside(x: Tensor, axis: int) -> tuple[bytes, bytes, int, int, int]:
    """Shape and View of what is beside an axis; number of rows, their length and stride."""
    shape = x.shape[:axis] + x.shape[axis + 1 :]
    strides = x.strides[:axis] + x.strides[axis + 1 :]
    lengths, (steps,) = joined(shape, [strides])
    view = view_bytes(x.at, steps)
    return shape_bytes(lengths), view, math.prod(shape), x.shape[axis], x.strides[axis]


def _axis(node: Node) -> int:
    return whole(node, "axis") % len(node.operands[0].shape)


@row(*_FUNCTIONS, check=plain_type)
def _reduce(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    x = _first(operands)
    shape, view, rows, count, stride = rows_beside(x, _axis(node))
    items = lowering.reducing_items
    lowering.launch(
        Variant.of("reduce", {"TYPE": x.dtype.name, "ITEMS": items}), rows, items,
        x.place, view, y.place, i64(y.at), shape, i32(count), i64(stride),
        i32(_FUNCTIONS.index(node.op)),
    )  # fmt: skip


@row("cumsum", check=plain_type)
def _cumsum(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    x = _first(operands)
    axis = _axis(node)
    beside = x.shape[:axis] + x.shape[axis + 1 :]
    strides = [t.strides[:axis] + t.strides[axis + 1 :] for t in (x, y)]
    lengths, (xs, ys) = joined(beside, strides)
    items = lowering.reducing_items
    lowering.launch(
        Variant.of("scan", {"TYPE": x.dtype.name, "ITEMS": items}), math.prod(beside), items,
        x.place, view_bytes(x.at, xs), y.place, view_bytes(y.at, ys), shape_bytes(lengths),
        i32(x.shape[axis]), i64(x.strides[axis]), i64(y.strides[axis]),
    )  # fmt: skip


@row("count_equal", check=plain_type)
def _count_equal(
    lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor
) -> None:
    del node
    a, b = present(*operands)
    lengths, (strides_a, strides_b) = joined(a.shape, [a.strides, b.strides])
    items = lowering.reducing_items
    lowering.launch(
        Variant.of("count_equal", {"TYPE": a.dtype.name, "ITEMS": items}), 1, items,
        a.place, view_bytes(a.at, strides_a), b.place, view_bytes(b.at, strides_b), y.place,
        i64(y.at), shape_bytes(lengths),
    )  # fmt: skip


def _norm_check(node: Node, capabilities: Capabilities) -> str:
    scales = {operand.dtype.name for operand in node.operands[1:]}
    if len(scales) > 1:
        return "weight and bias of two dtypes"
    return plain_type(node, capabilities)


NORMS = {"rms_norm": "RMS", "layer_norm": "LAYER", "group_norm": "LAYER", "l2_norm": "L2"}
"""Ops by the kernel's methods."""


@row(*NORMS, check=_norm_check)
def _norm(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    x = _first(operands)
    _normalise(lowering, node, (x, x), operands, y, None)


def norm_of_sum(lowering: Lowering, nodes: Sequence[Node], tensors: Mapping[Node, Tensor]) -> None:
    """Add the launch that computes and stores a sum of two values, and the norm of it."""
    total, node = nodes
    a, b = (tensors[operand] for operand in total.inputs if operand is not None)
    operands = [None if operand is None else tensors[operand] for operand in node.inputs]
    _normalise(lowering, node, (a, b), operands, tensors[node], tensors[total])


def rounded_norm(
    lowering: Lowering, node: Node, tensors: Mapping[Node, Tensor], steps: Tensor, ends: bytes
) -> None:
    """Add the launch that computes a norm of rows, which are stored in steps of 8 bits alone.

    Args:
        lowering: where it is added.
        node: op `rms_norm` with a weight, its rows a multiple of 32 elements long.
        tensors: where its operands lie.
        steps: where its steps go.
        ends: where scales and sums go: two arguments of the kernel, one after the other.
    """
    x, weight = (tensors[operand] for operand in node.operands)
    _normalise(lowering, node, (x, x), (x, weight), steps, None, ends)


def _normalise(
    lowering: Lowering,
    node: Node,
    terms: tuple[Tensor, Tensor],
    operands: Sequence[Tensor | None],
    y: Tensor,
    total: Tensor | None,
    rounded: bytes = b"",
) -> None:
    """Normalise the first term, or the sum of both where that has a place."""
    x, d = terms
    outer, inner, channels = _norm_axes(node, x)
    others = _norm_axes(node, d)
    shape, (xs, ds) = joined(outer[0], [outer[1], others[0][1]])
    lengths, (ks, dks) = joined(inner[0], [inner[1], others[1][1]])
    weight, bias = [*operands[1:], None, None][:2]
    scale_type = next((t.dtype.name for t in (weight, bias) if t is not None), x.dtype.name)
    items = lowering.reducing_items
    steps = [ks, dks, *(t.strides for t in (weight, bias) if t is not None)]
    dense = lowering.capabilities.is_cpu and node.op != "group_norm" and set(steps) == {(1,)}
    defines = {
        "TYPE": x.dtype.name, "SCALE": scale_type, "METHOD": NORMS[node.op],
        "SUM": None if total is None else 1, "ROUNDED": 1 if rounded else None,
        "DENSE": 1 if dense else None, "ITEMS": items,
    }  # fmt: skip
    ends = rounded or bytes(16)
    lowering.launch(
        Variant.of("norm", defines, "normalise"),
        math.prod(outer[0]) if math.prod(inner[0]) else 0, items,
        x.place, view_bytes(x.at, xs), view_bytes(0, ks), d.place, view_bytes(d.at, ds),
        view_bytes(0, dks), *_target(total or y), *optional(weight, x), *optional(bias, x),
        *_target(y), ends[:8], ends[8:],
        shape_bytes(shape), shape_bytes(lengths), *(i32(value) for value in channels),
        i32(weight is not None), i32(bias is not None),
        number(x.dtype.name, real(node, "eps")),
    )  # fmt: skip


def _target(y: Tensor) -> tuple[Part, Part]:
    return y.place, i64(y.at)


_Axes = tuple[tuple[int, ...], tuple[int, ...]]


def _norm_axes(node: Node, x: Tensor) -> tuple[_Axes, _Axes, tuple[int, int, int]]:
    """Axes beside the groups, axes in a group, and how a group's elements find their scale."""
    if node.op != "group_norm":
        return (x.shape[:-1], x.strides[:-1]), (x.shape[-1:], x.strides[-1:]), (1, 0, 1)
    groups = whole(node, "groups")
    each = x.shape[1] // groups
    outer = ((x.shape[0], groups), (x.strides[0], x.strides[1] * each))
    inner = ((each, *x.shape[2:]), x.strides[1:])
    return outer, inner, (groups, each, max(1, math.prod(x.shape[2:])))


def _softmax_check(node: Node, capabilities: Capabilities) -> str:
    sinks = node.inputs[2]
    if sinks is not None and sinks.dtype.name != "f32":
        return f"sinks must be f32, not {sinks.dtype}"
    if len(node.shape) == 0:
        return "a scalar has no rows"
    return plain_type(node, capabilities)


@row("softmax", check=_softmax_check)
def _softmax(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    x, (mask, sinks) = _first(operands), operands[1:]
    hide = x if mask is None else mask
    hidden = hide.broadcast(x.shape)
    lengths, (xs, ms) = joined(x.shape[:-1], [x.strides[:-1], hidden[:-1]])
    tokens, heads = (x.shape[-2], x.shape[-3]) if len(x.shape) >= 3 else (1, 1)
    bias = real(node, "max_bias")
    slopes = lowering.constant(alibi_slopes(heads, bias)) if bias else x.place
    items = lowering.reducing_items
    defines = {
        "TYPE": x.dtype.name,
        "MASK": None if mask is None else mask.dtype.name,
        "MASK_IS_BOOL": "1" if mask is not None and mask.dtype.name == "bool" else None,
        "ITEMS": items,
    }
    lowering.launch(
        Variant.of("softmax", defines), math.prod(x.shape[:-1]) if y.size else 0, items,
        x.place, view_bytes(x.at, xs), hide.place, view_bytes(hide.at, ms),
        *optional(sinks, x),
        slopes, i64(slopes.at), y.place, i64(y.at), shape_bytes(lengths), i32(x.shape[-1]),
        i64(x.strides[-1]), i64(hidden[-1]), i32(tokens), i32(heads), i32(sinks is not None),
        i32(bool(bias)), number(x.dtype.name, real(node, "scale")),
    )  # fmt: skip


def alibi_slopes(heads: int, max_bias: float) -> bytes:
    """Slope of each head (arXiv 2108.12409), as op `softmax` defines them; f32."""
    power = 1 << (heads.bit_length() - 1)
    slopes = [
        2.0 ** (-max_bias * (h + 1) / power)
        if h < power
        else 2.0 ** (-max_bias / 2 * (2 * (h - power) + 1) / power)
        for h in range(heads)
    ]
    return struct.pack(f"<{heads}f", *slopes)
