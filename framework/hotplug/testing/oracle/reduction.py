"""Reference of reductions, order and softmax."""

from __future__ import annotations

import math

import numpy as np

from hotplug.testing.oracle.table import Array, Floats, reference

__all__ = ["alibi_slopes", "masked_softmax"]


@reference("sum")
def _sum(x: Array, *, axis: int, keepdims: bool) -> Array:
    return np.asarray(np.sum(x, axis=axis, keepdims=keepdims))


@reference("prod")
def _prod(x: Array, *, axis: int, keepdims: bool) -> Array:
    return np.asarray(np.prod(x, axis=axis, keepdims=keepdims))


@reference("mean")
def _mean(x: Array, *, axis: int, keepdims: bool) -> Array:
    return np.asarray(np.mean(x, axis=axis, keepdims=keepdims))


@reference("max")
def _max(x: Array, *, axis: int, keepdims: bool) -> Array:
    return np.asarray(np.max(x, axis=axis, keepdims=keepdims))


@reference("min")
def _min(x: Array, *, axis: int, keepdims: bool) -> Array:
    return np.asarray(np.min(x, axis=axis, keepdims=keepdims))


@reference("argmax")
def _argmax(x: Array, *, axis: int) -> Array:
    return np.asarray(np.argmax(x, axis=axis))


@reference("argmin")
def _argmin(x: Array, *, axis: int) -> Array:
    return np.asarray(np.argmin(x, axis=axis))


@reference("argsort")
def _argsort(x: Array, *, descending: bool) -> Array:
    if not descending:
        return np.argsort(x, axis=-1, kind="stable")
    # Sorting the reversed row and reversing the answer leaves equal values in their first order.
    backwards: Array = np.argsort(x[..., ::-1], axis=-1, kind="stable")[..., ::-1]
    return np.asarray(x.shape[-1] - 1 - backwards)


@reference("top_k")
def _top_k(x: Array, *, k: int) -> Array:
    return _argsort(x, descending=True)[..., :k]


@reference("cumsum")
def _cumsum(x: Array, *, axis: int) -> Array:
    return np.cumsum(x, axis=axis)


@reference("count_equal")
def _count_equal(a: Array, b: Array) -> Array:
    return np.asarray(np.count_nonzero(a == b))


@reference("softmax")
def _softmax(
    x: Floats, mask: Floats | None, sinks: Floats | None, *, scale: float, max_bias: float
) -> Floats:
    slopes = alibi_slopes(x.shape[-3], max_bias)[:, None, None] if max_bias else 1.0
    column = None if sinks is None else sinks[:, None, None]
    return masked_softmax(scale * x, mask, slopes, column)


def alibi_slopes(heads: int, max_bias: float) -> Floats:
    """The slope of each head, by the rule of op `softmax`; shape (heads,)."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = np.empty(heads)
    for head in range(heads):
        if head < power:
            slopes[head] = 2 ** (-max_bias * (head + 1) / power)
        else:
            slopes[head] = 2 ** (-max_bias / 2 * (2 * (head - power) + 1) / power)
    return slopes


def masked_softmax(
    scores: Floats, mask: Floats | None, slopes: Floats | float, sinks: Floats | None
) -> Floats:
    """Softmax over the last axis; rows that see nothing give zeros.

    Args:
        scores: (..., rows).
        mask: bool (True is visible), or floats to be multiplied by `slopes` and added.
        slopes: broadcast to the mask.
        sinks: broadcast to (..., 1): one more score, left out of the result.
    """
    if mask is not None and mask.dtype.kind == "b":
        scores = np.where(mask, scores, -np.inf)
    elif mask is not None:
        # A slope of 0 times a mask of -inf would be NaN, and hidden stays hidden.
        scores = scores + np.where(np.isneginf(mask), -np.inf, slopes * mask)
    highest = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    if sinks is not None:
        highest = np.maximum(highest, sinks)
    highest = np.where(np.isneginf(highest), 0, highest)
    weights = np.exp(scores - highest)
    total = weights.sum(axis=-1, keepdims=True)
    if sinks is not None:
        total = total + np.exp(sinks - highest)
    return weights / np.where(total == 0, 1, total)
