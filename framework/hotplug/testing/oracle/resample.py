"""Reference of interpolation: each axis times a matrix of weights."""

from __future__ import annotations

import math

import numpy as np

from hotplug.testing.oracle.table import Floats, reference

__all__: list[str] = []


@reference("interpolate")
def _interpolate(
    x: Floats, *, size: tuple[int, ...], mode: str, align_corners: bool, antialias: bool
) -> Floats:
    for axis, length in zip(range(x.ndim - len(size), x.ndim), size, strict=True):
        n = x.shape[axis]
        if mode == "nearest":
            x = np.take(x, [i * n // length for i in range(length)], axis)
            continue
        weights = np.zeros((length, n))
        for i in range(length):
            u = _place(i, n, length, align_corners)
            for j, weight in _spread(u, n, length) if antialias else _taps(u, mode):
                weights[i, min(max(j, 0), n - 1)] += weight
        x = np.moveaxis(np.moveaxis(x, axis, -1) @ weights.T, -1, axis)
    return x


def _place(i: int, n: int, length: int, align_corners: bool) -> float:
    if align_corners:
        return i * (n - 1) / (length - 1) if length > 1 else 0.0
    return (i + 0.5) * n / length - 0.5


def _taps(u: float, mode: str) -> list[tuple[int, float]]:
    k = math.floor(u)
    f = u - k
    if mode == "linear":
        return [(k, 1 - f), (k + 1, f)]
    distances = zip((k - 1, k, k + 1, k + 2), (1 + f, f, 1 - f, 2 - f), strict=True)
    return [(j, _keys(t)) for j, t in distances]


def _keys(t: float) -> float:
    if t <= 1:
        return 1.25 * t**3 - 2.25 * t**2 + 1
    return -0.75 * t**3 + 3.75 * t**2 - 6 * t + 3


def _spread(u: float, n: int, length: int) -> list[tuple[int, float]]:
    s = max(1, n / length)
    weights = [max(0.0, 1 - abs(j - u) / s) for j in range(n)]
    return [(j, weight / sum(weights)) for j, weight in enumerate(weights)]
