"""Constants."""

from __future__ import annotations

import numpy as np

from hotplug_cpu.numpy_kernels.table import kernel
from hotplug_cpu.tensor_view import AnyArray, TensorView, constant

__all__: list[str] = []


@kernel("fill")
def _fill(out: TensorView, *, value: float, dtype: str, shape: tuple[int, ...]) -> None:
    del dtype, shape  # those of the result
    np.copyto(out.array, constant(value, out.dtype))


@kernel("arange")
def _arange(out: TensorView, *, start: float, stop: float, step: float, dtype: str) -> None:
    del stop, dtype  # those of the result
    whole = isinstance(start, int) and isinstance(step, int)
    index: AnyArray = np.arange(out.shape[0]).astype(np.int64 if whole else np.float64)
    out.store(start + index * step)
