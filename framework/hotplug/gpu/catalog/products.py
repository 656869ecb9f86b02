"""Matrix products and attention."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from hotplug.gpu.catalog import library
from hotplug.gpu.catalog.elementwise import copy
from hotplug.gpu.catalog.quantised import QUANTS
from hotplug.gpu.catalog.reduction import alibi_slopes
from hotplug.gpu.catalog.table import (
    Lowering,
    Part,
    i32,
    i64,
    optional,
    plain_type,
    present,
    real,
    row,
    whole,
)
from hotplug.gpu.driver import Capabilities
from hotplug.gpu.sources import Variant
from hotplug.gpu.tensors import LIMIT, Tensor, contiguous, joined, shape_bytes, view_bytes
from hotplug.layout import Layout
from hotplug.node import Node
from hotplug.ops.checks import broadcast

__all__: list[str] = []

_LEADING = 3  # axes before the last two or three, joined; as many as a View leaves for them
_FEW_ROWS = 8
_TILE = 32
_ROWS_AT_ONCE = 4
_GROUPS_Y = 65535  # CUDA's limit
_NOTHING = view_bytes(0, (0,))
_COMPUTED = frozenset({"f32", "f16", "bf16"})


def _product_check(node: Node, capabilities: Capabilities) -> str:
    a, b = node.operands[:2]
    if node.dtype.name == "f64":
        return plain_type(node, capabilities)
    if a.dtype.name not in _COMPUTED:
        return f"a product of {a.dtype} and {b.dtype}"
    if b.dtype.name not in _COMPUTED | QUANTS:
        return f"there is no product with {b.dtype}"
    if max(node.type.size, a.type.size) > LIMIT:
        return f"{node.type} has more than {LIMIT} elements"
    if len(node.shape) > _LEADING + 2:
        return f"{node.type} has more than {_LEADING} leading axes"
    if math.prod(node.shape[:-2]) * -(-node.shape[-2] // _ROWS_AT_ONCE) > _GROUPS_Y:
        return "too many matrices in one product"
    return ""


def _strides_of(tensor: Tensor, axes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Strides of leading axes and of the last ones, in the unit in which kernels count."""
    strides = tensor.byte_strides() if tensor.dtype.quantised else tensor.strides
    return strides[:-axes], strides[-axes:]


