"""Convolutions, im2col and back, and pooling, over one to three axes: kernels always see three."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

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
    whole,
)
from hotplug.gpu.sources import Variant
from hotplug.gpu.tensors import Tensor, shape_bytes, view_bytes
from hotplug.node import Node

__all__: list[str] = []

_Ints = tuple[int, ...]

_DIRECT_OUTPUTS = 4  # of a group: a tile of a product would be mostly empty
_DIRECT_DEPTH = 8


@dataclass(frozen=True, slots=True)
class _Axis:
    """Some places of one axis of a convolution, as conv.h has it."""

    places: int
    step: int
    origin: int
    move: int
    count: int
    first: int = 0
    skip: int = 1
    to: int = 0
    stride: int = 1


_ALONE = _Axis(places=1, step=1, origin=0, move=1, count=1)


def _numbers(node: Node, name: str, rank: int, default: int) -> _Ints:
    return counts(node, name) or (default,) * rank


def _three(values: Sequence[int], rest: int) -> _Ints:
    """A number for each of three axes, those in front that are not there having the rest's."""
    return (*(rest,) * (3 - len(values)), *values)


def _phases(node: Node, kernel: _Ints) -> list[tuple[_Axis, ...]]:
    """Outputs that meet the same elements of the kernel: all of them, if not transposed."""
    rank = len(kernel)
    stride, dilation = (_numbers(node, name, rank, 1) for name in ("stride", "dilation"))
    padding = _numbers(node, "padding", rank, 0)
    axis = _plain if node.op == "conv" else _transposed
    lengths = zip(node.shape[2:], kernel, stride, padding, dilation, strict=True)
    return list(itertools.product(*[[_ALONE]] * (3 - rank), *(axis(*each) for each in lengths)))


def _plain(length: int, k: int, stride: int, padding: int, dilation: int) -> list[_Axis]:
    return [_Axis(places=length, step=stride, origin=-padding, move=dilation, count=k)]


