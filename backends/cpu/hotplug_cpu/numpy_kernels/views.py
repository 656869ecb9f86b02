"""Views and plain copies: elements moved as they are stored.

A view computes nothing. These kernels run where its operand's layout takes a copy.
"""

from __future__ import annotations

import numpy as np

from hotplug_cpu.numpy_kernels.table import kernel
from hotplug_cpu.tensor_view import TensorView

__all__: list[str] = []


@kernel("contiguous")
def _contiguous(out: TensorView, x: TensorView) -> None:
    np.copyto(out.array, x.array)


@kernel("reshape")
def _reshape(out: TensorView, x: TensorView, *, shape: tuple[int, ...]) -> None:
    del shape  # may leave a length open; the result's is whole
    np.copyto(out.array, x.array.reshape(out.array.shape))


@kernel("permute")
def _permute(out: TensorView, x: TensorView, *, axes: tuple[int, ...]) -> None:
    np.copyto(out.array, x.array.transpose(axes))


@kernel("transpose")
def _transpose(out: TensorView, x: TensorView, *, axis0: int, axis1: int) -> None:
    np.copyto(out.array, x.array.swapaxes(axis0, axis1))


@kernel("slice")
def _slice(
    out: TensorView,
    x: TensorView,
    *,
    starts: tuple[int, ...],
    stops: tuple[int, ...],
    steps: tuple[int, ...] | None,
) -> None:
    box = [slice(*item) for item in zip(starts, stops, steps or (1,) * len(starts), strict=True)]
    if x.dtype.quantised:
        box[-1] = slice(x.dtype.nbytes(starts[-1]), x.dtype.nbytes(stops[-1]))
    np.copyto(out.array, x.array[tuple(box)])
