"""Interpolation: for each axis a few neighbours of every place, weighted."""

from __future__ import annotations

import math

import numpy as np

from hotplug_cpu.numpy_kernels.table import kernel
from hotplug_cpu.tensor_view import AnyArray, TensorView

__all__: list[str] = []


@kernel("interpolate")
def _interpolate(
    out: TensorView,
    x: TensorView,
    *,
    size: tuple[int, ...],
    mode: str,
    align_corners: bool,
    antialias: bool,
) -> None:
    first = len(x.shape) - len(size)
    if mode == "nearest":
        chosen = x.array
        for axis, length in enumerate(size, first):
            n = x.shape[axis]
            chosen = chosen.take(np.arange(length) * n // length, axis=axis)
        np.copyto(out.array, chosen)
        return
    values = x.numbers()
    for axis, length in enumerate(size, first):
        n = values.shape[axis]
        at = _places(n, length, align_corners=align_corners)
        indices, weights = _spread(at, n, length) if antialias else _taps(at, mode)
        values = _weighted(values, axis, indices.clip(0, n - 1), weights)
    out.store(values)


def _places(n: int, length: int, *, align_corners: bool) -> AnyArray:
    """Where each of `length` elements stands on an axis of n."""
    step = np.arange(length)
    if align_corners:
        return step * ((n - 1) / max(1, length - 1))
    return (step + 0.5) * (n / length) - 0.5


def _taps(at: AnyArray, mode: str) -> tuple[AnyArray, AnyArray]:
    """Neighbours of each place, and their weights: (taps, length)."""
    below = np.floor(at)
    f = at - below
    first, count = (0, 2) if mode == "linear" else (-1, 4)
    indices = below.astype(np.int64) + np.arange(first, first + count)[:, None]
    if mode == "linear":
        return indices, np.stack([1 - f, f])
    outer = [((-0.75 * t + 3.75) * t - 6) * t + 3 for t in (1 + f, 2 - f)]
    inner = [(1.25 * t - 2.25) * t * t + 1 for t in (f, 1 - f)]
    return indices, np.stack([outer[0], *inner, outer[1]])


def _spread(at: AnyArray, n: int, length: int) -> tuple[AnyArray, AnyArray]:
    """All elements within reach of each place, weighted by their distance."""
    reach = max(1.0, n / length)
    count = 2 * math.ceil(reach) + 1
    indices = np.floor(at - reach).astype(np.int64) + np.arange(count)[:, None]
    weights = np.maximum(0, 1 - np.abs(indices - at) / reach)
    weights[(indices < 0) | (indices >= n)] = 0
    return indices, weights / weights.sum(axis=0)


def _weighted(values: AnyArray, axis: int, indices: AnyArray, weights: AnyArray) -> AnyArray:
    shape = [1] * values.ndim
    shape[axis] = -1
    factors = weights.astype(values.dtype)
    result = np.zeros(
        (*values.shape[:axis], indices.shape[1], *values.shape[axis + 1 :]), values.dtype
    )
    for index, factor in zip(indices, factors, strict=True):
        result += values.take(index, axis=axis) * factor.reshape(shape)
    return result
