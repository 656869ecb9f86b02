"""Products with quantised weights in default precision: activations are rounded to 8 bits."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hotplug.gpu.catalog.leading import lead_of, padded, strides_of
from hotplug.gpu.catalog.reduction import rounded_norm
from hotplug.gpu.catalog.table import Geometry, Lowering, Part, bucket, i32, i64, real
from hotplug.gpu.driver import Capabilities
from hotplug.gpu.sources import Variant
from hotplug.gpu.tensors import Place, Tensor, contiguous, joined, shape_bytes, view_bytes
from hotplug.node import Node

__all__ = [
    "FEW_ROWS", "MOST_MATRICES", "Matrix", "Norm", "Steps", "beside", "grouped", "matmul", "matvec",
    "quantise", "rounded", "tiles", "wanted",
]  # fmt: skip

FEW_ROWS = 8
"""Rows up to which a product's columns are computed one by one."""

MOST_MATRICES = 3
"""That meet the same rows in one launch."""

_BLOCK = 32  # elements that share a scale
_SIXTEEN = 16  # elements that have a sum, and that an item multiplies at once
_ITEMS = 64
_ROWS_AT_ONCE = 4
_GROUPS = 2  # to a thread of a processor; each rounds its rows anew
_LARGE = 1 << 24  # weights, from which rounding counts little: smaller groups end together
_DEPTHS = 512  # a processor's kernel is compiled for multiples of so many elements
_BYTES = 32 << 10  # of local memory, for rows that a processor's group rounds
_NOTHING = view_bytes(0, (0,))


def wanted(capabilities: Capabilities, node: Node) -> bool:
    """Whether a product rounds its left operand; `hotplug_cpu` goes by the same."""
    x, weights = node.operands[:2]
    rounded = weights.dtype.quantised and node.param("precision") == "default"
    fits = not capabilities.is_cpu or _local_bytes(x.shape[-1]) <= _BYTES
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

    @property
    def arguments(self) -> bytes:
        """Where scales and sums lie: two arguments of a kernel."""
        return i64(self.scales_at) + i64(self.sums_at)


@dataclass(frozen=True, slots=True)
class Norm:
    """A norm whose rows a processor's groups compute before they round them.

    Attributes:
        node: op `rms_norm`.
        weight: what it is scaled by, f32.
    """

    node: Node
    weight: Tensor


@dataclass(frozen=True, slots=True)
class Matrix:
    """What rows are multiplied with.

    Attributes:
        weights: a row for each column of the result.
        result: where that goes, contiguous.
        addend: what is added to it, contiguous: as many rows, or one for all.
    """

    weights: Tensor
    result: Tensor
    addend: Tensor | None = None


def quantise(lowering: Lowering, x: Node, tensor: Tensor) -> Steps:
    """Round an operand, unless it is what was rounded last or a processor, which does it later."""
    if lowering.capabilities.is_cpu:
        return Steps(tensor)
    steps = _held(tensor)
    if lowering.hold(x, steps.end):
        return steps
    place = steps.tensor.place
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


def rounded(lowering: Lowering, node: Node, tensors: Mapping[Node, Tensor]) -> Steps:
    """A norm of rows that is only needed in steps; on a processor its operand, see `Norm`."""
    x = tensors[node.operands[0]]
    if lowering.capabilities.is_cpu:
        return Steps(x)
    steps = _held(x)
    if not lowering.hold(node, steps.end):
        rounded_norm(lowering, node, tensors, steps.tensor, steps.arguments)
    return steps


def _held(x: Tensor) -> Steps:
    return Steps(contiguous(Place("held"), x.dtype, x.shape))


def matvec(lowering: Lowering, steps: Steps, w: Tensor, y: Tensor) -> None:
    """Few rows times weights, as the op `matmul` has it."""
    beside(lowering, steps, (Matrix(w, y),))


