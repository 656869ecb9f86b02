"""Rows taken from tables and put into them, and rotary embedding."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from hotplug.dtypes import Kind
from hotplug.gpu.catalog.quantised import conversion, decoded, in_blocks, take_blocks
from hotplug.gpu.catalog.table import (
    ITEMS,
    Lowering,
    counts,
    groups_of,
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
from hotplug.gpu.tensors import LIMIT, Tensor, as_bytes, joined, shape_bytes, view_bytes
from hotplug.node import Node

__all__ = ["rope_into_rows"]


def _take_check(node: Node, capabilities: Capabilities) -> str:
    if not node.operands[0].dtype.quantised:
        return plain_type(node, capabilities)
    return "" if node.type.size <= LIMIT else f"{node.type} has more than {LIMIT} elements"


@row("take", check=_take_check)
def _take(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    del node
    table, ids = present(*operands)
    if table.dtype.quantised:
        take_blocks(lowering, table, ids, y)
        return
    lengths, (steps,) = joined(ids.shape, [ids.strides])
    inner, (walked,) = joined(table.shape[1:], [table.strides[1:]])
    defines = {"WIDTH": y.dtype.block_bytes, "ITEMS": ITEMS}
    lowering.launch(
        Variant.of("take", defines), groups_of(y.size), ITEMS,
        table.place, view_bytes(table.at, walked), ids.place, view_bytes(ids.at, steps), y.place,
        i64(y.at), shape_bytes(lengths), shape_bytes(inner), i32(table.shape[0]),
        i64(table.strides[0]), i32(ids.dtype.name == "i64"),
    )  # fmt: skip


def _scatter_check(node: Node, capabilities: Capabilities) -> str:
    table, rows = node.operands[0], node.operands[2]
    if table.dtype.quantised:
        return conversion(node, rows.dtype, capabilities)
    both_float = table.dtype.kind is rows.dtype.kind is Kind.FLOAT
    if table.dtype != rows.dtype and not both_float:
        return f"rows of {rows.dtype} into a table of {table.dtype}"
    if rows.dtype.name == "f64" and table.dtype.name == "bf16":
        return "f64 into bf16 would be rounded twice"
    return plain_type(node, capabilities)


@row("scatter_rows", check=_scatter_check)
def _scatter(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    del node
    ids, rows = present(*operands[1:])
    encoded = y.dtype.quantised and rows.dtype != y.dtype
    if encoded:
        rows = decoded(lowering, rows)
        inner, steps = in_blocks(rows.shape[1:], rows.strides[1:], y.dtype)
    else:
        rows, y = (as_bytes(x) if x.dtype.quantised else x for x in (rows, y))
        inner, (steps,) = joined(rows.shape[1:], [rows.strides[1:]])
    items = lowering.reducing_items
    target = "TARGET" if encoded else "TABLE"
    defines = {"TYPE": rows.dtype.name, target: y.dtype.name, "ITEMS": items}
    lowering.launch(
        Variant.of("scatter", defines), rows.shape[0] if y.size else 0, items,
        rows.place, view_bytes(rows.at, steps), ids.place, view_bytes(ids.at, ids.strides), y.place,
        i64(y.at), shape_bytes(inner), i32(rows.shape[0]), i32(y.shape[0]), i64(rows.strides[0]),
        i32(ids.dtype.name == "i64"), i64(rows.strides[-1]),
    )  # fmt: skip


def _rope_check(node: Node, capabilities: Capabilities) -> str:
    factors = node.inputs[2]
    if factors is not None and factors.dtype.name != "f32":
        return f"factors must be f32, not {factors.dtype}"
    return plain_type(node, capabilities)


@row("rope", check=_rope_check)
def _rope(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    _turn(lowering, node, operands, y, None)


def rope_into_rows(
    lowering: Lowering, nodes: Sequence[Node], tensors: Mapping[Node, Tensor]
) -> None:
    """Add the launch that turns few tokens' heads and puts them into rows of a table."""
    rope, scatter = nodes[0], nodes[-1]
    operands = [None if operand is None else tensors[operand] for operand in rope.inputs]
    _turn(lowering, rope, operands, tensors[scatter], tensors[scatter.operands[1]])


