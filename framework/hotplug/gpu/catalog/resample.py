"""Interpolation: the neighbours of each place and their weights are tables, made here."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hotplug.dtypes import get
from hotplug.gpu.catalog.elementwise import nearest
from hotplug.gpu.catalog.table import (
    ITEMS,
    Lowering,
    counts,
    groups_of,
    i32,
    i64,
    plain_type,
    present,
    row,
)
from hotplug.gpu.sources import Variant
from hotplug.gpu.tensors import Place, Tensor, contiguous, shape_bytes, view_bytes
from hotplug.node import Node

__all__: list[str] = []

_Numbers = npt.NDArray[np.float64]


@row("interpolate", check=plain_type)
def _interpolate(
    lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor
) -> None:
    x = present(operands[0])[0]
    if node.param("mode") == "nearest":
        nearest(lowering, x, y)
        return
    for target, axes in _passes(lowering, node, x, y):
        _resample(lowering, node, x, target, axes)
        x = target


def _passes(
    lowering: Lowering, node: Node, x: Tensor, y: Tensor
) -> list[tuple[Tensor, tuple[int, ...]]]:
    """Results and the one or two axes that are resized to get there, the last axes first."""
    rank = len(y.shape)
    ends = range(rank, rank - len(counts(node, "size")), -2)
    steps = [tuple(range(max(rank - len(counts(node, "size")), end - 2), end)) for end in ends]
    shapes, shape = [], x.shape
    for axes in steps[:-1]:
        shape = tuple(y.shape[i] if i in axes else n for i, n in enumerate(shape))
        shapes.append(shape)
    dtype = get("f64" if x.dtype.name == "f64" else "f32")
    sizes = [dtype.nbytes(math.prod(shape)) for shape in shapes]
    scratch = lowering.temporary(sum(sizes)) if sizes else y.place
    targets = [
        contiguous(Place(scratch.buffer, scratch.at + sum(sizes[:i])), dtype, shape)
        for i, shape in enumerate(shapes)
    ]
    return list(zip([*targets, y], steps, strict=True))


def _resample(lowering: Lowering, node: Node, x: Tensor, y: Tensor, axes: tuple[int, ...]) -> None:
    computed = "<f8" if x.dtype.name == "f64" else "<f4"
    numbers: list[bytes] = []
    tables: list[Place] = []
    strides: list[bytes] = [i64(0)] * (2 - len(axes))
    for axis in (*[None] * (2 - len(axes)), *axes):
        n, length = (1, 1) if axis is None else (x.shape[axis], y.shape[axis])
        indices, weights = _taps(node, n, length)
        beside = 1 if axis is None else math.prod(y.shape[axis + 1 :])
        numbers += [i32(length), i32(beside), i32(len(indices))]
        tables.append(lowering.constant(indices.astype("<i4").tobytes()))
        tables.append(lowering.constant(weights.astype(computed).tobytes()))
    strides += [i64(x.strides[axis]) for axis in axes]
    walked = [0 if axis in axes else stride for axis, stride in enumerate(x.strides)]
    variant = Variant.of("resample", {"TYPE": x.dtype.name, "RESULT": y.dtype.name, "ITEMS": ITEMS})
    lowering.launch(
        variant, groups_of(y.size), ITEMS,
        x.place, view_bytes(x.at, walked), *strides, Place(tables[0].buffer),
        *(i64(table.at) for table in tables), y.place, i64(y.at), shape_bytes(y.shape), *numbers,
    )  # fmt: skip


def _taps(node: Node, n: int, length: int) -> tuple[npt.NDArray[np.int64], _Numbers]:
    """Indices of an axis of n, and weights, that each of `length` elements is made from."""
    step = np.arange(length, dtype=np.float64)
    if node.param("align_corners"):
        at = step * ((n - 1) / max(1, length - 1))
    else:
        at = (step + 0.5) * (n / length) - 0.5
    reach = max(1.0, n / length) if node.param("antialias") else 1.0
    if node.param("mode") == "cubic":
        indices, weigh = _around(at, 2), _keys
    else:
        indices, weigh = _around(at, math.ceil(reach)), _tent
    weights = weigh(np.abs(indices - at) / reach)
    if node.param("antialias"):
        weights[(indices < 0) | (indices >= n)] = 0
        weights /= weights.sum(axis=0)
    return indices.clip(0, n - 1), weights


def _around(at: _Numbers, count: int) -> npt.NDArray[np.int64]:
    """Indices of the `count` elements on either side of each place: (2 * count, places)."""
    return np.floor(at).astype(np.int64) + np.arange(1 - count, count + 1)[:, None]


def _tent(t: _Numbers) -> _Numbers:
    return np.maximum(0, 1 - t)


def _keys(t: _Numbers) -> _Numbers:
    near = (1.25 * t - 2.25) * t * t + 1
    far = ((-0.75 * t + 3.75) * t - 6) * t + 3
    return np.where(t <= 1, near, far)
