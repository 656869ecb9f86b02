"""Blocks of quantised dtypes decoded, encoded, and taken from and put into tables."""

from __future__ import annotations

from hotplug.dtypes import DTYPES, DType
from hotplug.gpu.catalog.table import ITEMS, Lowering, Part, groups_of, i32, i64
from hotplug.gpu.driver import Capabilities
from hotplug.gpu.sources import Variant
from hotplug.gpu.tensors import (
    AXES,
    LIMIT,
    Tensor,
    contiguous,
    joined,
    shape_bytes,
    view_bytes,
)
from hotplug.layout import Layout
from hotplug.node import Node
from hotplug.quants import can_encode

__all__ = [
    "QUANTS", "conversion", "decode", "decoded", "encode", "scatter_blocks", "take_blocks",
]  # fmt: skip

QUANTS = frozenset(name for name, dtype in DTYPES.items() if dtype.quantised)

_SIXTEEN = 16  # elements that are decoded at once
_EACH = 64  # of them to an item of a processor, whose groups cost some tenths of a microsecond


def conversion(node: Node, source: DType, capabilities: Capabilities) -> str:
    """Why elements of a dtype do not become a node's, if one of both is quantised."""
    target = node.dtype
    if "f64" in {source.name, target.name} and not capabilities.f64:
        return "the device does not compute in f64"
    if source != target and not can_encode(target):
        return f"there is no kernel that encodes {target}"
    fits = node.type.size <= LIMIT and len(node.shape) <= AXES
    return "" if fits else f"{node.type} is too large"


def take_blocks(lowering: Lowering, table: Tensor, ids: Tensor, y: Tensor) -> None:
    """Rows of a quantised table by index, decoded."""
    lengths, (steps,) = joined(ids.shape, [ids.strides])
    strides = table.byte_strides()
    indices: list[Part] = [ids.place, view_bytes(ids.at, steps)]
    wide = ids.dtype.name == "i64"
    inner = (table.shape[0], strides[0], table.shape[1:], strides[1:])
    _take(lowering, table, inner, (indices, lengths, wide), y)


def decode(lowering: Lowering, x: Tensor, y: Tensor) -> None:
    """A whole quantised tensor to floats: the one row of a table of one row."""
    first = lowering.constant(i32(0))
    indices: list[Part] = [first, view_bytes(first.at, (0,))]
    _take(lowering, x, (1, 0, x.shape, x.byte_strides()), (indices, (1,), False), y)


def _take(
    lowering: Lowering,
    table: Tensor,
    rows: tuple[int, int, tuple[int, ...], tuple[int, ...]],
    ids: tuple[list[Part], tuple[int, ...], bool],
    y: Tensor,
) -> None:
    """Launch the kernel: rows, bytes from row to row, shape and strides in one; its indices."""
    count, stride, shape, strides = rows
    indices, lengths, wide = ids
    across = shape[-1] // _SIXTEEN
    items, each = (1, _EACH) if lowering.capabilities.is_cpu else (ITEMS, 1)
    defines = {"QUANT": table.dtype.name, "TYPE": y.dtype.name, "ITEMS": items, "EACH": each}
    lowering.launch(
        Variant.of("take_blocks", defines), groups_of(y.size // _SIXTEEN, items * each), items,
        table.place, view_bytes(table.at, strides), *indices, y.place, i64(y.at),
        shape_bytes(lengths), shape_bytes((*shape[:-1], across)), i32(count), i64(stride),
        i32(across), i32(wide),
    )  # fmt: skip


def decoded(lowering: Lowering, x: Tensor) -> Tensor:
    """A quantised tensor as f32, in memory that lasts for this node; any other as it is."""
    if not x.dtype.quantised:
        return x
    f32 = DTYPES["f32"]
    y = contiguous(lowering.temporary(f32.nbytes(x.size)), f32, x.shape)
    decode(lowering, x, y)
    return y


def encode(lowering: Lowering, x: Tensor, y: Tensor) -> None:
    """A plain tensor to blocks."""
    lengths, strides = _blocks(x, y.dtype)
    defines = {"TYPE": x.dtype.name, "TARGET": y.dtype.name, "ITEMS": ITEMS}
    lowering.launch(
        Variant.of("encode", defines), groups_of(y.size // y.dtype.block), ITEMS,
        x.place, view_bytes(x.at, strides), y.place, i64(y.at), shape_bytes(lengths),
        i64(x.strides[-1]),
    )  # fmt: skip


def scatter_blocks(lowering: Lowering, ids: Tensor, rows: Tensor, y: Tensor) -> None:
    """Rows of plain numbers into a quantised table."""
    row = Tensor(rows.place, rows.dtype, Layout(rows.shape[1:], rows.strides[1:]))
    lengths, strides = _blocks(row, y.dtype)
    items = lowering.reducing_items
    defines = {"TYPE": rows.dtype.name, "TARGET": y.dtype.name, "ITEMS": items}
    lowering.launch(
        Variant.of("scatter_blocks", defines), rows.shape[0] if y.size else 0, items,
        rows.place, view_bytes(rows.at, strides), ids.place, view_bytes(ids.at, ids.strides),
        y.place, i64(y.at), shape_bytes(lengths), i32(rows.shape[0]), i32(y.shape[0]),
        i64(rows.strides[0]), i32(ids.dtype.name == "i64"), i64(rows.strides[-1]),
    )  # fmt: skip


def _blocks(x: Tensor, target: DType) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A walk over the blocks that a tensor's elements will be."""
    shape = (*x.shape[:-1], x.shape[-1] // target.block)
    lengths, (strides,) = joined(shape, [(*x.strides[:-1], x.strides[-1] * target.block)])
    return lengths, strides
