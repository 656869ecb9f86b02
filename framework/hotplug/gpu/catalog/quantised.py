"""Blocks of quantised dtypes decoded, encoded, and taken from and put into tables."""

from __future__ import annotations

from hotplug.dtypes import DTYPES, DType, get
from hotplug.gpu.catalog.table import ITEMS, Lowering, groups_of, i32, i64
from hotplug.gpu.driver import Capabilities
from hotplug.gpu.sources import Variant
from hotplug.gpu.tensors import (
    AXES,
    LIMIT,
    Place,
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
    "QUANTS", "conversion", "decode", "decoded", "encode", "in_blocks", "take_blocks",
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
    """Rows of a quantised table by index, decoded to floats."""
    lengths, (steps,) = joined(ids.shape, [ids.strides])
    stride, *strides = table.byte_strides()
    *lead, width = table.shape[1:]
    across = width // _SIXTEEN
    items, each = (1, _EACH) if lowering.capabilities.is_cpu else (ITEMS, 1)
    defines = {"QUANT": table.dtype.name, "TYPE": y.dtype.name, "ITEMS": items, "EACH": each}
    lowering.launch(
        Variant.of("take_blocks", defines), groups_of(y.size // _SIXTEEN, items * each), items,
        table.place, view_bytes(table.at, strides), ids.place, view_bytes(ids.at, steps), y.place,
        i64(y.at), shape_bytes(lengths), shape_bytes((*lead, across)), i32(table.shape[0]),
        i64(stride), i32(across), i32(ids.dtype.name == "i64"),
    )  # fmt: skip


def decode(lowering: Lowering, x: Tensor, y: Tensor) -> None:
    """A whole quantised tensor to floats: the one row of a table."""
    table = Tensor(x.place, x.dtype, Layout((1, *x.shape), (0, *x.strides), x.layout.offset))
    take_blocks(lowering, table, contiguous(lowering.constant(i32(0)), get("i32"), (1,)), y)


def decoded(lowering: Lowering, x: Tensor, at: int = 0) -> Tensor:
    """A quantised tensor as f32, in memory that lasts for this node; any other as it is.

    Args:
        lowering: gets the launch.
        x: the tensor.
        at: bytes of that memory that are taken.
    """
    if not x.dtype.quantised:
        return x
    f32 = get("f32")
    lowering.temporary(at + f32.nbytes(x.size))
    y = contiguous(Place("scratch", at), f32, x.shape)
    decode(lowering, x, y)
    return y


def encode(lowering: Lowering, x: Tensor, y: Tensor) -> None:
    """A plain tensor to blocks."""
    lengths, strides = in_blocks(x.shape, x.strides, y.dtype)
    defines = {"TYPE": x.dtype.name, "TARGET": y.dtype.name, "ITEMS": ITEMS}
    lowering.launch(
        Variant.of("encode", defines), groups_of(y.size // y.dtype.block), ITEMS,
        x.place, view_bytes(x.at, strides), y.place, i64(y.at), shape_bytes(lengths),
        i64(x.strides[-1]),
    )  # fmt: skip


def in_blocks(
    shape: tuple[int, ...], strides: tuple[int, ...], target: DType
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A walk over the blocks that elements will be: lengths and strides."""
    count = shape[-1] // target.block
    steps = (*strides[:-1], strides[-1] * target.block)
    lengths, (strides,) = joined((*shape[:-1], count), [steps])
    return lengths, strides
