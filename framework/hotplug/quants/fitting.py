"""Scales that leave little error when groups of numbers are rounded to few whole ones.

The searches are those of ggml's K-quant encoders (`make_qx_quants` and `make_qkx2_quants` in
`ggml-quants.c`): some scales near the obvious one are tried, each rounds the group to whole
numbers, and least squares tell which scale fits these numbers best. Sums are taken in another
order than there, so that a scale can differ in its last bit from one that ggml finds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hotplug.quants.blocks import Floats, extreme_values, reciprocal

__all__ = ["fit_affine", "fit_signed", "round_to_steps"]

_TRIALS = np.arange(-9, 10, dtype=np.float32) / np.float32(10)


def round_to_steps(values: Floats, step: Floats, low: int, high: int) -> Floats:
    """Values as whole numbers of steps from `low` to `high`; 0 where the step is 0."""
    quotients = values / np.where(step == 0, np.float32(np.inf), step)
    rounded: Floats = np.clip(np.rint(quotients), low, high)
    return rounded


def fit_signed(groups: Floats, limit: int) -> Floats:
    """Scale s of each group [m, size] so that s q is near it, q whole in [-limit, limit): [m, 1].

    Errors are weighted by the squares of the numbers.
    """
    groups, exponent = _without_exponent(groups)
    extreme = extreme_values(groups)
    weighted = groups * groups
    scale, gain = np.zeros_like(extreme), np.zeros_like(extreme)
    for trial in sorted(_TRIALS, key=abs):
        inverse = -(limit + trial) * reciprocal(extreme)
        quants = np.clip(np.rint(groups * inverse), -limit, limit - 1)
        product = (weighted * groups * quants).sum(axis=-1, keepdims=True)
        norm = (weighted * quants * quants).sum(axis=-1, keepdims=True)
        better = product * product > gain * norm
        fitted = product * reciprocal(norm)
        scale = np.where(better, fitted, scale)
        gain = np.where(better, fitted * product, gain)
    return np.ldexp(scale, exponent)


def _without_exponent(groups: Floats) -> tuple[Floats, npt.NDArray[np.int32]]:
    """Groups whose largest magnitude lies in [1/2, 1), so that squares of them do not overflow."""
    _, exponent = np.frexp(np.abs(groups).max(axis=-1, keepdims=True))
    return np.ldexp(groups, -exponent), exponent


def fit_affine(
    groups: Floats, levels: int, trials: Sequence[float], *, base: bool
) -> tuple[Floats, Floats]:
    """Scale s and minimum m of each group [m, size] so that s q - m is near it: [m, 1] each.

    q is whole in 0..levels, and neither s nor m is negative.

    Args:
        groups: what is to be rounded.
        levels: the largest q.
        trials: the range of a group is tried as so many more levels than there are.
        base: whether squared errors have the magnitude plus the group's root mean square as their
            weight, or the magnitude alone.
    """
    groups, exponent = _without_exponent(groups)
    weights = np.abs(groups)
    if base:
        weights += np.sqrt(np.mean(groups * groups, axis=-1, keepdims=True))
    offset = np.minimum(groups.min(axis=-1, keepdims=True), 0)
    high = groups.max(axis=-1, keepdims=True)
    total = weights.sum(axis=-1, keepdims=True)
    first = (weights * groups).sum(axis=-1, keepdims=True)
    scale = (high - offset) / np.float32(levels)
    quants = round_to_steps(groups - offset, scale, 0, levels)
    error = _squared_error(groups, weights, quants, scale, offset)
    for trial in trials:
        inverse = np.float32(trial + levels) * reciprocal(high - offset)
        quants = np.clip(np.rint((groups - offset) * inverse), 0, levels)
        new_scale, new_offset = _least_squares(groups, weights, quants, total, first)
        new_error = _squared_error(groups, weights, quants, new_scale, new_offset)
        better = new_error < error
        scale = np.where(better, new_scale, scale)
        offset = np.where(better, new_offset, offset)
        error = np.where(better, new_error, error)
    return np.ldexp(scale, exponent), np.ldexp(np.float32(0) - offset, exponent)


def _least_squares(
    groups: Floats, weights: Floats, quants: Floats, total: Floats, first: Floats
) -> tuple[Floats, Floats]:
    """Scale and offset, which is not above 0, of the line through (quant, number)."""
    weighted = weights * quants
    linear = weighted.sum(axis=-1, keepdims=True)
    square = (weighted * quants).sum(axis=-1, keepdims=True)
    product = (weighted * groups).sum(axis=-1, keepdims=True)
    inverse = reciprocal(total * square - linear * linear)
    scale = (total * product - first * linear) * inverse
    offset = (square * first - linear * product) * inverse
    through_zero = product * reciprocal(square)
    return np.where(offset > 0, through_zero, scale), np.minimum(offset, 0)


def _squared_error(
    groups: Floats, weights: Floats, quants: Floats, scale: Floats, offset: Floats
) -> Floats:
    difference = scale * quants + offset - groups
    error: Floats = (weights * difference * difference).sum(axis=-1, keepdims=True)
    return error
