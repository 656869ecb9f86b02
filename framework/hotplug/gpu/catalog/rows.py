"""Rows taken from tables and put into them."""

from __future__ import annotations

from collections.abc import Sequence

from hotplug.dtypes import Kind
from hotplug.gpu.catalog.elementwise import beside
from hotplug.gpu.catalog.quantised import conversion, decoded, in_blocks, take_blocks
from hotplug.gpu.catalog.table import (
    ITEMS,
    Lowering,
    groups_of,
    i32,
    i64,
    plain_type,
    present,
    row,
)
from hotplug.gpu.driver import Capabilities
from hotplug.gpu.sources import Variant
from hotplug.gpu.tensors import LIMIT, Tensor, as_bytes, joined, shape_bytes, view_bytes
from hotplug.node import Node

__all__: list[str] = []


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
    else:
        _gather(lowering, table, ids, y)


def _select_check(node: Node, capabilities: Capabilities) -> str:
    if not node.dtype.quantised:
        return plain_type(node, capabilities)
    return "" if node.type.nbytes <= LIMIT else f"{node.type} has more than {LIMIT} bytes"


@row("index_select", check=_select_check)
def _index_select(
    lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor
) -> None:
    del node
    table, ids = present(*operands)
    if table.dtype.quantised:
        table, y = as_bytes(table), as_bytes(y)
    _gather(lowering, table, ids, y)


_WIDEST = 8  # bytes that an item of `take` moves


def _gather(lowering: Lowering, table: Tensor, ids: Tensor, y: Tensor) -> None:
    """Entries of a plain table along its first axis."""
    lengths, (steps,) = joined(ids.shape, [ids.strides])
    inner, (walked,) = joined(table.shape[1:], [table.strides[1:]])
    width = y.dtype.block_bytes
    each = beside(inner, [(table.strides[0], *walked)], (table.at, y.at), width, _WIDEST)
    inner = (*inner[:-1], inner[-1] // each)
    walked = (*(step // each for step in walked[:-1]), walked[-1])
    defines = {"WIDTH": each * width, "ITEMS": ITEMS}
    lowering.launch(
        Variant.of("take", defines), groups_of(y.size // each), ITEMS,
        table.place, view_bytes(table.at, walked), ids.place, view_bytes(ids.at, steps), y.place,
        i64(y.at), shape_bytes(lengths), shape_bytes(inner), i32(table.shape[0]),
        i64(table.strides[0] // each), i32(ids.dtype.name == "i64"),
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
