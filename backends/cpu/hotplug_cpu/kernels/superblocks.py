"""Products with rows of super-blocks, written as LLVM code; see `superblock_formats`."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from hotplug_cpu.jit import forms
from hotplug_cpu.jit.vectors import (
    F32,
    I8,
    I32,
    I64,
    at_offset,
    concatenate,
    load,
    shuffle,
    splat,
    vector,
)
from hotplug_cpu.kernels import dots
from hotplug_cpu.kernels.dots import add_product
from hotplug_cpu.kernels.sizes import X_BLOCK, X_BYTES, X_HALVES, X_SUMS
from hotplug_cpu.kernels.superblock_formats import FORMATS, PARTS, Format, floats_of, scaled

__all__ = ["of_bytes", "of_floats"]

_FLOATS, _BYTES = vector(F32, 8), vector(I8, 32)


def _of_part(builder: Any, numbers: list[Any], part: int, groups: int) -> Any:
    """A part's number in every lane, or those of its two groups in four each."""
    if groups == PARTS:
        return shuffle(builder, numbers[0], numbers[0], [part] * 8)
    lane = part % 4
    return shuffle(builder, numbers[part // 4], numbers[part // 4], [lane] * 4 + [lane + 4] * 4)


# --- activations as bytes


def _add_bytes(
    builder: Any,
    form: Format,
    block: Any,
    rows: list[Any],
    index: Any,
    parts: Any,
    totals: list[list[Any]],
) -> None:
    scales, minima = form.numbers(builder, block)
    if form.levels:
        minima = scaled(builder, scales, splat(float(-forms.WIDE_OFFSET), F32, 8))
    by_token = []
    for x, variables in zip(rows, totals, strict=True):
        planes = builder.add(x, builder.mul(parts, ir.Constant(I64, X_BLOCK)))
        steps = _scales_of(builder, planes, index, form.groups)
        by_token.append([builder.fmul(a, b) for a, b in zip(scales, steps, strict=True)])
        if not form.levels or forms.WIDE_OFFSET:
            sums = _sums_of(builder, planes, parts, index, form.groups)
            for minimum, total in zip(minima, sums, strict=True):
                add_product(builder, variables[-1], minimum, total)
    first = builder.mul(index, ir.Constant(I64, PARTS * X_BLOCK))
    for part in range(PARTS):
        q = form.quants(builder, block, part)
        if form.levels:
            q = forms.lookup(builder, forms.moved(form.levels), q)
        for x, numbers, variables in zip(rows, by_token, totals, strict=True):
            at = at_offset(builder, builder.add(x, first), part * X_BLOCK + X_BYTES)
            add_dots = forms.add_dots_i8 if form.levels else forms.add_dots
            dots = add_dots(builder, splat(0, I32, 8), q, load(builder, at, _BYTES))
            scale = _of_part(builder, numbers, part, form.groups)
            value = builder.sitofp(dots, _FLOATS)
            add_product(builder, variables[part % len(variables)], value, scale)


def _scales_of(builder: Any, planes: Any, index: Any, groups: int) -> list[Any]:
    """Scales of the activations of a super-block, one for each group of weights."""
    at = builder.add(planes, builder.mul(index, ir.Constant(I64, 4 * PARTS)))
    if groups == PARTS:
        return [load(builder, at, _FLOATS)]
    fours = [load(builder, at_offset(builder, at, offset), vector(F32, 4)) for offset in (0, 16)]
    return [concatenate(builder, [four, four]) for four in fours]


def _sums_of(builder: Any, planes: Any, parts: Any, index: Any, groups: int) -> list[Any]:
    """Sums of the activations of a super-block, one for each group of weights."""

    def plane(offset: int) -> Any:
        at = builder.add(planes, builder.mul(parts, ir.Constant(I64, offset)))
        return builder.add(at, builder.mul(index, ir.Constant(I64, 4 * PARTS)))

    if groups == PARTS:
        return [load(builder, plane(X_SUMS), _FLOATS)]
    halves = plane(X_HALVES[0]), plane(X_HALVES[1])
    return [
        concatenate(
            builder,
            [load(builder, at_offset(builder, at, 16 * four), vector(F32, 4)) for at in halves],
        )
        for four in (0, 1)
    ]


# --- activations as floats


def _add_floats(
    builder: Any,
    form: Format,
    block: Any,
    rows: list[Any],
    index: Any,
    _parts: Any,
    totals: list[list[Any]],
) -> None:
    scales, minima = form.numbers(builder, block)
    first = builder.mul(index, ir.Constant(I64, 4 * 256))
    for part in range(PARTS):
        q = form.quants(builder, block, part)
        if form.levels:
            q = forms.lookup(builder, form.levels, q)
        for quarter, small in enumerate(_quarters(builder, q, signed=bool(form.levels))):
            scale, minimum = (
                _of_quarter(builder, numbers, part, quarter, form.groups) if numbers else None
                for numbers in (scales, minima)
            )
            if minimum is None:
                weight = builder.fmul(small, scale)
            else:
                weight = forms.fused_multiply_add(builder, small, scale, minimum)
            for x, variables in zip(rows, totals, strict=True):
                at = at_offset(builder, builder.add(x, first), 128 * part + 32 * quarter)
                add_product(
                    builder, variables[quarter % len(variables)], weight, load(builder, at, _FLOATS)
                )


def _quarters(builder: Any, q: Any, *, signed: bool) -> list[Any]:
    """32 bytes as four vectors of floats."""
    halves = [shuffle(builder, q, q, list(range(at, at + 16))) for at in (0, 16)]
    return [vector for half in halves for vector in floats_of(builder, half, signed=signed)]


def _of_quarter(builder: Any, numbers: list[Any], part: int, quarter: int, groups: int) -> Any:
    if groups == PARTS:
        return _of_part(builder, numbers, part, groups)
    lane = part % 4 + quarter // 2 * 4
    return shuffle(builder, numbers[part // 4], numbers[part // 4], [lane] * 8)


# --- for `matvec`


def _products(name: str, add: Any) -> Any:
    form = FORMATS[name]

    def body(
        builder: Any, block: Any, rows: list[Any], index: Any, blocks: Any, totals: list[list[Any]]
    ) -> None:
        add(builder, form, block, rows, index, blocks, totals)

    return dots.products(body, form.nbytes, per=PARTS, unrolled=False)


def of_bytes(name: str) -> Any:
    """Products of rows of that dtype with tokens as blocks of bytes, see `dots.products`."""
    return _products(name, _add_bytes)


def of_floats(name: str) -> Any:
    """The same with tokens as floats."""
    return _products(name, _add_floats)
