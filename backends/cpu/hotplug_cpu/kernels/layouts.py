"""Rows laid out beside each other for wide products, eight at a time; see `panels`."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.types.containers import UniTuple

from hotplug_cpu.jit.simd import eight_f32x8
from hotplug_cpu.jit.vectors import (
    I32,
    I64,
    address,
    at_offset,
    i8x32,
    instruction,
    shuffle,
    store,
    vector,
)

__all__ = ["call_unpack", "store_columns", "store_transposed", "store_words"]

_WORDS = vector(I32, 8)


def _transpose(builder: Any, rows: list[Any]) -> list[Any]:
    """Eight vectors of eight, element i of vector j to element j of vector i."""
    low = [0, 8, 1, 9, 4, 12, 5, 13]
    pair = [0, 1, 8, 9, 4, 5, 12, 13]
    half = [0, 1, 2, 3, 8, 9, 10, 11]

    def both(a: Any, b: Any, lanes: list[int], shift: int) -> list[Any]:
        return [
            shuffle(builder, a, b, lanes),
            shuffle(builder, a, b, [n + shift for n in lanes]),
        ]

    pairs = [both(rows[i], rows[i + 1], low, 2) for i in range(0, 8, 2)]
    quads = [both(pairs[i][k], pairs[i + 1][k], pair, 2) for i in (0, 2) for k in (0, 1)]
    rows_first, rows_last = quads[0] + quads[1], quads[2] + quads[3]
    whole = [both(a, b, half, 4) for a, b in zip(rows_first, rows_last, strict=True)]
    return [column[0] for column in whole] + [column[1] for column in whole]


@instruction(types.none, address, UniTuple(i8x32, 8))
def store_columns(builder: Any, at: Any, rows: Any) -> None:
    """Eight rows of 32 bytes as i8[8][8 rows][4]."""
    words = [builder.bitcast(builder.extract_value(rows, i), _WORDS) for i in range(8)]
    for index, column in enumerate(_transpose(builder, words)):
        store(builder, at_offset(builder, at, 32 * index), column)


@instruction(types.none, address, types.int64, eight_f32x8)
def store_transposed(builder: Any, at: Any, stride: Any, rows: Any) -> None:
    """Eight rows of 8 floats as f32[8][8 rows], `stride` bytes apart."""
    values = [builder.extract_value(rows, i) for i in range(8)]
    for index, column in enumerate(_transpose(builder, values)):
        store(builder, builder.add(at, builder.mul(stride, ir.Constant(I64, index))), column)


@instruction(types.none, address, types.int64, i8x32)
def store_words(builder: Any, at: Any, stride: Any, value: Any) -> None:
    """The eight words of 32 bytes, `stride` bytes apart."""
    words = builder.bitcast(value, _WORDS)
    for index in range(8):
        word = builder.extract_element(words, ir.Constant(I32, index))
        store(builder, builder.add(at, builder.mul(stride, ir.Constant(I64, index))), word)


@instruction(types.none, address, address, types.int64, types.int64, types.int64, address)
def call_unpack(
    builder: Any,
    unpack: Any,
    source: Any,
    row_bytes: Any,
    rows: Any,
    count: Any,
    target: Any,
) -> None:
    """Run a kernel of `weights` at an address."""
    kind = ir.FunctionType(I64, [I64] * 5)
    function = builder.inttoptr(unpack, kind.as_pointer())
    builder.call(function, [source, row_bytes, rows, count, target])
