"""Attention."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from hotplug.dtypes import DType
from hotplug.gpu.catalog.leading import LEADING, lead_of, padded, strides_of
from hotplug.gpu.catalog.quantised import QUANTS, decoded
from hotplug.gpu.catalog.reduction import alibi_slopes
from hotplug.gpu.catalog.table import Lowering, Part, i64, optional, present, real, row, whole
from hotplug.gpu.driver import Capabilities
from hotplug.gpu.sources import Variant
from hotplug.gpu.tensors import LIMIT, Place, Tensor, shape_bytes, view_bytes
from hotplug.layout import Layout
from hotplug.node import Node
from hotplug.ops.checks import broadcast

__all__: list[str] = []

_COMPUTED = frozenset({"f32", "f16", "bf16"})
_NOTHING = view_bytes(0, (0,))
_WIDEST = 512  # of a head; a query lies in local memory
_ROWS_PER_SPLIT = 256
_MOST_SPLITS = 16
_MOST_QUERIES = 8  # of a work-group
_MOST_SUMS = 32  # of an item, in registers; decoding takes some, too


def _attention_check(node: Node, capabilities: Capabilities) -> str:
    q, k, v = node.operands[:3]
    mask, sinks = node.inputs[3], node.inputs[5]
    if q.dtype.name not in _COMPUTED:
        return f"queries of {q.dtype}"
    if not {k.dtype.name, v.dtype.name} <= _COMPUTED | QUANTS | {"f64"}:
        return f"a cache of {k.dtype} and {v.dtype}"
    if "f64" in {k.dtype.name, v.dtype.name} and not capabilities.f64:
        return "the device does not compute in f64"
    if _apart(k.dtype, v.dtype) and 4 * (k.type.size + v.type.size) > capabilities.max_buffer:
        return f"a cache of {k.dtype} and {v.dtype}, which is too large to be decoded"
    if max(q.shape[-1], v.shape[-1]) > _WIDEST:
        return f"heads of more than {_WIDEST} elements"
    if mask is not None and mask.dtype.name not in _COMPUTED | {"bool"}:
        return f"a mask of {mask.dtype}"
    if sinks is not None and sinks.dtype.name != "f32":
        return f"sinks must be f32, not {sinks.dtype}"
    if len(node.shape) > LEADING + 3 or node.type.size > LIMIT:
        return f"{node.type} is too large"
    return ""


def _apart(k: DType, v: DType) -> bool:
    """Whether keys and values are blocks that one kernel does not decode."""
    return k != v and (k.quantised or v.quantised)


def _rounded_up(nbytes: int) -> int:
    return -(-nbytes // 64) * 64


@row("scaled_dot_product_attention", check=_attention_check)
def _attention(
    lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor
) -> None:
    q, k, v = present(*operands[:3])
    used = 0
    if _apart(k.dtype, v.dtype):
        k = decoded(lowering, k)
        start = _rounded_up(4 * k.size)
        v = decoded(lowering, v, start)
        used = start + _rounded_up(4 * v.size)
    mask, positions, sinks = operands[3:]
    lead_shape = broadcast(q.shape[:-3], k.shape[:-3])
    tensors = [q, k, v]
    hidden = q
    if mask is not None:
        scores = (*lead_shape, q.shape[-2], q.shape[-3], k.shape[-3])
        hidden = _stretched(mask, scores)
        tensors.append(hidden)
    lead, strides = lead_of(lead_shape, tensors, 3)
    views: list[Part] = []
    for tensor, own in zip(tensors, strides, strict=True):
        rest = strides_of(tensor, 3)[1]
        views += [tensor.place, view_bytes(tensor.at, padded(own, *rest))]
    if mask is None:
        views += [q.place, _NOTHING]
    views += [*optional(positions, q), *optional(sinks, q)]
    is_cpu = lowering.capabilities.is_cpu
    items = 1 if is_cpu else 64
    each = -(-v.shape[-1] // 16) * 16 if is_cpu else -(-v.shape[-1] // items)
    queries = q.shape[-3] * q.shape[-2] // k.shape[-2]  # that share keys
    sums = _MOST_SUMS // 4 if k.dtype.quantised else _MOST_SUMS
    together = min(queries, _MOST_QUERIES, _MOST_QUERIES if is_cpu else sums // each)
    groups = math.prod(lead) * k.shape[-2] * -(-queries // together)
    splits = _splits(groups, k.shape[-3], 4 if is_cpu else 256)
    numbers = _numbers(node, operands, splits)
    bias = real(node, "max_bias")
    slopes = lowering.constant(alibi_slopes(q.shape[-2], bias)) if bias else q.place
    target = y.place
    at = y.at
    heads = math.prod(lead) * q.shape[-3] * q.shape[-2]
    if splits > 1:
        lowering.temporary(used + 4 * heads * splits * (v.shape[-1] + 2))
        target, at = Place("scratch", used), used
    dense = k.strides[-1] == v.strides[-1] == 1 and "f64" not in {k.dtype.name, v.dtype.name}
    defines = {
        "Q": q.dtype.name, "KEYS": k.dtype.name, "VALUES": v.dtype.name,
        "QUANT": k.dtype.name if k.dtype.quantised else None,
        "MASK": mask.dtype.name if mask is not None else None,
        "MASK_IS_BOOL": "1" if mask is not None and mask.dtype.name == "bool" else None,
        "DENSE": "1" if dense else None,
        "ALIGNED": "1" if not is_cpu and _aligned(k) else None,
        "QUERIES": together, "WIDTH": -(-q.shape[-1] // 64) * 64, "EACH": each, "ITEMS": items,
    }  # fmt: skip
    lowering.launch(
        Variant.of("attention", defines), (groups if y.size else 0, splits), items,
        *views, slopes, i64(slopes.at), target, i64(at), shape_bytes(lead), numbers,
    )  # fmt: skip
    if splits > 1:
        sink_view = views[10:12]
        lowering.launch(
            Variant.of("combine", {"ITEMS": items}), heads if y.size else 0,
            items, target, i64(at), *sink_view, y.place, i64(y.at), numbers,
        )  # fmt: skip


def _aligned(k: Tensor) -> bool:
    """Whether rows of f16 can be loaded 16 bytes at a time."""
    step = k.strides[-1] == 1 and k.shape[-1] % 8 == 0
    even = all(stride % 8 == 0 for stride in k.strides[:-1])
    return k.dtype.name == "f16" and step and even and k.at % 16 == 0


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
