"""Pieces of attention that its kernels share: which rows a query sees, and a running softmax."""

from __future__ import annotations

from typing import Any

from numba import float32

from hotplug_cpu.jit import reductions, simd
from hotplug_cpu.jit.forms import LANES
from hotplug_cpu.jit.vectors import (
    F32,
    address,
    at_offset,
    broadcast,
    f32,
    instruction,
    load,
    store,
    vector,
)
from hotplug_cpu.kernels.panels import KEYS

__all__ = ["NOTHING", "ZERO", "exp_f32", "scale_row", "softmax_step", "visible"]

_inline = simd.inline
NOTHING = float32(float("-inf"))
ZERO = float32(0.0)
_ONE = float32(1.0)
_TWO = float32(2.0)


@_inline
def exp_f32(value: float) -> Any:
    """e^x of one number."""
    return reductions.max_of(simd.exp(simd.splat_f32(value)))


@_inline
def visible(view: tuple[int, ...], token: int) -> tuple[int, int]:
    """First row of the cache that a token sees, and the one after the last; equal for none.

    Args:
        view: (positions, tokens, rows, causal, window), see `attention`.
        token: number of the token.
    """
    positions, tokens, rows, causal, window = view
    position = rows - tokens + token if causal != 0 else 0
    if positions != 0:
        position = int(simd.load_i32(positions + 4 * token))
    if position < 0:
        return 0, 0
    high = min(position + 1, rows) if causal != 0 else rows
    low = max(0, position - window + 1) if window > 0 else 0
    return min(low, high), high


@_inline
def scale_row(at: int, width: int, factor: float) -> None:
    """Multiply `width` floats, a multiple of 8."""
    by = simd.splat_f32(factor)
    for column in range(0, 4 * width, 32):
        simd.store_f32x8(at + column, simd.load_f32x8(at + column) * by)


@_inline
def _cap(scores: int, softcap: float) -> None:
    """Score becomes softcap * tanh(score / softcap)."""
    one, two, limit = simd.splat_f32(_ONE), simd.splat_f32(_TWO), simd.splat_f32(softcap)
    twice = simd.splat_f32(_TWO / softcap)
    for at in range(0, 4 * KEYS, 32):
        power = simd.exp(simd.load_f32x8(scores + at) * twice)
        simd.store_f32x8(scores + at, limit * (one - two / (power + one)))


@_inline
def _hide(scores: int, low: int, high: int) -> None:
    for key in range(min(low, KEYS)):
        simd.store_f32(scores + 4 * key, NOTHING)
    for key in range(max(high, 0), KEYS):
        simd.store_f32(scores + 4 * key, NOTHING)


def _vectors(builder: Any, at: Any) -> list[tuple[Any, Any]]:
    """Address and value of each vector of KEYS floats."""
    places = [at_offset(builder, at, 4 * first) for first in range(0, KEYS, LANES)]
    return [(place, load(builder, place, vector(F32, LANES))) for place in places]


@instruction(f32, address)
def _largest_of(builder: Any, scores: Any) -> Any:
    values = [value for _, value in _vectors(builder, scores)]
    while len(values) > 1:
        pairs = zip(values[::2], values[1::2], strict=True)
        values = [reductions.maximum(builder, a, b) for a, b in pairs]
    return reductions.max_elements(builder, values[0])


@instruction(f32, address, f32)
def _weigh(builder: Any, scores: Any, largest: Any) -> Any:
    """Scores replaced by their weights; returns the sum of these. No score is larger than that."""
    shift = broadcast(builder, largest, LANES)
    weights = []
    for place, value in _vectors(builder, scores):
        weights.append(simd.exp_of(builder, builder.fsub(value, shift), positive=False))
        store(builder, place, weights[-1])
    while len(weights) > 1:
        pairs = zip(weights[::2], weights[1::2], strict=True)
        weights = [builder.fadd(a, b) for a, b in pairs]
    return reductions.sum_elements(builder, weights[0])


@_inline
def softmax_step(scores: int, low: int, high: int, softcap: float, state: tuple[int, int]) -> Any:
    """Turn KEYS scores into weights and take them into a running softmax.

    Args:
        scores: f32[KEYS]; replaced by e^(score - largest score so far).
        low: keys before it count as hidden.
        high: keys from it on count as hidden.
        softcap: 0 for none.
        state: addresses of the largest score and of the sum of the weights so far.

    Returns:
        The factor that makes earlier weights fit.
    """
    if softcap > ZERO:
        _cap(scores, softcap)
    if low > 0 or high < KEYS:
        _hide(scores, low, high)
    largest_at, total_at = state
    before = simd.load_f32(largest_at)
    largest = max(before, _largest_of(scores))
    total = _weigh(scores, largest if largest > NOTHING else ZERO)
    factor = _ONE
    if largest > before:
        factor = exp_f32(before - largest)
        simd.store_f32(largest_at, largest)
    simd.store_f32(total_at, simd.load_f32(total_at) * factor + total)
    return factor
