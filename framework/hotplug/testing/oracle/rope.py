"""Reference of rotary position embedding.

The layouts with sections are M-RoPE (arXiv 2409.12191) as ggml defines it in `ggml-cpu/ops.cpp`.
"""

from __future__ import annotations

import math

import numpy as np

from hotplug.testing.oracle.table import Array, Floats, reference

__all__: list[str] = []


@reference("rope")
def _rope(
    x: Floats,
    positions: Floats,
    factors: Floats | None,
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
) -> Floats:
    turned = dims or x.shape[-1]
    pairs = turned // 2
    angles = _angles(positions, layout, pairs, base, sections)
    if factors is not None:
        angles = angles / factors
    scaled = frequency_scale * angles
    if extrapolation:
        low, high = _ramp_ends(turned, original_context, base, beta_fast, beta_slow)
        kept = extrapolation * _ramp(pairs, low, high)
        scaled = scaled * (1 - kept) + angles * kept
        magnitude = magnitude * (1 + 0.1 * math.log(1 / frequency_scale))
    cos = magnitude * np.cos(scaled)[:, None, :]
    sin = magnitude * np.sin(scaled)[:, None, :]
    first, second = _pair_indices(layout, pairs)
    result = x.copy()
    result[..., first] = x[..., first] * cos - x[..., second] * sin
    result[..., second] = x[..., first] * sin + x[..., second] * cos
    return result


def _pair_indices(layout: str, pairs: int) -> tuple[Array, Array]:
    """Which two elements of a head each pair turns."""
    index = np.arange(pairs)
    if layout == "interleaved":
        return 2 * index, 2 * index + 1
    return index, index + pairs


def _angles(
    positions: Floats, layout: str, pairs: int, base: float, sections: tuple[int, ...]
) -> Floats:
    """Angles before any scaling; shape (tokens, pairs)."""
    if layout in {"interleaved", "half"}:
        frequency = base ** (-np.arange(pairs) / pairs)
        return positions[:, None] * frequency
    angles = np.empty((positions.shape[1], pairs))
    starts = (0, *np.cumsum(sections)[:3])
    for pair in range(pairs):
        place = pair % sum(sections)
        section = _section(layout, place, sections)
        exponent = pair / pairs
        if layout == "vision":  # each section counts its own frequencies, and twice as fast
            exponent = 2 * (place - starts[section]) / pairs
        angles[:, pair] = positions[section] * base**-exponent
    return angles


def _section(layout: str, place: int, sections: tuple[int, ...]) -> int:
    """Which row of positions the pair at `place` takes."""
    if layout == "sections_interleaved":
        # Turn about, as long as a section has pairs left; the fourth takes what remains.
        section = place % 3
        return section if place < 3 * sections[section] else 3
    return int(np.searchsorted(np.cumsum(sections), place, side="right"))


def _ramp_ends(
    turned: int, context: int, base: float, beta_fast: float, beta_slow: float
) -> tuple[float, float]:
    """Pairs between which YaRN goes from unscaled to scaled (ggml's rounding)."""

    def pair_of(turns: float) -> float:
        return turned * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(base))

    low = max(0, math.floor(pair_of(beta_fast)))
    high = min(turned - 1, math.ceil(pair_of(beta_slow)))
    return low, high


def _ramp(pairs: int, low: float, high: float) -> Floats:
    """How much of the unscaled angle each pair keeps: 1 up to `low`, 0 from `high` on."""
    place = (np.arange(pairs, dtype=np.float64) - low) / max(0.001, high - low)
    return 1 - place.clip(0, 1)
