"""Values for the leaves of conformance cases: recipes, each the same on every run and machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from hotplug import quants
from hotplug.dtypes import DType, Kind
from hotplug.quants import codebook
from hotplug.tensor import HostTensor, TensorType
from hotplug.testing.oracle import Array, to_bytes

__all__ = ["Recipe", "default", "given", "integers", "normal", "tensor", "uniform", "whole_range"]

Recipe: TypeAlias = Callable[[np.random.Generator, TensorType], Array]
"""Makes values of a type's shape; they are rounded to its dtype afterwards."""


def normal(scale: float = 1.0, offset: float = 0.0) -> Recipe:
    """Normally distributed numbers."""
    return lambda rng, kind: offset + scale * rng.standard_normal(kind.shape)


def uniform(low: float, high: float) -> Recipe:
    """Numbers spread evenly."""
    return lambda rng, kind: rng.uniform(low, high, kind.shape)


def integers(low: int, high: int) -> Recipe:
    """Whole numbers from `low` to `high`, both included."""
    return lambda rng, kind: rng.integers(low, high, kind.shape, endpoint=True)


def given(*numbers: float) -> Recipe:
    """These numbers in order, over and over."""
    return lambda _, kind: np.resize(np.array(numbers), kind.shape)


def whole_range(rng: np.random.Generator, kind: TensorType) -> Array:
    """Integers of the whole range of their dtype, its ends among them."""
    bounds = np.iinfo(np.dtype(kind.dtype.numpy))
    values = rng.integers(bounds.min, bounds.max, kind.shape, endpoint=True)
    flat = values.reshape(-1)
    flat[: min(2, flat.size)] = (bounds.min, bounds.max)[: flat.size]
    return values


def default(rng: np.random.Generator, kind: TensorType) -> Array:
    """What suits a dtype: standard normal floats, integers of one digit, either truth."""
    if kind.dtype.kind is Kind.BOOL:
        return rng.integers(0, 2, kind.shape).astype(bool)
    if kind.dtype.kind is Kind.INT:
        return rng.integers(-9, 9, kind.shape, endpoint=True)
    return np.asarray(rng.standard_normal(kind.shape))


def tensor(rng: np.random.Generator, kind: TensorType, recipe: Recipe | None = None) -> HostTensor:
    """The bytes of a tensor made by a recipe.

    A quantised dtype that hotplug only reads gets random blocks, whose values spread as widely as
    the recipe's.
    """
    if not quants.can_encode(kind.dtype):
        spread = float(np.std((recipe or default)(rng, kind)))
        return HostTensor(kind, _random_blocks(rng, kind, spread))
    return HostTensor(kind, to_bytes((recipe or default)(rng, kind), kind.dtype))


def _random_blocks(rng: np.random.Generator, kind: TensorType, wanted: float) -> Array:
    layout = codebook.CODECS[kind.dtype.name].layout
    records = rng.integers(0, 256, kind.nbytes, np.uint8).view(layout)
    scales = rng.uniform(0.5, 1.5, records.shape) / 1024
    _set_scales(records, scales)
    _set_scales(records, scales * (wanted / _spread(records, kind.dtype)))
    return records.view(np.uint8)


def _set_scales(records: Array, scales: Array) -> None:
    """Set the scales of blocks; iq1_m has its own in parts."""
    if records.dtype == codebook.IQ1_M:
        codebook.set_iq1_m_scale(records, scales.astype(np.float16))
    else:
        records["scale"] = scales


def _spread(records: Array, dtype: DType) -> float:
    values = quants.decode(records.view(np.uint8), dtype, (records.size * dtype.block,))
    return float(values.std()) if values.size else 1.0