def _turn(
    lowering: Lowering,
    node: Node,
    operands: Sequence[Tensor | None],
    y: Tensor,
    ids: Tensor | None,
) -> None:
    """Turn heads into a place of their own, or into the rows of a table that ids name."""
    x, positions = present(*operands[:2])
    factors = operands[2]
    width = x.shape[-1]
    pairs = (whole(node, "dims") or width) // 2
    coefficients, rows, magnitude = _rotation(node, pairs)
    table = lowering.constant(_table(coefficients, rows, x.dtype.name))
    wide = 8 if x.dtype.name == "f64" else 4
    lengths, (steps,) = joined(x.shape[:-1], [x.strides[:-1]])
    heads = math.prod(x.shape[:-1])
    defines: dict[str, str | int] = {"TYPE": x.dtype.name, "ITEMS": ITEMS}
    if ids is not None:
        defines |= {"TABLE": y.dtype.name, "IDS": 1}
    shared = positions.strides if len(positions.shape) == 2 else (0, *positions.strides)
    lowering.launch(
        Variant.of("rope", defines),
        groups_of(heads * (width - pairs)), ITEMS,
        x.place, view_bytes(x.at, steps), positions.place, view_bytes(positions.at, shared),
        *optional(factors, x),
        table, i64(table.at), i64(table.at + wide * pairs), *optional(ids, x), y.place, i64(y.at),
        shape_bytes(lengths), i64(x.strides[-1]), i32(width), i32(pairs), i32(x.shape[-3]),
        i32(x.shape[-2]), i32(node.param("layout") == "interleaved"),
        i32(positions.dtype.name == "i64"), i32(factors is not None), i32(y.shape[0] if ids else 0),
        i32(ids is not None and ids.dtype.name == "i64"), number(x.dtype.name, magnitude),
    )  # fmt: skip


def _table(coefficients: npt.NDArray[np.float64], rows: npt.NDArray[np.int32], dtype: str) -> bytes:
    kind = "<f8" if dtype == "f64" else "<f4"
    return coefficients.astype(kind).tobytes() + rows.tobytes()


def _rotation(
    node: Node, pairs: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32], float]:
    """Angle per position and row of positions of each pair, and the factor on the result.

    All of op `rope`'s scalings are linear in the position, so that they fold into one number.
    """
    layout, base = str(node.param("layout")), real(node, "base")
    scale, magnitude = real(node, "frequency_scale"), real(node, "magnitude")
    sections = counts(node, "sections")
    rows = np.zeros(pairs, np.int32)
    exponents = np.arange(pairs) / pairs
    if sections:
        places = np.arange(pairs) % sum(sections)
        rows = np.array([_section(layout, int(p), sections) for p in places], np.int32)
        if layout == "vision":
            starts = np.array([0, *np.cumsum(sections)[:3]])
            exponents = 2 * (places - starts[rows]) / pairs
    frequencies = base**-exponents
    mixed = np.full(pairs, scale)
    if node.param("extrapolation"):
        kept = _yarn(node, pairs)
        mixed = scale * (1 - kept) + kept
        magnitude *= 1 + 0.1 * math.log(1 / scale)
    return frequencies * mixed, rows, magnitude


def _section(layout: str, place: int, sections: tuple[int, ...]) -> int:
    if layout == "sections_interleaved":
        section = place % 3
        return section if place < 3 * sections[section] else 3
    return int(np.searchsorted(np.cumsum(sections), place, side="right"))


def _yarn(node: Node, pairs: int) -> npt.NDArray[np.float64]:
    """How much of the unscaled angle each pair keeps (arXiv 2309.00071)."""
    context, base = whole(node, "original_context"), real(node, "base")
    turned = 2 * pairs

    def pair_of(turns: float) -> float:
        return turned * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(base))

    low = max(0, math.floor(pair_of(real(node, "beta_fast"))))
    high = min(turned - 1, math.ceil(pair_of(real(node, "beta_slow"))))
    place = (np.arange(pairs) - low) / max(0.001, high - low)
    return np.asarray(real(node, "extrapolation") * (1 - place.clip(0, 1)))
