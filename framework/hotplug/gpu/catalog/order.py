"""Which elements of a row are largest, and the order of all of them."""

from __future__ import annotations

from collections.abc import Sequence

from hotplug.dtypes import DType, Kind, get
from hotplug.gpu.catalog.reduction import rows_beside
from hotplug.gpu.catalog.table import (
    ITEMS,
    Lowering,
    Part,
    groups_of,
    i32,
    i64,
    plain_type,
    present,
    row,
    whole,
)
from hotplug.gpu.driver import Capabilities
from hotplug.gpu.sources import Variant
from hotplug.gpu.tensors import LIMIT, Place, Tensor, contiguous
from hotplug.node import Node

__all__: list[str] = []

_CHUNK = 1024  # of top.cl; groups of argmax.cl have so many too, since one would take long
_MOST_KEPT = 256  # of a chunk
_SHORT = 512  # elements up to which counting, which is quadratic, is as fast


@row("argmax", "argmin", check=plain_type)
def _argmax(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    (x,) = present(operands[0])
    axis = whole(node, "axis") % len(x.shape)
    rest = (i32(_CHUNK), i32(node.op == "argmin"))
    _in_stages(lowering, "argmax", x, axis, y, 1, lowering.reducing_items, rest)


def _sort_check(node: Node, capabilities: Capabilities) -> str:
    x = node.operands[0]
    length = x.shape[-1] if x.shape else 1
    needed = (
        2 * _chunked(x.type.size // max(1, length), length) * (_computed(x.dtype).block_bytes + 4)
    )
    if length > _SHORT and needed > min(LIMIT, capabilities.max_buffer):
        return f"sorting {x.type} takes {needed} bytes in one piece"
    return plain_type(node, capabilities)


def _chunked(rows: int, length: int) -> int:
    """Elements of rows that are made of whole chunks."""
    return rows * -(-length // _CHUNK) * _CHUNK


@row("argsort", "top_k", check=_sort_check)
def _sort(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    (x,) = present(operands[0])
    axis = len(x.shape) - 1
    shape, view, rows, count, stride = rows_beside(x, axis)
    items = lowering.reducing_items
    descending = node.op == "top_k" or bool(node.param("descending"))
    if count > _SHORT and y.shape[-1] <= _MOST_KEPT:
        rest = (i32(y.shape[-1]), i32(descending))
        _in_stages(lowering, "top", x, axis, y, y.shape[-1], items, rest)
    elif count > _CHUNK:
        _merged(lowering, x, y, descending=descending)
    else:
        lowering.launch(
            Variant.of("sort", {"TYPE": x.dtype.name, "ITEMS": items}), rows if count else 0, items,
            x.place, view, y.place, i64(y.at), shape, i32(count), i64(stride), i32(descending),
            i32(y.shape[-1]),
        )  # fmt: skip


def _merged(lowering: Lowering, x: Tensor, y: Tensor, *, descending: bool) -> None:
    """Sort chunks of rows, and merge two by two until each row is one."""
    shape, view, rows, count, stride = rows_beside(x, len(x.shape) - 1)
    total, width = _chunked(rows, count), _computed(x.dtype).block_bytes
    lowering.temporary(2 * total * (width + 4))
    values, places = (
        [Place("scratch", at + i * total * each) for i in range(2)]
        for at, each in ((0, width), (2 * total * width, 4))
    )
    items, known = lowering.reducing_items, i32(descending)
    lowering.launch(
        Variant.of("top", {"TYPE": x.dtype.name, "VALUES": 1, "ITEMS": items}), total // _CHUNK,
        items, x.place, view, x.place, i64(0), places[0], i64(places[0].at), values[0],
        i64(values[0].at), shape, i32(count), i64(stride), i32(_CHUNK), known,
    )  # fmt: skip
    size, row_size = _CHUNK, total // rows
    while size < row_size:
        last = 2 * size >= row_size
        target = y if last else places[1]
        defines = {"TYPE": x.dtype.name, "LAST": 1 if last else None, "ITEMS": ITEMS}
        lowering.launch(
            Variant.of("merge", defines), groups_of(total), ITEMS,
            values[0], i64(values[0].at), i64(places[0].at), values[1], i64(values[1].at),
            y.place if last else places[1], i64(target.at), i32(total), i32(row_size), i32(size),
            known, i32(y.shape[-1]),
        )  # fmt: skip
        values.reverse()
        places.reverse()
        size *= 2


def _in_stages(
    lowering: Lowering,
    kernel: str,
    x: Tensor,
    axis: int,
    y: Tensor,
    kept: int,
    items: int,
    rest: tuple[Part, ...],
) -> None:
    """Keep some elements of each chunk of a row, then some of those, until one chunk is left.

    Args:
        lowering: gets the launches.
        kernel: what keeps them.
        x: rows along an axis.
        axis: of x.
        y: for the places of those that are kept at last.
        kept: how many of a chunk.
        items: of a work-group.
        rest: the kernel's last arguments.
    """
    computed = _computed(x.dtype)
    places: Place | None = None
    used = 0
    while True:
        shape, view, rows, count, stride = rows_beside(x, axis)
        chunks = -(-count // _CHUNK)
        found, values = y.place, y.place
        found_at = y.at
        if chunks > 1:
            left = rows * chunks * kept
            values, found_at = Place("scratch", used), used + left * computed.block_bytes
            found = Place("scratch", found_at)
            used = -(-(found_at + 4 * left) // 8) * 8
            lowering.temporary(used)
        defines = {
            "TYPE": x.dtype.name, "PLACES": places and 1, "VALUES": 1 if chunks > 1 else None,
            "ITEMS": items,
        }  # fmt: skip
        known = places or x.place
        lowering.launch(
            Variant.of(kernel, defines), rows * chunks, items,
            x.place, view, known, i64(known.at), found, i64(found_at), values, i64(values.at),
            shape, i32(count), i64(stride), *rest,
        )  # fmt: skip
        if chunks == 1:
            return
        x, axis, places = contiguous(values, computed, (rows, chunks * kept)), 1, found


def _computed(dtype: DType) -> DType:
    """What kernels hold elements of a dtype in."""
    if dtype.kind is not Kind.FLOAT:
        return get("i64")
    return dtype if dtype.name == "f64" else get("f32")
