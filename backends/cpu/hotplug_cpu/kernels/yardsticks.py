"""Kernels that compute nothing of use: a processor's limits, and the time that others take."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from hotplug_cpu.jit import forms, shared, simd
from hotplug_cpu.jit.vectors import (
    F32,
    I8,
    I32,
    address,
    f32x8,
    i32x8,
    instruction,
    load,
    vector,
)

__all__ = ["KERNELS"]

_ROWS, _COLUMNS = 3, 4
_CHAINS = _ROWS * _COLUMNS
"""Sums at once: one waits for itself for four steps, and two or three begin in each."""

_floats = types.containers.UniTuple(f32x8, _CHAINS)
_words = types.containers.UniTuple(i32x8, _CHAINS)
_VECTOR = 32
_STEP = (_ROWS + _COLUMNS) * _VECTOR


def _outer(builder: Any, sums: Any, at: Any, kind: Any, add: Any) -> Any:
    """Sums of all pairs of a few vectors with a few others; `add(a, b, sum)` writes one."""
    places = [builder.add(at, at.type(_VECTOR * n)) for n in range(_ROWS + _COLUMNS)]
    values = [load(builder, place, kind) for place in places]
    pairs = ((a, b) for a in values[:_ROWS] for b in values[_ROWS:])
    for chain, (a, b) in enumerate(pairs):
        sums = builder.insert_value(sums, add(a, b, builder.extract_value(sums, chain)), chain)
    return sums


@instruction(_floats)
def _no_floats(_builder: Any) -> Any:
    return ir.Constant(ir.ArrayType(vector(F32, 8), _CHAINS), None)


@instruction(_words)
def _no_words(_builder: Any) -> Any:
    return ir.Constant(ir.ArrayType(vector(I32, 8), _CHAINS), None)


@instruction(_floats, _floats, address)
def _multiply_floats(builder: Any, sums: Any, at: Any) -> Any:
    def add(a: Any, b: Any, total: Any) -> Any:
        return forms.fused_multiply_add(builder, a, b, total)

    return _outer(builder, sums, at, vector(F32, 8), add)


@instruction(_words, _words, address)
def _multiply_bytes(builder: Any, sums: Any, at: Any) -> Any:
    def add(a: Any, b: Any, total: Any) -> Any:
        return forms.add_dots(builder, total, a, b)

    return _outer(builder, sums, at, vector(I8, 32), add)


@simd.inline
def peak_f32(
    thread: int,
    threads: int,  # noqa: ARG001 - all kernels take it
    x: int,
    steps: int,
    times: int,
    out: int,
) -> None:
    """So many steps of 12 products of 8 floats, over and over; x has 56 floats for each step."""
    sums = _no_floats()
    for _ in range(times):
        for step in range(steps):
            sums = _multiply_floats(sums, x + _STEP * step)
    total = simd.zero()
    for one in sums:
        total = total + one
    simd.store_f32x8(out + _VECTOR * thread, total)


@simd.inline
def peak_i8(
    thread: int,
    threads: int,  # noqa: ARG001 - all kernels take it
    x: int,
    steps: int,
    times: int,
    out: int,
) -> None:
    """The same with 32 bytes of 0..127, summed by fours; x has 224 bytes for each step."""
    sums = _no_words()
    for _ in range(times):
        for step in range(steps):
            sums = _multiply_bytes(sums, x + _STEP * step)
    total = simd.zero()
    for one in sums:
        total = total + simd.to_f32(one)
    simd.store_f32x8(out + _VECTOR * thread, total)


@simd.inline
def stamp(
    thread: int,
    threads: int,  # noqa: ARG001 - all kernels take it
    at: int,
) -> None:
    """What the processor's clock shows, a word per thread."""
    simd.store_i64(at + 8 * thread, shared.ticks())


KERNELS = {"peak_f32": peak_f32, "peak_i8": peak_i8, "stamp": stamp}