def beside(
    lowering: Lowering,
    steps: Steps,
    matrices: Sequence[Matrix],
    *,
    gated: bool = False,
    norm: Norm | None = None,
) -> None:
    """Few rows times some matrices of one dtype, of whose addends all have many rows or one.

    Args:
        lowering: where the launch is added.
        steps: the rows.
        matrices: one, of any leading axes, or up to MOST_MATRICES without.
        gated: whether they are a gate, which is activated by SiLU, and what it lets through; the
            first one's result is that of both.
        norm: what becomes of the rows first.
    """
    x, w, y = steps.tensor, matrices[0].weights, matrices[0].result
    lead, (x_lead, w_lead) = lead_of(y.shape[:-2], (x, w), 2)
    views = padded(x_lead, *strides_of(x, 2)[1]), padded(w_lead, *strides_of(w, 2)[1])
    ids = (x.place, _NOTHING, i32(0), i32(0))
    own = _Launch(steps, tuple(matrices), y.shape[-2], gated=gated, norm=norm)
    own.add(lowering, views, ids, shape_bytes(lead))


def tiles(rows: int) -> tuple[Geometry, Geometry]:
    """Geometries of matmul_int8.cl, the likelier first."""
    large, small = {"INT8": 1, "TILE": 64, "SIDE": 16}, {"INT8": 1, "TILE": 32, "SIDE": 8}
    return (small, large) if rows <= small["TILE"] else (large, small)