def _transposed(length: int, k: int, stride: int, padding: int, dilation: int) -> list[_Axis]:
    """One for each remainder of places by the stride, which meets every skip-th kernel element."""
    common = math.gcd(stride, dilation)
    axes = []
    for to in range(min(stride, length)):
        met = [j for j in range(k) if (to + padding - dilation * j) % stride == 0]
        first = met[0] if met else 0
        axes.append(_Axis(
            places=-(-(length - to) // stride), step=1, to=to, stride=stride,
            origin=(to + padding - dilation * first) // stride, move=-(dilation // common),
            count=len(met), first=first, skip=stride // common,
        ))  # fmt: skip
    return axes


@row("conv", "conv_transpose", check=plain_type)
def _conv(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    x, w = present(*operands)
    groups = whole(node, "groups")
    channels, outputs = x.shape[1] // groups, y.shape[1] // groups
    phases = _phases(node, w.shape[2:])
    places = max(math.prod(axis.places for axis in axes) for axes in phases)
    table = lowering.constant(b"".join(i32(*astuple(axis)) for axes in phases for axis in axes))
    views = (
        x.place, view_bytes(x.at, (*x.strides[:2], *_three(x.strides[2:], 0))),
        w.place, view_bytes(w.at, (*_filter_strides(node, w, groups), *_three(w.strides[2:], 0))),
        table, i64(table.at), y.place, i64(y.at), shape_bytes(_three(x.shape[2:], 1)),
        shape_bytes(_three(y.shape[2:], 1)),
    )  # fmt: skip
    types = {"TYPE": y.dtype.name, "X": x.dtype.name, "W": w.dtype.name}
    if outputs <= _DIRECT_OUTPUTS or channels * math.prod(w.shape[2:]) <= _DIRECT_DEPTH:
        size = x.shape[0] * y.shape[1] * places
        lowering.launch(
            Variant.of("conv_direct", {**types, "ITEMS": ITEMS}), (groups_of(size), len(phases)),
            ITEMS, *views, i32(size), i32(places), i32(groups), i32(outputs), i32(channels),
        )  # fmt: skip
        return
    tile = _tile(outputs, is_cpu=lowering.capabilities.is_cpu)
    down, across = -(-outputs // tile["OUTS"]), -(-places // tile["PLACES"])
    lowering.launch(
        Variant.of("conv", {**types, **tile}),
        down * across * groups * x.shape[0] * len(phases), tile["ITEMS"],
        *views, i32(down), i32(across), i32(groups), i32(outputs), i32(channels), i32(x.shape[0]),
    )  # fmt: skip


def _filter_strides(node: Node, w: Tensor, groups: int) -> _Ints:
    """From group to group, from output to output of a group, from channel to channel."""
    first, second = w.strides[:2]
    group = first * (w.shape[0] // groups)
    return (group, first, second) if node.op == "conv" else (group, second, first)


def _tile(outputs: int, *, is_cpu: bool) -> dict[str, int]:
    """Outputs of a work-group, and of an item at a time."""
    if is_cpu:  # one item has a tile of 64 x 32, 4 x 16 of it in vector registers
        return {
            "OUTS": 64, "PLACES": 32, "DEPTH": 32, "DOWN": 4, "ACROSS": 16, "ITEMS_DOWN": 1,
            "ITEMS": 1,
        }  # fmt: skip
    down = 4 if outputs <= 16 else 8 if outputs <= 32 else 16
    across = 32 if down == 4 else 16
    return {
        "OUTS": 4 * down, "PLACES": 4 * across, "DEPTH": 16, "DOWN": 4, "ACROSS": 4,
        "ITEMS_DOWN": down, "ITEMS": down * across,
    }  # fmt: skip


def _window(node: Node, lengths: _Ints, places: _Ints, stride: _Ints) -> bytes:
    """A Window, as window.h has it."""
    kernel, rank = counts(node, "kernel"), len(lengths)
    dilation = (1,) * rank if node.op.endswith("pool") else _numbers(node, "dilation", rank, 1)
    ones = (_three(values, 1) for values in (lengths, places, kernel, stride))
    padding = _three(_numbers(node, "padding", rank, 0), 0)
    return i32(*itertools.chain(*ones, padding, _three(dilation, 1)))


@row("im2col", check=plain_type)
def _im2col(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    x = present(operands[0])[0]
    rank = len(x.shape) - 2
    window = _window(node, x.shape[2:], y.shape[1:-1], _numbers(node, "stride", rank, 1))
    lowering.launch(
        Variant.of("im2col", {"WIDTH": y.dtype.block_bytes, "ITEMS": ITEMS}), groups_of(y.size),
        ITEMS, x.place, view_bytes(x.at, (*x.strides[:2], *_three(x.strides[2:], 0))),
        y.place, i64(y.at), window, i32(y.size), i32(x.shape[1]),
    )  # fmt: skip


@row("col2im", check=plain_type)
def _col2im(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    x = present(operands[0])[0]
    rank = len(y.shape) - 2
    window = _window(node, y.shape[2:], x.shape[1:-1], _numbers(node, "stride", rank, 1))
    strides = (x.strides[0], *_three(x.strides[1:-1], 0), x.strides[-1])
    lowering.launch(
        Variant.of("col2im", {"TYPE": y.dtype.name, "ITEMS": ITEMS}), groups_of(y.size), ITEMS,
        x.place, view_bytes(x.at, strides), y.place, i64(y.at), window, i32(y.size),
        i32(y.shape[1]),
    )  # fmt: skip


@row("max_pool", "avg_pool", check=plain_type)
def _pool(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    x = present(operands[0])[0]
    largest = node.op == "max_pool"
    stride = counts(node, "stride") or counts(node, "kernel")
    lowering.launch(
        Variant.of("pool", {"TYPE": y.dtype.name, "ITEMS": ITEMS}), groups_of(y.size), ITEMS,
        x.place, view_bytes(x.at, (*x.strides[:2], *_three(x.strides[2:], 0))),
        y.place, i64(y.at), _window(node, x.shape[2:], y.shape[2:], stride), i32(y.size),
        i32(x.shape[1]), i32(largest), i32(not largest and bool(node.param("count_include_pad"))),
    )  # fmt: skip
