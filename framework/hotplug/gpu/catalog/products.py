"""Matrix products."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hotplug.gpu.catalog import int8, library
from hotplug.gpu.catalog.elementwise import copy
from hotplug.gpu.catalog.leading import LEADING, lead_of, padded, strides_of
from hotplug.gpu.catalog.quantised import QUANTS
from hotplug.gpu.catalog.table import (
    Geometry,
    Lowering,
    Part,
    bucket,
    i32,
    i64,
    plain_type,
    present,
    row,
)
from hotplug.gpu.driver import Capabilities
from hotplug.gpu.sources import Variant
from hotplug.gpu.tensors import LIMIT, Tensor, contiguous, shape_bytes, view_bytes
from hotplug.node import Node

__all__: list[str] = []

_ROWS_AT_ONCE = 4
_GROUPS_Y = 65535  # CUDA's limit
_NOTHING = view_bytes(0, (0,))
_COMPUTED = frozenset({"f32", "f16", "bf16", "f64"})


def _product_check(node: Node, capabilities: Capabilities) -> str:
    a, b = node.operands[:2]
    if node.dtype.name == "f64":
        return plain_type(node, capabilities)
    if a.dtype.name not in _COMPUTED or (a.dtype.name == "f64" and b.dtype.quantised):
        return f"a product of {a.dtype} and {b.dtype}"
    if b.dtype.name not in _COMPUTED | QUANTS:
        return f"there is no product with {b.dtype}"
    if "f64" in {a.dtype.name, b.dtype.name} and not capabilities.f64:
        return "the device does not compute in f64"
    if max(node.type.size, a.type.size) > LIMIT:
        return f"{node.type} has more than {LIMIT} elements"
    if len(node.shape) > LEADING + 2:
        return f"{node.type} has more than {LEADING} leading axes"
    if math.prod(node.shape[:-2]) * -(-node.shape[-2] // _ROWS_AT_ONCE) > _GROUPS_Y:
        return "too many matrices in one product"
    return ""


@row("matmul", check=_product_check)
def _matmul(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    a, b = present(*operands)
    if library.product(lowering, node, a, b, y):
        return
    if y.shape[-2] <= int8.FEW_ROWS and int8.wanted(lowering.capabilities, node):
        int8.matvec(lowering, int8.quantise(lowering, node.operands[0], a), b, y)
        return
    lead, (a_lead, b_lead) = lead_of(y.shape[:-2], (a, b), 2)
    a_row, a_step = strides_of(a, 2)[1]
    b_row, b_step = strides_of(b, 2)[1]
    if not node.param("transpose_b"):
        b_row, b_step = b_step, b_row
    rows, columns, depth = y.shape[-2], y.shape[-1], a.shape[-1]
    views = (
        a.place, view_bytes(a.at, padded(a_lead, a_row, a_step)),
        b.place, view_bytes(b.at, padded(b_lead, b_row, b_step)),
    )  # fmt: skip
    packed = not b.dtype.quantised or (a.dtype.name == "f32" and a_step == 1)
    if rows <= int8.FEW_ROWS and packed:
        defines = _few_rows(lowering, a, b, y, rows, depth)
        if lowering.capabilities.is_cpu and a_step == b_step == 1:
            defines["DENSE"] = "1"
        blocks = -(-rows // int(defines["ROWS"] or 1))
        grid = _grid(defines, columns, math.prod(lead) * blocks)
        lowering.launch(
            Variant.of("matvec", defines), grid, int(defines["ITEMS"] or 1),
            *views, a.place, _NOTHING, y.place, i64(y.at), shape_bytes(lead), i32(rows),
            i32(columns), i32(depth), i32(blocks), i32(0), i32(0),
        )  # fmt: skip
        return
    _in_tiles(lowering, node, a, b, y, views, shape_bytes(lead))


def _in_tiles(
    lowering: Lowering,
    node: Node,
    a: Tensor,
    b: Tensor,
    y: Tensor,
    views: tuple[Part, ...],
    lead: bytes,
) -> None:
    """Products of many rows, in bytes where the device is faster at those."""
    rows, columns, depth = y.shape[-2], y.shape[-1], a.shape[-1]
    tiles = _tiles_for(lowering, rows, columns, y.dtype.nbytes(1))
    able = lowering.capabilities.int8 and y.dtype.name == "f32"
    rounds = able and int8.wanted(lowering.capabilities, node)
    if rounds:
        tiles = (*int8.tiles(rows), tiles[0])
    asked = f"matmul {'rounded ' * rounds}{y.dtype} {a.dtype} {b.dtype}"
    geometry = lowering.choose(f"{asked} {bucket(rows, columns, depth)}", tiles)
    if "INT8" in geometry:
        int8.matmul(lowering, int8.quantise(lowering, node.operands[0], a), b, y, geometry)
        return
    items, tile = geometry["SIDE"] ** 2, geometry["TILE"]
    across = -(-columns // tile)
    b_row, b_step = strides_of(b, 2)[1]
    b_row, b_step = (b_row, b_step) if node.param("transpose_b") else (b_step, b_row)
    beside = "1" if b_row == 1 != b_step and not b.dtype.quantised else None
    lowering.launch(
        Variant.of("matmul", {**_types(a, b, y), **geometry, "BESIDE": beside, "ITEMS": items}),
        (across * -(-rows // tile), y.size // max(1, rows * columns)), items,
        *views, y.place, i64(y.at), lead, i32(rows), i32(columns), i32(depth), i32(across),
    )  # fmt: skip


def _tiles(*shapes: tuple[int, int, int, int]) -> tuple[Geometry, ...]:
    names = ("TILE", "SIDE", "DOWN", "ACROSS")
    return tuple(dict(zip(names, shape, strict=True)) for shape in shapes)


_TILES = {
    # A processor's one item has the whole tile, and some of its values in vector registers.
    True: (
        *_tiles((64, 1, 4, 16), (64, 1, 8, 8), (64, 1, 2, 16), (64, 1, 4, 32)),
        *_tiles((32, 1, 4, 16), (32, 1, 8, 8), (32, 1, 2, 16)),
    ),
    False: _tiles((32, 8, 4, 4), (32, 8, 2, 4), (32, 16, 2, 2), (64, 16, 4, 4), (64, 16, 2, 4)),
}
"""Geometries of matmul.cl, by whether the device is a processor."""


def _tiles_for(lowering: Lowering, rows: int, columns: int, width: int) -> tuple[Geometry, ...]:
    """Those that leave no half of a processor idle, and that local memory has room for."""
    is_cpu = lowering.capabilities.is_cpu
    few = rows * columns < 8 * 64 * 64 if is_cpu else width > 4
    small = tuple(one for one in _TILES[is_cpu] if one["TILE"] == 32)
    return small if few else _TILES[is_cpu]


_SIXTEEN = 16  # elements of a block that an item decodes at once


def _types(a: Tensor, b: Tensor, y: Tensor) -> dict[str, str | int | None]:
    quant = b.dtype.name if b.dtype.quantised else None
    return {"TYPE": y.dtype.name, "A": a.dtype.name, "B": quant or b.dtype.name, "QUANT": quant}


def _few_rows(
    lowering: Lowering, a: Tensor, b: Tensor, y: Tensor, rows: int, depth: int
) -> dict[str, str | int | None]:
    steps = max(1, depth // (_SIXTEEN if b.dtype.quantised else 1))
    is_cpu = lowering.capabilities.is_cpu
    asked = f"matvec {y.dtype} {a.dtype} {b.dtype} {bucket(rows, y.shape[-1], depth)}"
    lanes = min(32, 1 << (steps - 1).bit_length())
    geometry = lowering.choose(asked, _lines(1 if is_cpu else lanes, is_cpu=is_cpu))
    return {**_types(a, b, y), **geometry, "ROWS": 1 if rows == 1 else _ROWS_AT_ONCE}


def _lines(lanes: int, *, is_cpu: bool) -> list[Geometry]:
    """Geometries of matvec.cl."""
    if is_cpu:  # a group costs a processor some tenths of a microsecond
        return [{"ITEMS": 1, "LANES": 1, "EACH": each} for each in (16, 8, 32, 64)]
    shapes = [(64, lanes), (128, lanes), (256, lanes), (64, lanes // 2), (64, lanes // 4)]
    return [{"ITEMS": items, "LANES": few, "EACH": 1} for items, few in shapes if few]


def _grid(defines: dict[str, str | int | None], columns: int, batches: int) -> tuple[int, int]:
    lanes, items, each = (int(defines[name] or 1) for name in ("LANES", "ITEMS", "EACH"))
    return -(-columns * lanes // (items * each)), batches


def _grouped_check(node: Node, capabilities: Capabilities) -> str:
    reason = _product_check(node, capabilities)
    x, w, _ = node.operands
    if not reason and w.dtype.quantised and x.dtype.name != "f32":
        return f"a grouped product of {x.dtype} and {w.dtype}"
    if math.prod(node.shape[:2]) > _GROUPS_Y:
        return "too many rows in one grouped product"
    return reason


@row("matmul_grouped", check=_grouped_check)
def _grouped(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    x, w, ids = present(*operands)
    if int8.wanted(lowering.capabilities, node):
        int8.grouped(lowering, int8.quantise(lowering, node.operands[0], x), w, ids, y)
        return
    tokens, used, columns = y.shape
    depth = x.shape[-1]
    x = _dense_rows(lowering, x) if w.dtype.quantised and x.strides[-1] != 1 else x
    shared = 0 if x.shape[1] == 1 else x.strides[1]
    matrix, w_row, w_step = strides_of(w, 3)[1]
    defines = {**_few_rows(lowering, x, w, y, 1, depth), "IDS": "1"}
    lowering.launch(
        Variant.of("matvec", defines), _grid(defines, columns, tokens * used),
        int(defines["ITEMS"] or 1),
        x.place, view_bytes(x.at, (x.strides[0], shared, 0, 0, x.strides[2])),
        w.place, view_bytes(w.at, (0, 0, 0, w_row, w_step, matrix)),
        ids.place, view_bytes(ids.at, ids.strides), y.place, i64(y.at),
        shape_bytes((tokens, used)), i32(1), i32(columns), i32(depth), i32(1),
        i32(ids.dtype.name == "i64"), i32(w.shape[0]),
    )  # fmt: skip


def _dense_rows(lowering: Lowering, x: Tensor) -> Tensor:
    """The same values row by row, in memory that lasts for this node."""
    dense = contiguous(lowering.temporary(x.dtype.nbytes(x.size)), x.dtype, x.shape)
    copy(lowering, x, dense)
    return dense
