"""Products with quantised weights in default precision: activations are rounded to 8 bits."""

from __future__ import annotations

from dataclasses import dataclass

from hotplug.gpu.catalog.leading import lead_of, padded, strides_of
from hotplug.gpu.catalog.table import Lowering, Part, i32, i64
from hotplug.gpu.sources import Variant
from hotplug.gpu.tensors import Place, Tensor, contiguous, joined, shape_bytes, view_bytes
from hotplug.node import Node

__all__ = ["Steps", "grouped", "matvec", "quantise", "wanted"]

_BLOCK = 32  # elements that share a scale
_SIXTEEN = 16  # elements that have a sum, and that an item multiplies at once
_ITEMS = 64
_ROWS_AT_ONCE = 4
_GROUPS = 32  # enough for the threads of a processor to finish together
_NOTHING = view_bytes(0, (0,))


def wanted(node: Node) -> bool:
    """Whether a product rounds its left operand; `hotplug_cpu` goes by the same."""
    x, weights = node.operands[:2]
    rounded = weights.dtype.quantised and node.param("precision") == "default"
    return rounded and x.shape[-1] % _BLOCK == 0


@dataclass(frozen=True, slots=True)
class Steps:
    """An operand in steps of 8 bits: steps, scales and sums one after the other (int8.h).

    Attributes:
        tensor: the operand, row by row, where its steps lie.
        width: bytes of a step.
    """

    tensor: Tensor
    width: int

    @property
    def scales_at(self) -> int:
        """Bytes into the buffer."""
        return self.tensor.place.at + self.width * self.tensor.size

    @property
    def sums_at(self) -> int:
        """Bytes into the buffer."""
        return self.scales_at + 4 * self.tensor.size // _BLOCK

    @property
    def end(self) -> int:
        """Bytes into the buffer."""
        return self.sums_at + 4 * self.tensor.size // _SIXTEEN


def quantise(lowering: Lowering, x: Node, tensor: Tensor) -> Steps:
    """Round an operand, unless it is what was rounded last."""
    is_cpu = lowering.capabilities.is_cpu
    place = Place("held")
    steps = Steps(contiguous(place, tensor.dtype, tensor.shape), 2 if is_cpu else 1)
    if lowering.hold(x, steps.end):
        return steps
    lengths, (strides,) = joined(tensor.shape[:-1], [tensor.strides[:-1]])
    dense = "1" if is_cpu and tensor.strides[-1] == 1 else None
    items = 1 if is_cpu else _ITEMS
    blocks = tensor.size // _BLOCK
    each = -(-blocks // _GROUPS) if is_cpu else 1
    lowering.launch(
        Variant.of("quantise", {"A": tensor.dtype.name, "DENSE": dense, "ITEMS": items}),
        -(-blocks // (items * each)), items,
        tensor.place, view_bytes(tensor.at, strides), place, i64(place.at), i64(steps.scales_at),
        i64(steps.sums_at), shape_bytes(lengths), i64(tensor.strides[-1]),
        i32(tensor.shape[-1] // _BLOCK), i32(each),
    )  # fmt: skip
    return steps


def matvec(lowering: Lowering, steps: Steps, w: Tensor, y: Tensor) -> None:
    """Few rows times weights, as the op `matmul` has it."""
    lead, (x_lead, w_lead) = lead_of(y.shape[:-2], (steps.tensor, w), 2)
    views = (
        padded(x_lead, *strides_of(steps.tensor, 2)[1]),
        padded(w_lead, *strides_of(w, 2)[1]),
    )
    ids = (steps.tensor.place, _NOTHING, i32(0), i32(0))
    _launch(lowering, steps, w, y, views, ids, shape_bytes(lead), y.shape[-2])


def grouped(lowering: Lowering, steps: Steps, w: Tensor, ids: Tensor, y: Tensor) -> None:
    """Each row times the matrix that its id names, as the op `matmul_grouped` has it."""
    token, used, step = steps.tensor.strides
    matrix, *rest = strides_of(w, 3)[1]
    shared = steps.tensor.shape[1] == 1
    views = (token, 0 if shared else used, 0, 0, step), (0, 0, 0, *rest, matrix)
    named = (
        ids.place, view_bytes(ids.at, ids.strides), i32(ids.dtype.name == "i64"), i32(w.shape[0]),
    )  # fmt: skip
    _launch(lowering, steps, w, y, views, named, shape_bytes(y.shape[:2]), 1, grouped=True)


def _launch(
    lowering: Lowering,
    steps: Steps,
    w: Tensor,
    y: Tensor,
    views: tuple[tuple[int, ...], tuple[int, ...]],
    ids: tuple[Part, Part, bytes, bytes],
    lead: bytes,
    rows: int,
    *,
    grouped: bool = False,
) -> None:
    is_cpu = lowering.capabilities.is_cpu
    columns, depth = y.shape[-1], steps.tensor.shape[-1]
    items, each = (1, -(-columns // _GROUPS)) if is_cpu else (_ITEMS, 1)
    defines = {
        "TYPE": y.dtype.name,
        "QUANT": w.dtype.name,
        "IDS": "1" if grouped else None,
        "ITEMS": items,
        "LANES": 1 if is_cpu else min(32, 1 << (depth // _SIXTEEN - 1).bit_length()),
        "ROWS": 1 if rows == 1 else _ROWS_AT_ONCE,
    }
    blocks = -(-rows // int(defines["ROWS"] or 1))
    batches = y.size // (rows * columns) * blocks
    lowering.launch(
        Variant.of("matvec_int8", defines),
        (-(-columns * int(defines["LANES"] or 1) // (items * each)), batches), items,
        steps.tensor.place, view_bytes(steps.tensor.at, views[0]), i64(steps.scales_at),
        i64(steps.sums_at), w.place, view_bytes(w.at, views[1]), *ids[:2], y.place, i64(y.at),
        lead, i32(rows), i32(columns), i32(depth), i32(blocks), *ids[2:], i32(each),
    )  # fmt: skip