def _lead(
    shape: tuple[int, ...], tensors: Sequence[Tensor], axes: int
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """The leading axes of a product, joined, and each operand's strides over them."""
    strides = []
    for tensor in tensors:
        own, lengths = _strides_of(tensor, axes)[0], tensor.shape[:-axes]
        stretched = tuple(0 if n == 1 else s for n, s in zip(lengths, own, strict=True))
        strides.append((0,) * (len(shape) - len(own)) + stretched)
    return joined(shape, strides)


def _padded(lead: tuple[int, ...], *rest: int) -> tuple[int, ...]:
    """Strides of a View: leading ones in the first three places, others after them."""
    if len(lead) > _LEADING:
        raise ValueError(f"{len(lead)} leading axes")
    return (*lead, *[0] * (_LEADING - len(lead)), *rest)


@row("matmul", check=_product_check)
def _matmul(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    a, b = present(*operands)
    if library.product(lowering, node, a, b, y):
        return
    lead, (a_lead, b_lead) = _lead(y.shape[:-2], (a, b), 2)
    a_row, a_step = _strides_of(a, 2)[1]
    b_row, b_step = _strides_of(b, 2)[1]
    if not node.param("transpose_b"):
        b_row, b_step = b_step, b_row
    rows, columns, depth = y.shape[-2], y.shape[-1], a.shape[-1]
    views = (
        a.place, view_bytes(a.at, _padded(a_lead, a_row, a_step)),
        b.place, view_bytes(b.at, _padded(b_lead, b_row, b_step)),
    )  # fmt: skip
    packed = not b.dtype.quantised or (a.dtype.name == "f32" and a_step == 1)
    if rows <= _FEW_ROWS and packed:
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
    across = -(-columns // _TILE)
    # A processor's one item has the whole tile, and 4 x 16 values of it in vector registers.
    side, micro = (1, (4, 16)) if lowering.capabilities.is_cpu else (8, (4, 4))
    geometry = {"SIDE": side, "DOWN": micro[0], "ACROSS": micro[1], "ITEMS": side * side}
    lowering.launch(
        Variant.of("matmul", {**_types(a, b, y), **geometry}),
        (across * -(-rows // _TILE), math.prod(lead)), side * side,
        *views, y.place, i64(y.at), shape_bytes(lead), i32(rows), i32(columns), i32(depth),
        i32(across),
    )  # fmt: skip


_ITEMS = 64
_SIXTEEN = 16  # elements of a block that an item decodes at once


def _types(a: Tensor, b: Tensor, y: Tensor) -> dict[str, str | int | None]:
    quant = b.dtype.name if b.dtype.quantised else None
    return {"TYPE": y.dtype.name, "A": a.dtype.name, "B": quant or b.dtype.name, "QUANT": quant}


def _few_rows(
    lowering: Lowering, a: Tensor, b: Tensor, y: Tensor, rows: int, depth: int
) -> dict[str, str | int | None]:
    steps = max(1, depth // (_SIXTEEN if b.dtype.quantised else 1))
    is_cpu = lowering.capabilities.is_cpu
    lanes = 1 if is_cpu else min(32, 1 << (steps - 1).bit_length())
    return {
        **_types(a, b, y),
        "ITEMS": 1 if is_cpu else _ITEMS,
        "LANES": lanes,
        "EACH": 16 if is_cpu else 1,  # a group costs a processor some tenths of a microsecond
        "ROWS": 1 if rows == 1 else _ROWS_AT_ONCE,
    }


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
    del node
    x, w, ids = present(*operands)
    tokens, used, columns = y.shape
    depth = x.shape[-1]
    x = _dense_rows(lowering, x) if w.dtype.quantised and x.strides[-1] != 1 else x
    shared = 0 if x.shape[1] == 1 else x.strides[1]
    matrix, w_row, w_step = _strides_of(w, 3)[1]
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


# Attention

_WIDEST = 512  # of a head; a query lies in local memory
_ROWS_PER_SPLIT = 256
_MOST_SPLITS = 16


def _attention_check(node: Node, capabilities: Capabilities) -> str:
    del capabilities  # nothing here is computed in f64
    q, k, v = node.operands[:3]
    mask, sinks = node.inputs[3], node.inputs[5]
    if q.dtype.name not in _COMPUTED:
        return f"queries of {q.dtype}"
    if not {k.dtype.name, v.dtype.name} <= _COMPUTED | QUANTS:
        return f"a cache of {k.dtype} and {v.dtype}"
    if k.dtype.quantised != v.dtype.quantised or (k.dtype.quantised and k.dtype != v.dtype):
        return f"a cache of {k.dtype} and {v.dtype}"
    if max(q.shape[-1], v.shape[-1]) > _WIDEST:
        return f"heads of more than {_WIDEST} elements"
    if mask is not None and mask.dtype.name not in _COMPUTED | {"bool"}:
        return f"a mask of {mask.dtype}"
    if sinks is not None and sinks.dtype.name != "f32":
        return f"sinks must be f32, not {sinks.dtype}"
    if len(node.shape) > _LEADING + 3 or node.type.size > LIMIT:
        return f"{node.type} is too large"
    return ""


@row("scaled_dot_product_attention", check=_attention_check)
def _attention(
    lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor
) -> None:
    q, k, v = present(*operands[:3])
    mask, positions, sinks = operands[3:]
    lead_shape = broadcast(q.shape[:-3], k.shape[:-3])
    tensors = [q, k, v]
    hidden = q
    if mask is not None:
        scores = (*lead_shape, q.shape[-2], q.shape[-3], k.shape[-3])
        hidden = _stretched(mask, scores)
        tensors.append(hidden)
    lead, strides = _lead(lead_shape, tensors, 3)
    views: list[Part] = []
    for tensor, own in zip(tensors, strides, strict=True):
        rest = _strides_of(tensor, 3)[1]
        views += [tensor.place, view_bytes(tensor.at, _padded(own, *rest))]
    if mask is None:
        views += [q.place, _NOTHING]
    views += [*optional(positions, q), *optional(sinks, q)]
    groups = math.prod(lead) * q.shape[-3] * q.shape[-2]
    is_cpu = lowering.capabilities.is_cpu
    items = 1 if is_cpu else 64
    splits = _splits(groups, k.shape[-3], 8 if is_cpu else 256)
    numbers = _numbers(node, operands, splits)
    bias = real(node, "max_bias")
    slopes = lowering.constant(alibi_slopes(q.shape[-2], bias)) if bias else q.place
    target = y.place
    at = y.at
    if splits > 1:
        target = lowering.temporary(4 * groups * splits * (v.shape[-1] + 2))
        at = target.at
    defines = {
        "Q": q.dtype.name, "KEYS": k.dtype.name, "VALUES": v.dtype.name,
        "QUANT": k.dtype.name if k.dtype.quantised else None,
        "MASK": mask.dtype.name if mask is not None else None,
        "MASK_IS_BOOL": "1" if mask is not None and mask.dtype.name == "bool" else None,
        "WIDTH": -(-q.shape[-1] // 64) * 64, "EACH": -(-v.shape[-1] // items),
        "ITEMS": items,
    }  # fmt: skip
    lowering.launch(
        Variant.of("attention", defines), (groups if y.size else 0, splits), items,
        *views, slopes, i64(slopes.at), target, i64(at), shape_bytes(lead), numbers,
    )  # fmt: skip
    if splits > 1:
        sink_view = views[10:12]
        lowering.launch(
            Variant.of("combine", {"ITEMS": items}), groups if y.size else 0,
            items, target, i64(at), *sink_view, y.place, i64(y.at), numbers,
        )  # fmt: skip


def _stretched(mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A mask with every axis of the scores, those that it lacks having stride 0."""
    return Tensor(mask.place, mask.dtype, Layout(shape, mask.broadcast(shape), mask.layout.offset))


def _splits(groups: int, rows: int, enough: int) -> int:
    """Parts of the rows, where queries and heads alone leave a device idle."""
    wanted = max(1, enough // max(1, groups))
    return max(1, min(wanted, rows // _ROWS_PER_SPLIT, _MOST_SPLITS))


def _numbers(node: Node, operands: Sequence[Tensor | None], splits: int) -> bytes:
    q, k, v = present(*operands[:3])
    positions, sinks = operands[4:]
    scale = real(node, "scale") or q.shape[-1] ** -0.5
    integers = (
        q.shape[-3], k.shape[-3], q.shape[-2], q.shape[-2] // k.shape[-2], q.shape[-1], v.shape[-1],
        splits, int(bool(node.param("causal"))), whole(node, "window"),
        int(positions is not None), int(positions is not None and positions.dtype.name == "i64"),
        int(sinks is not None), int(bool(node.param("max_bias"))),
    )  # fmt: skip
    return struct.pack("<13i2fi", *integers, scale, real(node, "softcap"), 0)
