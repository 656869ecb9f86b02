"""Rotary position embedding. Angles are made in float64: at position 100000 float32 has lost them.

The names of parameters and layouts are those of `hotplug.ops.rope`, which defines them.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from hotplug_cpu.numpy_kernels.table import kernel
from hotplug_cpu.tensor_view import AnyArray, TensorView

__all__: list[str] = []

Wide = npt.NDArray[np.float64]


@kernel("rope")
def _rope(
    out: TensorView,
    x: TensorView,
    positions: TensorView,
    factors: TensorView | None,
    *,
    layout: str,
    dims: int,
    base: float,
    frequency_scale: float,
    original_context: int,
    extrapolation: float,
    magnitude: float,
    beta_fast: float,
    beta_slow: float,
    sections: tuple[int, ...],
) -> None:
    turned = dims or x.shape[-1]
    angles = _angles(positions.array.astype(np.float64), turned // 2, layout, base, sections)
    if factors is not None:
        angles = angles / factors.float32()
    scaled = frequency_scale * angles
    if extrapolation:
        ends = _ramp_ends(turned, base, original_context, beta_fast, beta_slow)
        kept = extrapolation * _ramp(turned // 2, *ends)
        scaled = scaled + kept * (angles - scaled)
        magnitude *= 1 + 0.1 * math.log(1 / frequency_scale)
    _turn(out, x, scaled, magnitude, turned, interleaved=layout == "interleaved")


def _angles(
    positions: Wide, pairs: int, layout: str, base: float, sections: tuple[int, ...]
) -> Wide:
    """Position times frequency; (tokens, pairs)."""
    pair = np.arange(pairs)
    if not sections:
        return np.multiply.outer(positions, base ** (-pair / pairs))
    place = pair % sum(sections)
    edges = np.cumsum(sections)
    section = np.searchsorted(edges, place, side="right")
    exponent = pair / pairs
    if layout == "vision":
        exponent = 2 * (place - (edges - sections)[section]) / pairs
    elif layout == "sections_interleaved":
        third = place % 3
        section = np.where(place < 3 * np.asarray(sections)[third], third, 3)
    return positions[section].T * base**-exponent


def _ramp_ends(
    turned: int, base: float, context: int, beta_fast: float, beta_slow: float
) -> tuple[int, int]:
    """The pairs between which YaRN passes from kept frequencies to scaled ones."""

    def pair_turning(turns: float) -> float:
        return turned * math.log(context / (2 * math.pi * turns)) / (2 * math.log(base))

    low, high = math.floor(pair_turning(beta_fast)), math.ceil(pair_turning(beta_slow))
    return max(0, low), min(turned - 1, high)


def _ramp(pairs: int, low: int, high: int) -> Wide:
    """How much of its own frequency each pair keeps, from 1 down to 0."""
    return 1 - np.clip((np.arange(pairs) - low) / max(0.001, high - low), 0, 1)


def _turn(
    out: TensorView,
    x: TensorView,
    angles: Wide,
    magnitude: float,
    turned: int,
    *,
    interleaved: bool,
) -> None:
    values = x.numbers()
    kind = values.dtype
    cos: AnyArray = (magnitude * np.cos(angles)).astype(kind)[:, None, :]
    sin: AnyArray = (magnitude * np.sin(angles)).astype(kind)[:, None, :]
    half = turned // 2
    first = slice(0, turned, 2) if interleaved else slice(half)
    second = slice(1, turned, 2) if interleaved else slice(half, turned)
    a, b = values[..., first], values[..., second]
    result = np.empty(values.shape, kind)
    result[..., first] = a * cos - b * sin
    result[..., second] = a * sin + b * cos
    result[..., turned:] = values[..., turned:]
    out.store(result)