def matmul(lowering: Lowering, steps: Steps, w: Tensor, y: Tensor, geometry: Geometry) -> None:
    """Many rows times weights, as the op `matmul` has it."""
    x, tile, items = steps.tensor, geometry["TILE"], geometry["SIDE"] ** 2
    rows, columns = y.shape[-2:]
    lead, (x_lead, w_lead) = lead_of(y.shape[:-2], (x, w), 2)
    defines = {
        "TYPE": y.dtype.name, "QUANT": w.dtype.name, "TILE": tile, "SIDE": geometry["SIDE"],
        "ITEMS": items,
    }  # fmt: skip
    across = -(-columns // tile)
    lowering.launch(
        Variant.of("matmul_int8", defines),
        (across * -(-rows // tile), y.size // max(1, rows * columns)), items,
        x.place, view_bytes(x.at, padded(x_lead, *strides_of(x, 2)[1])), i64(steps.scales_at),
        i64(steps.sums_at), w.place, view_bytes(w.at, padded(w_lead, *strides_of(w, 2)[1])),
        y.place, i64(y.at), shape_bytes(lead), i32(rows), i32(columns), i32(x.shape[-1]),
        i32(across),
    )  # fmt: skip


def grouped(lowering: Lowering, steps: Steps, w: Tensor, ids: Tensor, y: Tensor) -> None:
    """Each row times the matrix that its id names, as the op `matmul_grouped` has it."""
    token, used, step = steps.tensor.strides
    matrix, *rest = strides_of(w, 3)[1]
    shared = steps.tensor.shape[1] == 1
    views = (token, 0 if shared else used, 0, 0, step), (0, 0, 0, *rest, matrix)
    named = (
        ids.place, view_bytes(ids.at, ids.strides), i32(ids.dtype.name == "i64"), i32(w.shape[0]),
    )  # fmt: skip
    own = _Launch(steps, (Matrix(w, y),), 1, grouped=True)
    own.add(lowering, views, named, shape_bytes(y.shape[:2]))


@dataclass(frozen=True, slots=True)
class _Launch:
    """A launch of matvec_int8.cl.

    Attributes:
        steps: rows.
        matrices: what they are multiplied with.
        rows: how many there are to a matrix.
        gated, norm: as for `beside`.
        grouped: whether rows have matrices by their ids.
    """

    steps: Steps
    matrices: tuple[Matrix, ...]
    rows: int
    gated: bool = False
    norm: Norm | None = None
    grouped: bool = False

    def add(
        self,
        lowering: Lowering,
        views: tuple[tuple[int, ...], tuple[int, ...]],
        ids: tuple[Part, Part, bytes, bytes],
        lead: bytes,
    ) -> None:
        steps, first = self.steps, self.matrices[0]
        columns, depth = first.result.shape[-1], steps.tensor.shape[-1]
        defines, each = self._geometry(lowering)
        defines |= {
            "TYPE": first.result.dtype.name,
            "QUANT": first.weights.dtype.name,
            "IDS": "1" if self.grouped else None,
            "BESIDE": "1" if len(self.matrices) > 1 and not self.gated else None,
            "GATED": "1" if self.gated else None,
            "ADDED": "1" if first.addend else None,
        }
        if lowering.capabilities.is_cpu:
            defines["DENSE"] = "1" if views[0][4] == 1 else None
            defines["NORM"] = "1" if self.norm else None
        lanes, items = int(defines["LANES"] or 1), int(defines["ITEMS"] or 1)
        blocks = -(-self.rows // int(defines["ROWS"] or 1))
        batches = first.result.size // (self.rows * columns) * blocks
        lowering.launch(
            Variant.of("matvec_int8", defines),
            (-(-self._columns * lanes // (items * each)), batches), items,
            steps.tensor.place, view_bytes(steps.tensor.at, views[0]), i64(steps.scales_at),
            i64(steps.sums_at), first.weights.place, view_bytes(first.weights.at, views[1]),
            *ids[:2], first.result.place, i64(first.result.at), lead, i32(self.rows), i32(columns),
            i32(depth), i32(blocks), *ids[2:], i32(each), *self._more(),
        )  # fmt: skip

    @property
    def _columns(self) -> int:
        """Of all results."""
        counted = self.matrices[:1] if self.gated else self.matrices
        return sum(matrix.result.shape[-1] for matrix in counted)

    def _geometry(self, lowering: Lowering) -> tuple[dict[str, str | int | None], int]:
        """Definitions, and the columns that an item has."""
        x = self.steps.tensor
        depth = x.shape[-1]
        if lowering.capabilities.is_cpu:
            fitting = min(self.rows, _ROWS_AT_ONCE, _BYTES // _local_bytes(depth))
            defines: dict[str, str | int | None]
            defines = {"A": x.dtype.name, "DEPTH": _rounded_up(depth), "LANES": 1, "ITEMS": 1}
            defines["ROWS"] = 1 << fitting.bit_length() - 1
            groups = _GROUPS * max(2, lowering.capabilities.threads)
            large = self._columns * depth >= _LARGE
            return defines, -(-self._columns // (groups << large))
        asked = f"matvec_int8 {self.matrices[0].weights.dtype}"
        size = bucket(self.rows, self.matrices[0].result.shape[-1], depth)
        geometry = lowering.choose(f"{asked} {size}", _lines(depth // _SIXTEEN))
        return {**geometry, "ROWS": 1 if self.rows == 1 else _ROWS_AT_ONCE}, 1

    def _more(self) -> tuple[Part, ...]:
        """The kernel's last arguments: the norm, the other matrices, and what is added."""
        a, b, c = (*self.matrices, *self.matrices[:1] * 2)[:3]
        places = [one.addend or one.result for one in (a, b, c)]
        has_rows = places[0].size > places[0].shape[-1]
        counts = [one.result.shape[-1] if one is not a else 0 for one in (b, c)]
        eps = real(self.norm.node, "eps") if self.norm else 0
        more = struct.pack(
            "<7q3if", b.weights.at, c.weights.at, b.result.at, c.result.at,
            *(place.at for place in places), *counts, has_rows, eps,
        )  # fmt: skip
        norm = self.norm.weight if self.norm else a.weights
        return (
            norm.place, i64(norm.at), b.weights.place, c.weights.place, b.result.place,
            c.result.place, *(place.place for place in places), more,
        )  # fmt: skip


def _lines(steps: int) -> list[Geometry]:
    """Geometries where items share columns, by the sixteens of a column; few, see decision 9."""
    lanes = min(32, 1 << max(0, steps - 1).bit_length())
    shapes = [(64, lanes), (128, lanes), (64, lanes // 4)]
    return [{"ITEMS": items, "LANES": few} for items, few in shapes if few]
