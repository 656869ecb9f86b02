"""Sums, extremes, order and probability along an axis."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from hotplug_cpu.numpy_kernels.table import kernel
from hotplug_cpu.tensor_view import AnyArray, TensorView

__all__ = ["alibi_slopes", "masked_softmax"]


def _wide(x: AnyArray) -> np.dtype[Any]:
    """What to add up in: float64 for floats; an integer's own dtype, which wraps around."""
    return np.dtype(np.float64) if x.dtype.kind == "f" else x.dtype


def _accumulation(function: Callable[..., AnyArray]) -> Callable[..., None]:
    def compute(out: TensorView, x: TensorView, *, axis: int, keepdims: bool) -> None:
        values = x.numbers()
        out.store(function(values, axis=axis, keepdims=keepdims, dtype=_wide(values)))

    return compute


def _extreme(function: Callable[..., AnyArray]) -> Callable[..., None]:
    def compute(out: TensorView, x: TensorView, *, axis: int, keepdims: bool) -> None:
        out.store(function(x.numbers(), axis=axis, keepdims=keepdims))

    return compute


def _position(function: Callable[..., AnyArray]) -> Callable[..., None]:
    def compute(out: TensorView, x: TensorView, *, axis: int) -> None:
        # NumPy takes the first NaN for the largest and for the smallest, as the ops do.
        np.copyto(out.array, function(x.numbers(), axis=axis), casting="unsafe")

    return compute


kernel("sum")(_accumulation(np.sum))
kernel("prod")(_accumulation(np.prod))
kernel("mean")(_accumulation(np.mean))
kernel("max")(_extreme(np.max))
kernel("min")(_extreme(np.min))
kernel("argmax")(_position(np.argmax))
kernel("argmin")(_position(np.argmin))


@kernel("cumsum")
def _cumsum(out: TensorView, x: TensorView, *, axis: int) -> None:
    values = x.numbers()
    out.store(np.cumsum(values, axis=axis, dtype=_wide(values)))


@kernel("argsort")
def _argsort(out: TensorView, x: TensorView, *, descending: bool) -> None:
    np.copyto(out.array, _order(x.numbers(), descending=descending), casting="unsafe")


@kernel("top_k")
def _top_k(out: TensorView, x: TensorView, *, k: int) -> None:
    order = _order(x.numbers(), descending=True)
    np.copyto(out.array, order[..., :k], casting="unsafe")


def _order(values: AnyArray, *, descending: bool) -> AnyArray:
    if descending:
        # Both turn the order round and leave equals equal; -x of the least integer is itself.
        values = np.negative(values) if values.dtype.kind == "f" else np.invert(values)
    return np.argsort(values, axis=-1, kind="stable")


@kernel("count_equal")
def _count_equal(out: TensorView, a: TensorView, b: TensorView) -> None:
    np.copyto(out.array, np.count_nonzero(a.numbers() == b.numbers()))


@kernel("softmax")
def _softmax(
    out: TensorView,
    x: TensorView,
    mask: TensorView | None,
    sinks: TensorView | None,
    *,
    scale: float,
    max_bias: float,
) -> None:
    scores = x.numbers() * scale
    slopes = alibi_slopes(x.shape[-3], max_bias)[:, None, None] if max_bias else None
    column = None if sinks is None else sinks.float32()[:, None, None]
    masked_softmax(scores, None if mask is None else mask.numbers(), slopes, column)
    out.store(scores)


def alibi_slopes(heads: int, max_bias: float) -> AnyArray:
    """The slope of each head by the rule of op `softmax`; (heads,) float32, none of them 0."""
    power = 2 ** int(math.log2(heads)) if heads else 1
    head = np.arange(heads)
    exponents = np.where(head < power, (head + 1) / power, (2 * (head - power) + 1) / (2 * power))
    smallest = np.finfo(np.float32).tiny  # 0 times a mask of -inf would be NaN
    return np.maximum(np.exp2(-max_bias * exponents), smallest).astype(np.float32)


def masked_softmax(
    scores: AnyArray, mask: AnyArray | None, slopes: AnyArray | None, sinks: AnyArray | None
) -> None:
    """Softmax over the last axis, in place; rows that see nothing become zeros.

    Args:
        scores: (..., rows), floats of 32 or 64 bits.
        mask: broadcast to scores; bool (True is visible), or floats to be added.
        slopes: broadcast to scores: factors on the mask.
        sinks: broadcast to (..., 1): one more score, that takes part in the sum only.
    """
    if mask is not None and mask.dtype.kind == "b":
        np.copyto(scores, -np.inf, where=~mask)
    elif mask is not None:
        scores += mask if slopes is None else mask * slopes
    highest = np.max(scores, axis=-1, keepdims=True, initial=-np.inf)
    if sinks is not None:
        highest = np.maximum(highest, sinks)
    highest = np.where(highest == -np.inf, scores.dtype.type(0), highest)
    scores -= highest
    np.exp(scores, out=scores)
    total = np.sum(scores, axis=-1, keepdims=True)
    if sinks is not None:
        total = total + np.exp(sinks - highest)
    scores /= np.where(total == 0, scores.dtype.type(1), total)
