"""Micro-kernels of attention for few queries, written as LLVM code.

A *member* is one of the query heads that share a key head. Several are done together, so that a row
of the cache is loaded and made floats of once for all of them. Sums stay in registers: four rows
times three members, or what is left of them, are as many as 16 registers hold. Vectors are as wide
as registers are; where a head's width is no multiple of them, the last one has eight elements.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from hotplug_cpu.jit.forms import LANES
from hotplug_cpu.jit.reductions import sums_together
from hotplug_cpu.jit.simd import prefetch_at
from hotplug_cpu.jit.vectors import (
    F32,
    I64,
    address,
    at_offset,
    broadcast,
    concatenate,
    instruction,
    lanes,
    load,
    splat,
    store,
    vector,
)
from hotplug_cpu.kernels.dots import add_product

__all__ = ["add_values", "prefetch_lines", "scores_of"]

_ROWS = 4
_GROUP = 8  # rows whose scores are one vector
_LINE = 64
_BITS = LANES.bit_length() - 1

Load = Callable[[Any, Any, int], Any]
"""Writes code that loads elements of the cache as floats: (builder, address, how many)."""


@instruction(types.none, address, types.int64)
def prefetch_lines(builder: Any, at: Any, nbytes: Any) -> None:
    """Have so many bytes brought into the cache, line after line; any address may be given."""
    lines = builder.lshr(nbytes, _constant(_LINE.bit_length() - 1))
    with cgutils.for_range(builder, lines) as loop:
        prefetch_at(builder, builder.add(at, _times(builder, loop.index, _LINE)))


def _constant(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


def _times(builder: Any, value: Any, factor: int) -> Any:
    return builder.mul(value, _constant(factor))


def _places(builder: Any, base: Any, stride: Any, count: int) -> list[Any]:
    return [builder.add(base, _times(builder, stride, index)) for index in range(count)]


def _row_dots(
    builder: Any,
    queries: list[Any],
    rows: list[Any],
    width: Any,
    element: tuple[int, Load],
) -> list[list[Any]]:
    """Products of queries and rows, as eight parts each: [query][row]."""
    sums = [[_zero(builder) for _ in rows] for _ in queries]

    def step(first: Any, count: int) -> None:
        size, load_row = element
        at = _times(builder, first, size)
        keys = [_widened(builder, load_row(builder, builder.add(row, at), count)) for row in rows]
        at = _times(builder, first, 4)
        for query, variables in zip(queries, sums, strict=True):
            x = _widened(builder, load(builder, builder.add(query, at), vector(F32, count)))
            for key, variable in zip(keys, variables, strict=True):
                add_product(builder, variable, key, x)

    _each(builder, width, step)
    return [[_folded(builder, builder.load(variable)) for variable in row] for row in sums]


def _zero(builder: Any) -> Any:
    return cgutils.alloca_once_value(builder, splat(0.0, F32, LANES))


def _each(builder: Any, width: Any, step: Callable[[Any, int], None]) -> None:
    """Take LANES elements at a time, and eight if they are left."""
    with cgutils.for_range(builder, builder.lshr(width, _constant(_BITS))) as loop:
        step(_times(builder, loop.index, LANES), LANES)
    if LANES > 8:
        whole = builder.and_(width, _constant(-LANES))
        with builder.if_then(builder.icmp_unsigned("!=", whole, width)):
            step(whole, 8)


def _widened(builder: Any, value: Any) -> Any:
    """LANES floats, of which those behind the ones there are count nothing."""
    if value.type.count == LANES:
        return value
    return concatenate(builder, [value, splat(0.0, F32, 8)])


def _folded(builder: Any, value: Any) -> Any:
    """Eight floats with the same sum."""
    parts = [lanes(builder, value, first, 8) for first in range(0, LANES, 8)]
    return parts[0] if len(parts) == 1 else builder.fadd(*parts)


def scores_of(members: int, size: int, load_row: Load) -> Any:
    """An instruction for scores of so many members, and elements of `size` bytes."""

    @instruction(types.none, *[types.int64] * 8)
    def scores(
        builder: Any,
        q: Any,
        q_stride: Any,
        k: Any,
        k_stride: Any,
        keys: Any,
        width: Any,
        target: Any,
        target_stride: Any,
    ) -> None:
        """Products of queries and eight rows of keys: f32[8] for each query.

        Where there are fewer than eight rows the last one is repeated.
        """
        queries = _places(builder, q, q_stride, members)
        last = builder.sub(keys, _constant(1))
        rows = []
        for index in range(_GROUP):
            here = builder.icmp_signed("<", _constant(index), last)
            number = builder.select(here, _constant(index), last)
            rows.append(builder.add(k, builder.mul(k_stride, number)))
        parts = [
            _row_dots(builder, queries, rows[first : first + _ROWS], width, (size, load_row))
            for first in range(0, _GROUP, _ROWS)
        ]
        for member, place in enumerate(_places(builder, target, target_stride, members)):
            sums = [total for part in parts for total in part[member]]
            store(builder, place, sums_together(builder, sums))

    return scores


def add_values(members: int, size: int, load_row: Load) -> Any:
    """An instruction that adds up values for so many members, and elements of `size` bytes."""

    @instruction(types.none, *[types.int64] * 8)
    def values(
        builder: Any,
        weights: Any,
        weights_stride: Any,
        v: Any,
        v_stride: Any,
        keys: Any,
        width: Any,
        result: Any,
        result_stride: Any,
    ) -> None:
        """Add rows of values, times a weight of each member, to f32[width] of each member."""
        results = _places(builder, result, result_stride, members)
        places = _places(builder, weights, weights_stride, members)

        def add(first: Any, count: int, length: int) -> None:
            rows = (v, v_stride, keys)
            _add_columns(builder, (first, count, length), results, places, rows, (size, load_row))

        fours = builder.lshr(width, _constant(_BITS + 2))
        with cgutils.for_range(builder, fours) as loop:
            add(_times(builder, loop.index, 4 * LANES), 4, LANES)
        first = _times(builder, fours, 4 * LANES)
        _each(
            builder,
            builder.sub(width, first),
            lambda at, length: add(builder.add(first, at), 1, length),
        )

    return values


def _add_columns(
    builder: Any,
    columns: tuple[Any, int, int],
    results: list[Any],
    weights: list[Any],
    rows: tuple[Any, Any, Any],
    element: tuple[int, Load],
) -> None:
    """Sums of some vectors of every row: `columns` are the first, how many, and their length."""
    first, count, length = columns
    v, stride, keys = rows
    size, load_row = element
    kind = vector(F32, length)
    targets = [
        [
            at_offset(builder, builder.add(result, _times(builder, first, 4)), 4 * length * n)
            for n in range(count)
        ]
        for result in results
    ]
    zero = splat(0.0, F32, length)
    sums = [[cgutils.alloca_once_value(builder, zero) for _ in row] for row in targets]
    for row, variables in zip(targets, sums, strict=True):
        for place, variable in zip(row, variables, strict=True):
            builder.store(load(builder, place, kind), variable)
    start = builder.add(v, _times(builder, first, size))
    with cgutils.for_range(builder, keys) as loop:
        at = builder.add(start, builder.mul(stride, loop.index))
        parts = [
            load_row(builder, at_offset(builder, at, length * size * n), length)
            for n in range(count)
        ]
        for place, variables in zip(weights, sums, strict=True):
            here = builder.add(place, _times(builder, loop.index, 4))
            weight = broadcast(builder, load(builder, here, F32), length)
            for part, variable in zip(parts, variables, strict=True):
                add_product(builder, variable, part, weight)
    for row, variables in zip(targets, sums, strict=True):
        for place, variable in zip(row, variables, strict=True):
            store(builder, place, builder.load(variable))
