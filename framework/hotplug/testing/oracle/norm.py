"""Reference of normalisation."""

from __future__ import annotations

import numpy as np

from hotplug.testing.oracle.table import Floats, reference

__all__: list[str] = []


def _affine(x: Floats, weight: Floats | None, bias: Floats | None) -> Floats:
    if weight is not None:
        x = x * weight
    return x if bias is None else x + bias


def _standardise(x: Floats, eps: float) -> Floats:
    """Mean 0 and variance 1 over the last axis; the variance is that of the population."""
    centred: Floats = x - x.mean(axis=-1, keepdims=True)
    variance: Floats = np.mean(np.square(centred), axis=-1, keepdims=True)
    deviation: Floats = np.sqrt(variance + eps)
    return centred / deviation


@reference("rms_norm")
def _rms_norm(x: Floats, weight: Floats | None, *, eps: float) -> Floats:
    return _affine(x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + eps), weight, None)


@reference("layer_norm")
def _layer_norm(x: Floats, weight: Floats | None, bias: Floats | None, *, eps: float) -> Floats:
    return _affine(_standardise(x, eps), weight, bias)


@reference("group_norm")
def _group_norm(
    x: Floats, weight: Floats | None, bias: Floats | None, *, groups: int, eps: float
) -> Floats:
    grouped = x.reshape(x.shape[0], groups, -1)
    normal = _standardise(grouped, eps).reshape(x.shape)
    per_channel = (x.shape[1],) + (1,) * (x.ndim - 2)
    return _affine(
        normal,
        None if weight is None else weight.reshape(per_channel),
        None if bias is None else bias.reshape(per_channel),
    )


@reference("l2_norm")
def _l2_norm(x: Floats, *, eps: float) -> Floats:
    length: Floats = np.sqrt(np.sum(np.square(x), axis=-1, keepdims=True))
    return x / np.maximum(length, eps)
