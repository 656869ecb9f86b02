"""Reference of convolution and pooling: sums as written, one element of the kernel at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from hotplug.node import Node
from hotplug.testing.oracle.table import Array, Floats, reference

__all__: list[str] = []

Ints: TypeAlias = "tuple[int, ...]"
Index: TypeAlias = "tuple[Any, ...]"


def _covered(
    kernel: Ints, places: Ints, stride: Ints, dilation: Ints
) -> Iterator[tuple[Index, Index]]:
    """Each element of a kernel, and the padded elements that it meets at all places."""
    steps, gaps = stride or (1,) * len(kernel), dilation or (1,) * len(kernel)
    for at in np.ndindex(kernel):
        yield (
            at,
            tuple(
                slice(i * d, i * d + (n - 1) * s + 1, s)
                for i, n, s, d in zip(at, places, steps, gaps, strict=True)
            ),
        )


def _padded(x: Array, padding: Ints, value: float = 0) -> Array:
    widths = [(0, 0), (0, 0), *((p, p) for p in padding or (0,) * (x.ndim - 2))]
    return np.pad(x, widths, constant_values=np.asarray(value).astype(x.dtype))


def _inner(x: Array, padding: Ints, lengths: Ints) -> Array:
    """Undoes `_padded`."""
    starts = padding or (0,) * len(lengths)
    inner: Index = tuple(slice(p, p + n) for p, n in zip(starts, lengths, strict=True))
    return x[(..., *inner)]


def _padded_zeros(node: Node, padding: Ints) -> Floats:
    before = padding or (0,) * (len(node.shape) - 2)
    lengths = [n + 2 * p for n, p in zip(node.shape[2:], before, strict=True)]
    return np.zeros((*node.shape[:2], *lengths))


@reference("conv", typed=True)
def _conv(
    node: Node, x: Floats, w: Floats, *, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Floats:
    result = np.zeros(node.shape)
    inputs, outputs = w.shape[1], w.shape[0] // groups
    padded = _padded(x, padding)
    for group in range(groups):
        ins = slice(group * inputs, (group + 1) * inputs)
        outs = slice(group * outputs, (group + 1) * outputs)
        for at, covered in _covered(w.shape[2:], node.shape[2:], stride, dilation):
            part = padded[(slice(None), ins, *covered)]
            result[:, outs] += np.einsum("bc...,oc->bo...", part, w[(outs, slice(None), *at)])
    return result


@reference("conv_transpose", typed=True)
def _conv_transpose(
    node: Node, x: Floats, w: Floats, *, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Floats:
    result = _padded_zeros(node, padding)
    inputs, outputs = w.shape[0] // groups, w.shape[1]
    for group in range(groups):
        ins = slice(group * inputs, (group + 1) * inputs)
        outs = slice(group * outputs, (group + 1) * outputs)
        for at, covered in _covered(w.shape[2:], x.shape[2:], stride, dilation):
            share = np.einsum("bc...,co->bo...", x[:, ins], w[(ins, slice(None), *at)])
            result[(slice(None), outs, *covered)] += share
    return _inner(result, padding, node.shape[2:])


@reference("im2col", typed=True)
def _im2col(
    node: Node, x: Array, *, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints
) -> Array:
    places = node.shape[1:-1]
    result = np.zeros((x.shape[0], *places, x.shape[1], *kernel), x.dtype)
    padded = _padded(x, padding)
    for at, covered in _covered(kernel, places, stride, dilation):
        result[(..., *at)] = np.moveaxis(padded[(..., *covered)], 1, -1)
    return result.reshape(node.shape)


@reference("col2im", typed=True)
def _col2im(
    node: Node,
    columns: Floats,
    *,
    shape: Ints,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
) -> Floats:
    places = columns.shape[1:-1]
    parts = columns.reshape(*columns.shape[:-1], node.shape[1], *kernel)
    result = _padded_zeros(node, padding)
    for at, covered in _covered(kernel, places, stride, dilation):
        result[(..., *covered)] += np.moveaxis(parts[(..., *at)], -1, 1)
    return _inner(result, padding, shape)


@reference("max_pool", typed=True)
def _max_pool(node: Node, x: Floats, *, kernel: Ints, stride: Ints, padding: Ints) -> Floats:
    result = np.full(node.shape, -np.inf)
    padded = _padded(x, padding, -np.inf)
    for _, covered in _covered(kernel, node.shape[2:], stride or kernel, ()):
        result = np.maximum(result, padded[(..., *covered)])
    return result


@reference("avg_pool", typed=True)
def _avg_pool(
    node: Node,
    x: Floats,
    *,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    count_include_pad: bool,
) -> Floats:
    total, count = np.zeros(node.shape), np.zeros(node.shape)
    padded = _padded(x, padding)
    inside = _padded(np.ones(x.shape), padding)
    for _, covered in _covered(kernel, node.shape[2:], stride or kernel, ()):
        total += padded[(..., *covered)]
        count += 1 if count_include_pad else inside[(..., *covered)]
    return np.asarray(total / count)
