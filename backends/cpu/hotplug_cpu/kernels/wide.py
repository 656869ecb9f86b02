"""Micro-kernels over the widest vectors: some tokens times a panel of PANEL rows of weights.

Activations are read as they lie, 32 bits for each token and step; sums stay in registers. An
instruction here is called as

    (panel, x, x_stride, tokens, count, before, before_stride, out, out_stride, rows)

and computes out = before + products of `tokens` tokens with the first `rows` rows of the panel over
`count` steps. `before` and `out` are f32, strides are bytes from one token to the next. Layouts of
panels and of activations: see `panels`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from llvmlite import ir
from numba.core import cgutils, types

from hotplug_cpu.jit import forms, simd
from hotplug_cpu.jit.forms import LANES
from hotplug_cpu.jit.vectors import (
    F32,
    I16,
    I32,
    I64,
    at_offset,
    broadcast,
    call,
    instruction,
    load,
    rolled,
    splat,
    store,
    vector,
)
from hotplug_cpu.kernels.panels import BLOCK, WORDS_BLOCK

__all__ = ["FLOATS", "PANEL", "WORDS", "Family"]

PANEL = 2 * LANES
"""Rows of weights that are multiplied at once."""

_FLOATS, _WORDS = vector(F32, LANES), vector(I32, LANES)
_HALVES = vector(I16, 2 * LANES)
_BYTES = 4 * LANES
_WORDS_PANEL = 4 * PANEL * (1 + BLOCK // 2)


def _constant(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


def _rows(builder: Any, base: Any, stride: Any, number: int, tokens: Any) -> list[Any]:
    """Addresses of so many tokens; where there are fewer it is the last one's again."""
    last = builder.sub(tokens, _constant(1))
    rows = []
    for token in map(_constant, range(number)):
        present = builder.select(builder.icmp_signed("<", token, last), token, last)
        rows.append(builder.add(base, builder.mul(stride, present)))
    return rows


class _Sums:
    """A variable per token and vector, of which LLVM makes registers, moved from and to memory.

    Args:
        builder: writes the code.
        tokens: how many.
        vectors: vectors of rows.
        rows: how many rows exist; the elements of others are not touched in memory.
    """

    def __init__(self, builder: Any, tokens: int, vectors: int, rows: Any) -> None:
        self._builder = builder
        self.tokens = [_zeros(builder, vectors) for _ in range(tokens)]
        self._whole = builder.icmp_signed("==", rows, _constant(vectors * LANES))
        count = broadcast(builder, builder.trunc(rows, I32), LANES)
        self._masks = [
            builder.icmp_signed("<", ir.Constant(_WORDS, [*range(first, first + LANES)]), count)
            for first in range(0, vectors * LANES, LANES)
        ]

    def fetch(self, places: list[Any]) -> None:
        """Have what is added later brought into the cache."""
        for place, _, _ in self._each(places):
            simd.prefetch_at(self._builder, place)

    def finish(self, before: list[Any], out: list[Any]) -> None:
        """Add what lies before, and put it out."""
        builder = self._builder
        with builder.if_else(self._whole) as (whole, part):
            with whole:
                sums = [
                    builder.fadd(load(builder, place, _FLOATS), builder.load(variable))
                    for place, _, variable in self._each(before)
                ]
                for (place, _, _), total in zip(self._each(out), sums, strict=True):
                    store(builder, place, total)
            with part:
                sums = [
                    builder.fadd(_load_some(builder, place, mask), builder.load(variable))
                    for place, mask, variable in self._each(before)
                ]
                for (place, mask, _), total in zip(self._each(out), sums, strict=True):
                    _store_some(builder, place, mask, total)

    def _each(self, places: list[Any]) -> list[tuple[Any, Any, Any]]:
        """Address, mask and variable of each."""
        return [
            (at_offset(self._builder, place, _BYTES * number), mask, variable)
            for place, own in zip(places, self.tokens, strict=True)
            for number, (mask, variable) in enumerate(zip(self._masks, own, strict=True))
        ]


def _zeros(builder: Any, count: int) -> list[Any]:
    zero = splat(0.0, F32, LANES)
    return [cgutils.alloca_once_value(builder, zero) for _ in range(count)]


def _load_some(builder: Any, at: Any, mask: Any) -> Any:
    pointer = builder.inttoptr(at, _FLOATS.as_pointer())
    name = f"llvm.masked.load.v{LANES}f32.p0"
    return call(builder, name, _FLOATS, pointer, I32(1), mask, splat(0.0, F32, LANES))


def _store_some(builder: Any, at: Any, mask: Any, value: Any) -> None:
    pointer = builder.inttoptr(at, _FLOATS.as_pointer())
    name = f"llvm.masked.store.v{LANES}f32.p0"
    call(builder, name, ir.VoidType(), value, pointer, I32(1), mask)


