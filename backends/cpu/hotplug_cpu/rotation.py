"""RoPE: one table of factors for all heads and layers, then a kernel that applies it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from hotplug.node import Node
from hotplug_cpu.program import Address, Argument, Store

if TYPE_CHECKING:
    import numpy.typing as npt

    from hotplug_cpu.lowering import Lowering

__all__ = ["emit", "fits"]

_LANES = 8


def fits(node: Node) -> bool:
    """Whether the kernels compute a rope node, whatever its operands' layouts."""
    x, positions, *factors = node.operands
    half = node.param("layout") == "half"
    return (
        node.param("layout") in {"interleaved", "half"}
        and x.dtype.name == "f32"
        and len(x.shape) == 3
        and x.type.size > 0
        and x.shape[-1] % _LANES == 0
        and _turned(node) % (2 * _LANES if half else _LANES) == 0
        and positions.dtype.name in {"i32", "i64"}
        and all(item.dtype.name == "f32" for item in factors)
    )


def emit(low: Lowering, node: Node, scatter: Node | None, index: tuple[Argument, Argument]) -> bool:
    """Turn heads, into a place of their own or into the rows of a cache.

    Args:
        low: where steps go.
        node: the rope node.
        scatter: the update that takes the result, if one does.
        index: for that, the address of the rows' numbers, and whether they have 64 bits.
    """
    x, *others = node.operands
    layout = low.places[x].layout
    if layout.strides[2] != 1 or not low.is_contiguous(*others):
        return False
    tokens, heads, length = x.shape
    table = _table(low, node)
    place = low.new(node) if scatter is None else low.updated(scatter)
    assert place is not None
    target = node if scatter is None else scatter
    rows = target.shape[0]
    narrow = target.dtype.name == "f16"
    size = target.dtype.block_bytes
    half = node.param("layout") == "half"
    words: tuple[Argument, ...] = (low.address(x), 4 * layout.strides[0], 4 * layout.strides[1])
    words += (tokens, heads, length, Address(table), _turned(node), int(half))
    words += (low.address(target), size * heads * length, size * length, *index, rows, int(narrow))
    low.emit("rope", words, place.store, (node,) if scatter is None else (node, scatter))
    return True


def _turned(node: Node) -> int:
    return int(node.param("dims") or node.shape[-1])  # type: ignore[arg-type]


def _table(low: Lowering, node: Node) -> Store:
    """The factors for a rope node's positions; those with equal parameters share them."""
    positions, *factors = node.operands[1:]
    key = ("rope", positions, tuple(factors), _turned(node), node.params)
    if key not in low.memo:
        frequencies, magnitude = _frequencies(node)
        constant = Store(frequencies.nbytes, constant=frequencies)
        pairs = len(frequencies)
        store = low.memo[key] = Store(16 * pairs * positions.shape[0])
        words: tuple[Argument, ...] = (low.address(positions), int(positions.dtype.name == "i64"))
        words += (positions.shape[0], Address(constant))
        words += (low.address(factors[0]) if factors else 0, pairs, _bits(magnitude))
        words += (int(node.param("layout") == "half"), Address(store))
        low.emit("rope_table", words, store, (node,))
    return low.memo[key]


def _bits(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


def _frequencies(node: Node) -> tuple[npt.NDArray[np.float64], float]:
    """Radians for each position, by pair, and the factor on the result. See op `rope`."""
    get = dict(node.params).__getitem__
    turned, base, scale = _turned(node), float(get("base")), float(get("frequency_scale"))  # type: ignore[arg-type]
    extrapolation, magnitude = float(get("extrapolation")), float(get("magnitude"))  # type: ignore[arg-type]
    pairs = turned // 2
    plain = base ** (-np.arange(pairs) / pairs)
    if not extrapolation:
        return scale * plain, magnitude
    context = float(get("original_context"))  # type: ignore[arg-type]

    def pair_of(turns: float) -> float:
        return turned * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(base))

    low = max(0, math.floor(pair_of(float(get("beta_fast")))))  # type: ignore[arg-type]
    high = min(turned - 1, math.ceil(pair_of(float(get("beta_slow")))))  # type: ignore[arg-type]
    ramp = 1 - np.clip((np.arange(pairs) - low) / max(0.001, high - low), 0, 1)
    kept = extrapolation * ramp
    return plain * (scale * (1 - kept) + kept), magnitude * (1 + 0.1 * math.log(1 / scale))
