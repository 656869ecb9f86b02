"""Rotary embedding, alone and on the way into a cache."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hotplug.dtypes import DType, get
from hotplug.gpu.catalog.table import (
    ITEMS,
    Lowering,
    counts,
    groups_of,
    i32,
    i64,
    number,
    optional,
    plain_type,
    present,
    real,
    row,
    whole,
)
from hotplug.gpu.driver import Capabilities
from hotplug.gpu.sources import Variant
from hotplug.gpu.tensors import AXES, Place, Tensor, joined, shape_bytes, view_bytes
from hotplug.node import Node

__all__ = ["CachedHeads"]


def _rope_check(node: Node, capabilities: Capabilities) -> str:
    factors = node.inputs[2]
    if factors is not None and factors.dtype.name != "f32":
        return f"factors must be f32, not {factors.dtype}"
    return plain_type(node, capabilities)


@row("rope", check=_rope_check)
def _rope(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    x, positions = present(*operands[:2])
    width = x.shape[-1]
    turn = _turn(lowering, node, x, positions, operands[2])
    lengths, (steps,) = joined(x.shape[:-1], [x.strides[:-1]])
    heads = math.prod(x.shape[:-1])
    lowering.launch(
        Variant.of("rope", {"TYPE": x.dtype.name, "ITEMS": ITEMS}),
        groups_of(heads * (width - turn.pairs)), ITEMS,
        x.place, view_bytes(x.at, steps), turn.place, i64(turn.place.at), y.place, i64(y.at),
        shape_bytes(lengths), i64(x.strides[-1]), i32(width), i32(turn.pairs), i32(x.shape[-3]),
        i32(x.shape[-2]), i32(turn.interleaved),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class CachedHeads:
    """Nodes that make what attention reads of new tokens.

    Attributes:
        queries: a rotation.
        keys: a rotation like it, which goes into a cache alone.
        key_rows: the update of the cache of keys.
        value_rows: that of values, in the same rows.
    """

    queries: Node
    keys: Node
    key_rows: Node
    value_rows: Node

    def lower(self, lowering: Lowering, tensors: Mapping[Node, Tensor]) -> None:
        """Add the launch that does all of this, for few tokens."""
        operands = [None if item is None else tensors[item] for item in self.queries.inputs]
        q, positions = present(*operands[:2])
        k, ids = tensors[self.keys.operands[0]], tensors[self.key_rows.operands[1]]
        v = tensors[self.value_rows.operands[2]]
        y, keys, values = (tensors[node] for node in (self.queries, self.key_rows, self.value_rows))
        tokens, heads, width = q.shape
        turn = _turn(lowering, self.queries, q, positions, operands[2])
        inner, (steps,) = joined(v.shape[1:], [v.strides[1:]])
        walked = (*steps, *[0] * (AXES - 1 - len(steps)), v.strides[0])
        defines = {
            "TYPE": q.dtype.name, "KEYS": keys.dtype.name, "VALUES": values.dtype.name,
            "NEW": v.dtype.name, "ITEMS": ITEMS,
        }  # fmt: skip
        turned = (heads + k.shape[1]) * (width - turn.pairs)
        lowering.launch(
            Variant.of("cached_heads", defines),
            groups_of(tokens * (turned + math.prod(v.shape[1:]))), ITEMS,
            q.place, view_bytes(q.at, q.strides), k.place, view_bytes(k.at, k.strides), v.place,
            view_bytes(v.at, walked), turn.place, i64(turn.place.at), ids.place,
            view_bytes(ids.at, ids.strides), y.place, i64(y.at), keys.place, i64(keys.at),
            values.place, i64(values.at), shape_bytes(inner), i32(tokens), i32(heads),
            i32(k.shape[1]), i32(width), i32(turn.pairs), i32(turn.interleaved),
            i32(ids.dtype.name == "i64"), i32(keys.shape[0]),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Turn:
    """How a rotation turns tokens.

    Attributes:
        pairs: how many of a head's are turned.
        interleaved: whether elements of a pair lie beside each other.
        place: where cosine and sine of each token's pairs lie.
    """

    pairs: int
    interleaved: bool
    place: Place


def _turn(
    lowering: Lowering, node: Node, x: Tensor, positions: Tensor, factors: Tensor | None
) -> _Turn:
    """Computed when the first of the nodes that turn alike needs it, for all of them."""
    dtype, tokens, width = get("f64" if x.dtype.name == "f64" else "f32"), x.shape[-3], x.shape[-1]
    pairs = (whole(node, "dims") or width) // 2
    alike = (dtype.name, tokens, pairs, node.params, node.inputs[1:])
    place, known = lowering.keep(alike, dtype.nbytes(2 * tokens * pairs))
    if not known:
        coefficients, rows, magnitude = _rotation(node, pairs)
        table = lowering.constant(_table(coefficients, rows, dtype))
        shared = positions.strides if len(positions.shape) == 2 else (0, *positions.strides)
        lowering.launch(
            Variant.of("turns", {"TYPE": dtype.name, "ITEMS": ITEMS}),
            groups_of(tokens * pairs), ITEMS,
            positions.place, view_bytes(positions.at, shared), *optional(factors, positions),
            table, i64(table.at), i64(table.at + dtype.nbytes(pairs)), place, i64(place.at),
            i32(tokens), i32(pairs), i32(positions.dtype.name == "i64"), i32(factors is not None),
            number(dtype.name, magnitude),
        )  # fmt: skip
    return _Turn(pairs, node.param("layout") == "interleaved", place)


def _table(
    coefficients: npt.NDArray[np.float64], rows: npt.NDArray[np.int32], dtype: DType
) -> bytes:
    kind = "<f8" if dtype.name == "f64" else "<f4"
    return coefficients.astype(kind).tobytes() + rows.tobytes()


def _rotation(
    node: Node, pairs: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32], float]:
    """Angle per position and row of positions of each pair, and the factor on the result.

    All of op `rope`'s scalings are linear in the position, so that they fold into one number.
    """
    layout, base = str(node.param("layout")), real(node, "base")
    scale, magnitude = real(node, "frequency_scale"), real(node, "magnitude")
    sections = counts(node, "sections")
    rows = np.zeros(pairs, np.int32)
    exponents = np.arange(pairs) / pairs
    if sections:
        places = np.arange(pairs) % sum(sections)
        rows = np.array([_section(layout, int(p), sections) for p in places], np.int32)
        if layout == "vision":
            starts = np.array([0, *np.cumsum(sections)[:3]])
            exponents = 2 * (places - starts[rows]) / pairs
    frequencies = base**-exponents
    mixed = np.full(pairs, scale)
    if node.param("extrapolation"):
        kept = _yarn(node, pairs)
        mixed = scale * (1 - kept) + kept
        magnitude *= 1 + 0.1 * math.log(1 / scale)
    return frequencies * mixed, rows, magnitude


def _section(layout: str, place: int, sections: tuple[int, ...]) -> int:
    if layout == "sections_interleaved":
        section = place % 3
        return section if place < 3 * sections[section] else 3
    return int(np.searchsorted(np.cumsum(sections), place, side="right"))


def _yarn(node: Node, pairs: int) -> npt.NDArray[np.float64]:
    """How much of the unscaled angle each pair keeps (arXiv 2309.00071)."""
    context, base = whole(node, "original_context"), real(node, "base")
    turned = 2 * pairs

    def pair_of(turns: float) -> float:
        return turned * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(base))

    low = max(0, math.floor(pair_of(real(node, "beta_fast"))))
    high = min(turned - 1, math.ceil(pair_of(real(node, "beta_slow"))))
    place = (np.arange(pairs) - low) / max(0.001, high - low)
    return np.asarray(real(node, "extrapolation") * (1 - place.clip(0, 1)))
