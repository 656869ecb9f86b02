"""Values that come from outside the graph, and constants."""

from __future__ import annotations

import math

from hotplug.dtypes import get
from hotplug.ops.checks import require
from hotplug.ops.spec import op
from hotplug.tensor import TensorType

__all__ = ["arange", "fill", "input", "state", "weight"]


def _free(_: object) -> int:
    return 0


def _leaf(name: str, dtype: str, shape: tuple[int, ...]) -> TensorType:
    require(bool(name), "a leaf needs a name")
    return TensorType(get(dtype), shape)


@op("input", flops=_free)
def input(*, name: str, dtype: str, shape: tuple[int, ...]) -> TensorType:
    """A value given anew for every run."""
    return _leaf(name, dtype, shape)


@op("weight", flops=_free)
def weight(*, name: str, dtype: str, shape: tuple[int, ...]) -> TensorType:
    """A value that never changes; often quantised and memory-mapped."""
    return _leaf(name, dtype, shape)


@op("state", flops=_free)
def state(*, name: str, dtype: str, shape: tuple[int, ...]) -> TensorType:
    """A value that stays on its device between runs, such as a KV cache; zeros at first."""
    return _leaf(name, dtype, shape)


@op("fill")
def fill(*, value: float, dtype: str, shape: tuple[int, ...]) -> TensorType:
    """A tensor of one repeated value, converted as by op `cast`."""
    result = TensorType(get(dtype), shape)
    require(not result.dtype.quantised, f"cannot fill a tensor of {dtype}")
    return result


@op("arange")
def arange(*, start: float, stop: float, step: float = 1.0, dtype: str = "f32") -> TensorType:
    """Values from `start` (included) to `stop` (excluded) by `step`.

    Value i is start + i * step, converted as by op `cast`; shape (ceil((stop - start) / step),).
    """
    require(step != 0, "step must not be 0")
    count = max(0, math.ceil((stop - start) / step))
    result = TensorType(get(dtype), (count,))
    require(not result.dtype.quantised, f"cannot make a range of {dtype}")
    return result
