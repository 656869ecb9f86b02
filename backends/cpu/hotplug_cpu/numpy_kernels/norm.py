"""Normalisation, in float64: a mean far from zero would take all of float32's digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hotplug_cpu.numpy_kernels.table import kernel
from hotplug_cpu.tensor_view import AnyArray, TensorView

__all__: list[str] = []

Wide = npt.NDArray[np.float64]


def _wide(x: TensorView) -> Wide:
    """A copy of the elements, to be computed in place."""
    return x.numbers().astype(np.float64)


def _scale(x: Wide, weight: TensorView | None, bias: TensorView | None, *tail: int) -> AnyArray:
    """X times weight plus bias, each along the axis that comes before `tail` axes of length 1."""
    if weight is not None:
        x *= weight.numbers().reshape(-1, *tail)
    if bias is not None:
        x += bias.numbers().reshape(-1, *tail)
    return x


def _mean_of_squares(x: Wide) -> Any:
    return np.einsum("...i,...i->...", x, x)[..., None] / max(1, x.shape[-1])


def _standardise(x: Wide, eps: float) -> Wide:
    """Mean 0 and variance 1 over the last axis, in place."""
    x -= x.sum(axis=-1, keepdims=True) / max(1, x.shape[-1])
    x /= np.sqrt(_mean_of_squares(x) + eps)
    return x


@kernel("rms_norm")
def _rms_norm(out: TensorView, x: TensorView, weight: TensorView | None, *, eps: float) -> None:
    values = _wide(x)
    values /= np.sqrt(_mean_of_squares(values) + eps)
    out.store(_scale(values, weight, None))


@kernel("layer_norm")
def _layer_norm(
    out: TensorView,
    x: TensorView,
    weight: TensorView | None,
    bias: TensorView | None,
    *,
    eps: float,
) -> None:
    out.store(_scale(_standardise(_wide(x), eps), weight, bias))


@kernel("group_norm")
def _group_norm(
    out: TensorView,
    x: TensorView,
    weight: TensorView | None,
    bias: TensorView | None,
    *,
    groups: int,
    eps: float,
) -> None:
    batch, channels, *rest = x.shape
    length = channels // groups * int(np.prod(rest, dtype=np.int64))
    normal = _standardise(_wide(x).reshape(batch, groups, length), eps).reshape(x.shape)
    out.store(_scale(normal, weight, bias, *(1 for _ in rest)))


@kernel("l2_norm")
def _l2_norm(out: TensorView, x: TensorView, *, eps: float) -> None:
    values = _wide(x)
    values /= np.maximum(np.sqrt(_mean_of_squares(values) * x.shape[-1]), eps)
    out.store(values)
