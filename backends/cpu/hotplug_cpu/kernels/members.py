"""Micro-kernels of attention for few queries, written as LLVM code.

A *member* is one of the query heads that share a key head. Several are done together, so that a row
of the cache is loaded and made floats of once for all of them. Sums stay in registers: four rows
times three members, or what is left of them, are as many as 16 registers hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from hotplug_cpu.jit.reductions import sums_together
from hotplug_cpu.jit.simd import prefetch_at
from hotplug_cpu.jit.vectors import (
    F32,
    I64,
    address,
    broadcast,
    instruction,
    load,
    splat,
    store,
    vector,
)
from hotplug_cpu.kernels.dots import add_product

__all__ = ["add_values", "prefetch_lines", "scores_of"]

_ROWS = 4
_LINE = 64
_FLOATS = vector(F32, 8)

Load = Callable[[Any, Any], Any]
"""Writes code that loads eight elements of the cache as floats: (builder, address)."""


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
    size, load_row = element
    zero = splat(0.0, F32, 8)
    sums = [[cgutils.alloca_once_value(builder, zero) for _ in rows] for _ in queries]
    with cgutils.for_range(builder, builder.lshr(width, _constant(3))) as loop:
        at = _times(builder, loop.index, 8 * size)
        keys = [load_row(builder, builder.add(row, at)) for row in rows]
        at = _times(builder, loop.index, 32)
        for query, variables in zip(queries, sums, strict=True):
            x = load(builder, builder.add(query, at), _FLOATS)
            for key, variable in zip(keys, variables, strict=True):
                add_product(builder, variable, key, x)
    return [[builder.load(variable) for variable in row] for row in sums]


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
        for index in range(2 * _ROWS):
            here = builder.icmp_signed("<", _constant(index), last)
            number = builder.select(here, _constant(index), last)
            rows.append(builder.add(k, builder.mul(k_stride, number)))
        halves = [
            _row_dots(builder, queries, rows[first : first + _ROWS], width, (size, load_row))
            for first in (0, _ROWS)
        ]
        for member, place in enumerate(_places(builder, target, target_stride, members)):
            store(builder, place, sums_together(builder, halves[0][member] + halves[1][member]))

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
        vectors, fours = (builder.lshr(width, _constant(bits)) for bits in (3, 5))
        with cgutils.for_range(builder, fours) as loop:
            first = _times(builder, loop.index, 4)
            _add_columns(
                builder, (first, 4), results, places, (v, v_stride, keys), (size, load_row)
            )
        rest = builder.and_(vectors, _constant(3))
        with cgutils.for_range(builder, rest) as loop:
            first = builder.add(_times(builder, fours, 4), loop.index)
            _add_columns(
                builder, (first, 1), results, places, (v, v_stride, keys), (size, load_row)
            )

    return values


def _add_columns(
    builder: Any,
    columns: tuple[Any, int],
    results: list[Any],
    weights: list[Any],
    rows: tuple[Any, Any, Any],
    element: tuple[int, Load],
) -> None:
    """The sums of some vectors of every row; `columns` are the first and how many."""
    first, count = columns
    v, stride, keys = rows
    size, load_row = element
    targets = [
        [
            builder.add(result, _times(builder, builder.add(first, _constant(n)), 32))
            for n in range(count)
        ]
        for result in results
    ]
    sums = []
    for row in targets:
        sums.append([cgutils.alloca_once_value(builder, splat(0.0, F32, 8)) for _ in row])
        for place, variable in zip(row, sums[-1], strict=True):
            builder.store(load(builder, place, _FLOATS), variable)
    start = builder.add(v, _times(builder, first, 8 * size))
    with cgutils.for_range(builder, keys) as loop:
        at = builder.add(start, builder.mul(stride, loop.index))
        parts = [load_row(builder, builder.add(at, _constant(8 * size * n))) for n in range(count)]
        for place, variables in zip(weights, sums, strict=True):
            here = builder.add(place, _times(builder, loop.index, 4))
            weight = broadcast(builder, load(builder, here, F32), 8)
            for part, variable in zip(parts, variables, strict=True):
                add_product(builder, variable, part, weight)
    for row, variables in zip(targets, sums, strict=True):
        for place, variable in zip(row, variables, strict=True):
            store(builder, place, builder.load(variable))
