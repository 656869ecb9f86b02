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
_GROUPS = 8  # enough for the threads of a processor to finish together
_DEPTHS = 512  # a processor's kernel is compiled for multiples of so many elements
_BYTES = 32 << 10  # of local memory, for rows that a processor's group rounds
_NOTHING = view_bytes(0, (0,))


def wanted(lowering: Lowering, node: Node) -> bool:
    """Whether a product rounds its left operand; `hotplug_cpu` goes by the same."""
    x, weights = node.operands[:2]
    rounded = weights.dtype.quantised and node.param("precision") == "default"
    fits = not lowering.capabilities.is_cpu or _local_bytes(x.shape[-1]) <= _BYTES
    return rounded and fits and x.shape[-1] % _BLOCK == 0


def _rounded_up(depth: int) -> int:
    return -(-depth // _DEPTHS) * _DEPTHS


def _local_bytes(depth: int) -> int:
    """What a processor's group takes for a row: steps of 16 bits, scales and sums."""
    return _rounded_up(depth) * 2 + 4 * _rounded_up(depth) * (_BLOCK + _SIXTEEN) // (
        _BLOCK * _SIXTEEN
    )


@dataclass(frozen=True, slots=True)
class Steps:
    """A left operand as the kernel takes it (int8.h).

    Attributes:
        tensor: on a processor the operand itself, elsewhere its rows where their steps lie, which
            are followed by scales and sums.
    """

    tensor: Tensor

    @property
    def scales_at(self) -> int:
        """Bytes into the buffer."""
        return self.tensor.place.at + self.tensor.size

    @property
    def sums_at(self) -> int:
        """Bytes into the buffer."""
        return self.scales_at + 4 * self.tensor.size // _BLOCK

    @property
    def end(self) -> int:
        """Bytes into the buffer."""
        return self.sums_at + 4 * self.tensor.size // _SIXTEEN


def quantise(lowering: Lowering, x: Node, tensor: Tensor) -> Steps:
    """Round an operand, unless it is what was rounded last or a processor, which does it later."""
    if lowering.capabilities.is_cpu:
        return Steps(tensor)
    place = Place("held")
    steps = Steps(contiguous(place, tensor.dtype, tensor.shape))
    if lowering.hold(x, steps.end):
        return steps
    lengths, (strides,) = joined(tensor.shape[:-1], [tensor.strides[:-1]])
    blocks = tensor.size // _BLOCK
    lowering.launch(
        Variant.of("quantise", {"A": tensor.dtype.name, "ITEMS": _ITEMS}),
        -(-blocks // _ITEMS), _ITEMS,
        tensor.place, view_bytes(tensor.at, strides), place, i64(place.at), i64(steps.scales_at),
        i64(steps.sums_at), shape_bytes(lengths), i64(tensor.strides[-1]),
        i32(tensor.shape[-1] // _BLOCK),
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
    columns, depth = y.shape[-1], steps.tensor.shape[-1]
    defines: dict[str, str | int | None]
    defines = {"TYPE": y.dtype.name, "QUANT": w.dtype.name, "IDS": "1" if grouped else None}
    if lowering.capabilities.is_cpu:
        items, each = 1, -(-columns // _GROUPS)
        fitting = min(rows, _ROWS_AT_ONCE, _BYTES // _local_bytes(depth))
        defines |= {"A": steps.tensor.dtype.name, "DEPTH": _rounded_up(depth), "LANES": 1}
        defines |= {
            "DENSE": "1" if views[0][4] == 1 else None,
            "ROWS": 1 << fitting.bit_length() - 1,
        }
    else:
        items, each = _ITEMS, 1
        lanes = min(32, 1 << (depth // _SIXTEEN - 1).bit_length())
        defines |= {"LANES": lanes, "ROWS": 1 if rows == 1 else _ROWS_AT_ONCE}
    defines["ITEMS"] = items
    blocks = -(-rows // int(defines["ROWS"] or 1))
    batches = y.size // (rows * columns) * blocks
    lowering.launch(
        Variant.of("matvec_int8", defines),
        (-(-columns * int(defines["LANES"] or 1) // (items * each)), batches), items,
        steps.tensor.place, view_bytes(steps.tensor.at, views[0]), i64(steps.scales_at),
        i64(steps.sums_at), w.place, view_bytes(w.at, views[1]), *ids[:2], y.place, i64(y.at),
        lead, i32(rows), i32(columns), i32(depth), i32(blocks), *ids[2:], i32(each),
    )  # fmt: skip