def _vectors(builder: Any, at: Any, count: int, kind: Any) -> list[Any]:
    """Vectors that lie behind each other."""
    return [load(builder, at_offset(builder, at, _BYTES * n), kind) for n in range(count)]


Body: TypeAlias = Callable[[Any, Any, Any, list[Any], list[list[Any]]], None]
"""Adds a step: (builder, its number, panel, rows of activations, sums by token)."""


def _outer(body: Body, tokens: int, vectors: int) -> Any:
    @instruction(types.none, *[types.int64] * 10)
    def outer(
        builder: Any,
        panel: Any,
        x: Any,
        x_stride: Any,
        given: Any,
        count: Any,
        before: Any,
        before_stride: Any,
        out: Any,
        out_stride: Any,
        rows: Any,
    ) -> None:
        sums = _Sums(builder, tokens, vectors, rows)
        sums.fetch(_rows(builder, out, out_stride, tokens, given))
        activations = _rows(builder, x, x_stride, tokens, given)
        with cgutils.for_range(builder, count) as loop:
            body(builder, loop.index, panel, activations, sums.tokens)
        sums.finish(
            _rows(builder, before, before_stride, tokens, given),
            _rows(builder, out, out_stride, tokens, given),
        )

    return outer


def _floats(
    builder: Any, index: Any, panel: Any, activations: list[Any], sums: list[list[Any]]
) -> None:
    """One number of each token times one of each row."""
    here = builder.add(panel, builder.mul(index, _constant(4 * PANEL)))
    weights = _vectors(builder, here, len(sums[0]), _FLOATS)
    step = builder.mul(index, _constant(4))
    for row, own in zip(activations, sums, strict=True):
        x = broadcast(builder, load(builder, builder.add(row, step), F32), LANES)
        for weight, variable in zip(weights, own, strict=True):
            after = forms.fused_multiply_add(builder, weight, x, builder.load(variable))
            builder.store(after, variable)


def _words(
    builder: Any, index: Any, panel: Any, activations: list[Any], sums: list[list[Any]]
) -> None:
    """A block of words of each token times one of each row, and their scales."""
    vectors = len(sums[0])
    panel = builder.add(panel, builder.mul(index, _constant(_WORDS_PANEL)))
    step = builder.mul(index, _constant(WORDS_BLOCK))
    blocks = [builder.add(row, step) for row in activations]
    dots = _dots_of_words(builder, panel, blocks, vectors)
    scales = _vectors(builder, panel, vectors, _FLOATS)
    for block, own, variables in zip(blocks, dots, sums, strict=True):
        x_scale = broadcast(builder, load(builder, block, F32), LANES)
        for total, scale, variable in zip(own, scales, variables, strict=True):
            # First the scales: a sum times one of them may be more than float32 holds.
            both = builder.fmul(scale, x_scale)
            value = builder.sitofp(total, _FLOATS)
            after = forms.fused_multiply_add(builder, value, both, builder.load(variable))
            builder.store(after, variable)


def _dots_of_words(builder: Any, panel: Any, blocks: list[Any], vectors: int) -> list[list[Any]]:
    """What the words of a block add up to, for each token and vector of rows."""
    none = splat(0, I32, LANES)
    sums = [[cgutils.alloca_once_value(builder, none) for _ in range(vectors)] for _ in blocks]
    with rolled(builder, BLOCK // 2, panel) as pair:
        number = builder.add(pair, _constant(1))  # words follow the scales
        here = builder.add(panel, builder.mul(number, _constant(4 * PANEL)))
        weights = _vectors(builder, here, vectors, _HALVES)
        for block, own in zip(blocks, sums, strict=True):
            word = load(builder, builder.add(block, builder.mul(number, _constant(4))), I32)
            x = builder.bitcast(broadcast(builder, word, LANES), _HALVES)
            for variable, weight in zip(own, weights, strict=True):
                after = forms.add_dots_i16(builder, builder.load(variable), weight, x)
                builder.store(after, variable)
    return [[builder.load(variable) for variable in own] for own in sums]


@dataclass(frozen=True, slots=True)
class Family:
    """Micro-kernels for one kind of operands.

    Attributes:
        tall: tokens that are multiplied at once.
        short: the same where fewer are left.
        many: instructions for `tall` tokens and two vectors of rows, and one.
        few: those for `short` tokens.
    """

    tall: int
    short: int
    many: tuple[Any, Any]
    few: tuple[Any, Any]


def _family(body: Body, tall: int, short: int) -> Family:
    many, few = ((_outer(body, n, 2), _outer(body, n, 1)) for n in (tall, short))
    return Family(tall, short, many, few)


FLOATS = _family(_floats, 12, 4) if LANES == 16 else _family(_floats, 6, 2)
"""One number of the contraction at a step."""

WORDS = _family(_words, 6, 2)
"""A block of it at a step. Half of the registers hold the block's sums, as integers."""
