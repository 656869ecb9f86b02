"""Tensors put together, repeated, moved and masked: elements go as they are stored."""

from __future__ import annotations

import numpy as np

from hotplug_cpu.numpy_kernels.table import kernel
from hotplug_cpu.tensor_view import TensorView, constant

__all__: list[str] = []


@kernel("concat")
def _concat(out: TensorView, *tensors: TensorView, axis: int) -> None:
    np.concatenate([tensor.array for tensor in tensors], axis=axis, out=out.array)


@kernel("repeat")
def _repeat(out: TensorView, x: TensorView, *, repeats: tuple[int, ...]) -> None:
    np.copyto(out.array, np.tile(x.array, repeats))


@kernel("pad")
def _pad(
    out: TensorView,
    x: TensorView,
    *,
    before: tuple[int, ...],
    after: tuple[int, ...],
    mode: str,
    value: float,
) -> None:
    if mode == "circular":
        np.copyto(out.array, np.pad(x.array, tuple(zip(before, after, strict=True)), mode="wrap"))
        return
    np.copyto(out.array, constant(value, out.dtype))
    out.array[tuple(slice(b, b + n) for b, n in zip(before, x.shape, strict=True))] = x.array


@kernel("pad_reflect")
def _pad_reflect(out: TensorView, x: TensorView, *, before: int, after: int) -> None:
    last = x.shape[-1] - 1
    place = np.arange(-before, x.shape[-1] + after)
    np.copyto(out.array, x.array[..., last - np.abs(last - np.abs(place))])


@kernel("roll")
def _roll(out: TensorView, x: TensorView, *, shifts: tuple[int, ...]) -> None:
    np.copyto(out.array, np.roll(x.array, shifts, axis=tuple(range(len(shifts)))))


@kernel("triangular")
def _triangular(out: TensorView, x: TensorView, *, part: str, diagonal: int, value: float) -> None:
    rows, columns = x.shape[-2:]
    above = np.arange(columns) - np.arange(rows)[:, None]
    kept = above <= diagonal if part == "lower" else above >= diagonal
    np.copyto(out.array, np.where(kept, x.array, constant(value, out.dtype)))


@kernel("diag")
def _diag(out: TensorView, x: TensorView) -> None:
    index = np.arange(x.shape[-1])
    np.copyto(out.array, constant(0, out.dtype))
    out.array[..., index, index] = x.array
