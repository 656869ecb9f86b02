"""Sums and largest elements of vectors of eight floats."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from hotplug_cpu.jit.simd import I32X8, four_f32x8, two_f32
from hotplug_cpu.jit.vectors import F32, I32, f32, f32x8, instruction, lanes, shuffle, splat


def sum_elements(builder: Any, value: Any) -> Any:
    """What `sum_of` writes."""
    for width in (4, 2, 1):
        low, high = (lanes(builder, value, start, width) for start in (0, width))
        value = builder.fadd(low, high)
    return builder.extract_element(value, ir.Constant(I32, 0))


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


@instruction(f32, f32x8)
def max_of(builder: Any, value: Any) -> Any:
    """Largest element."""
    for width in (4, 2, 1):
        low, high = (lanes(builder, value, start, width) for start in (0, width))
        value = builder.select(builder.fcmp_ordered(">", low, high), low, high)
    return builder.extract_element(value, ir.Constant(I32, 0))


def largest_bits(builder: Any, values: list[Any]) -> Any:
    """Bits of the largest magnitude in four vectors, as i32: those of NaN are above all others."""
    kept = splat(0x7FFFFFFF, I32, 8)
    bits = [builder.and_(builder.bitcast(value, I32X8), kept) for value in values]
    while len(bits) > 1:
        bits = [_larger(builder, *pair) for pair in zip(bits[::2], bits[1::2], strict=True)]
    (most,) = bits
    for width in (4, 2, 1):
        most = _larger(builder, *(lanes(builder, most, start, width) for start in (0, width)))
    return builder.extract_element(most, ir.Constant(I32, 0))


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
