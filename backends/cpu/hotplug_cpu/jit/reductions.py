"""Sums and largest elements of vectors of floats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from hotplug_cpu.jit.simd import I32X8, four_f32x8, two_f32
from hotplug_cpu.jit.vectors import F32, I32, f32, f32x8, instruction, lanes, shuffle, splat


def _combined(builder: Any, value: Any, combine: Callable[[Any, Any], Any]) -> Any:
    """One element made of all of a vector, halves with each other."""
    while (width := value.type.count // 2) > 0:
        value = combine(*(lanes(builder, value, start, width) for start in (0, width)))
    return builder.extract_element(value, ir.Constant(I32, 0))


def sum_elements(builder: Any, value: Any) -> Any:
    """What `sum_of` writes, for vectors of any length."""
    return _combined(builder, value, builder.fadd)


@instruction(f32, f32x8)
def sum_of(builder: Any, value: Any) -> Any:
    """Sum of the elements."""
    return sum_elements(builder, value)


@instruction(two_f32, f32x8)
def sums_of_halves(builder: Any, value: Any) -> Any:
    """Sum of the first four elements, and of the last four."""
    for step in (2, 1):
        moved = shuffle(builder, value, value, [lane ^ step for lane in range(8)])
        value = builder.fadd(value, moved)
    halves = [builder.extract_element(value, ir.Constant(I32, lane)) for lane in (0, 4)]
    return cgutils.pack_array(builder, halves)


def maximum(builder: Any, a: Any, b: Any) -> Any:
    """The larger elements; those of b where either is NaN."""
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def max_elements(builder: Any, value: Any) -> Any:
    """What `max_of` writes, for vectors of any length."""
    return _combined(builder, value, lambda a, b: maximum(builder, a, b))


@instruction(f32, f32x8)
def max_of(builder: Any, value: Any) -> Any:
    """Largest element."""
    return max_elements(builder, value)


def largest_bits(builder: Any, values: list[Any]) -> Any:
    """Bits of the largest magnitude in four vectors, as i32: those of NaN are above all others."""
    kept = splat(0x7FFFFFFF, I32, 8)
    bits = [builder.and_(builder.bitcast(value, I32X8), kept) for value in values]
    while len(bits) > 1:
        bits = [_larger(builder, *pair) for pair in zip(bits[::2], bits[1::2], strict=True)]
    return _combined(builder, bits[0], lambda a, b: _larger(builder, a, b))


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed(">", a, b), a, b)


@instruction(f32, four_f32x8)
def largest_magnitude(builder: Any, values: Any) -> Any:
    """Largest magnitude of 32 floats, NaN if there is one."""
    parts = [builder.extract_value(values, index) for index in range(4)]
    return builder.bitcast(largest_bits(builder, parts), F32)


def sums_together(builder: Any, values: list[Any]) -> Any:
    """Sums of eight vectors as one vector: a transpose whose steps add."""
    low = [0, 8, 2, 10, 4, 12, 6, 14]
    pair = [0, 1, 8, 9, 4, 5, 12, 13]
    quad = [0, 1, 2, 3, 8, 9, 10, 11]
    for order, shift in ((low, 1), (pair, 2), (quad, 4)):
        values = [
            builder.fadd(
                shuffle(builder, a, b, order), shuffle(builder, a, b, [n + shift for n in order])
            )
            for a, b in zip(values[::2], values[1::2], strict=True)
        ]
    return values[0]
