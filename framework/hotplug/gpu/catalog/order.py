"""Which elements of a row are largest, and the order of all of them."""

from __future__ import annotations

from collections.abc import Sequence

from hotplug.dtypes import DType, Kind, get
from hotplug.gpu.catalog.reduction import rows_beside
from hotplug.gpu.catalog.table import Lowering, Part, i32, i64, plain_type, present, row, whole
from hotplug.gpu.driver import Capabilities
from hotplug.gpu.sources import Variant
from hotplug.gpu.tensors import Place, Tensor, contiguous
from hotplug.node import Node

__all__: list[str] = []

_CHUNK = 1024  # of top.cl; groups of argmax.cl have so many too, since one would take long
_MOST_KEPT = 256  # of a chunk
_SHORT = 512  # elements that are sorted by counting as fast
_SORTED = 8192  # elements; counting is quadratic


@row("argmax", "argmin", check=plain_type)
def _argmax(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    (x,) = present(operands[0])
    axis = whole(node, "axis") % len(x.shape)
    rest = (i32(_CHUNK), i32(node.op == "argmin"))
    _in_stages(lowering, "argmax", x, axis, y, 1, lowering.reducing_items, rest)


def _sort_check(node: Node, capabilities: Capabilities) -> str:
    length = node.operands[0].shape[-1] if node.operands[0].shape else 1
    if length > _SORTED and not _keeps_few(node, capabilities):
        return f"rows of more than {_SORTED} values are not sorted here"
    return plain_type(node, capabilities)


def _keeps_few(node: Node, capabilities: Capabilities) -> bool:
    """Whether chunks are sorted in local memory; a processor is slow at that."""
    few = node.op == "top_k" and whole(node, "k") <= _MOST_KEPT
    return few and not capabilities.is_cpu


@row("argsort", "top_k", check=_sort_check)
def _sort(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    (x,) = present(operands[0])
    axis = len(x.shape) - 1
    shape, view, rows, count, stride = rows_beside(x, axis)
    items = lowering.reducing_items
    if count > _SHORT and _keeps_few(node, lowering.capabilities):
        _in_stages(lowering, "top", x, axis, y, y.shape[-1], items, (i32(y.shape[-1]),))
        return
    descending = node.op == "top_k" or bool(node.param("descending"))
    lowering.launch(
        Variant.of("sort", {"TYPE": x.dtype.name, "ITEMS": items}), rows if count else 0, items,
        x.place, view, y.place, i64(y.at), shape, i32(count), i64(stride), i32(descending),
        i32(y.shape[-1]),
    )  # fmt: skip


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
