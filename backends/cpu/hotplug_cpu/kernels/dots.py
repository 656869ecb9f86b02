"""Dot products of a row of weights with a few tokens, written as LLVM code.

A row is read once for all tokens, in the order in which it lies in the file. What is done with a
piece of it is a *body*; here are those for blocks of 32 and for plain floats, `superblocks` has
the others. Products are instructions (row, x, bytes from token to token, pieces) -> f32x8 for each
token, whose elements are still to be added up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.types.containers import UniTuple

from hotplug_cpu.jit import forms, simd
from hotplug_cpu.jit.vectors import (
    F32,
    I8,
    I16,
    I32,
    I64,
    address,
    at_offset,
    broadcast,
    f32x8,
    instruction,
    load,
    shuffle,
    splat,
    vector,
)
from hotplug_cpu.kernels.legacy import BLOCK_BYTES, LEVELS, SIGNED, UNSIGNED, WITH_MINIMUM, ZERO
from hotplug_cpu.kernels.sizes import X_BLOCK, X_BYTES, X_SUM

__all__ = ["MOST", "Body", "add_product", "of_bytes", "of_floats", "of_plain", "products"]

MOST = 5
"""Tokens that are done together, at most."""

_AHEAD = 4096  # bytes: what is fetched while it comes from memory
_LINE = 64
_UNROLLED = 4
_FLOATS, _BYTES, _WORDS = vector(F32, 8), vector(I8, 32), vector(I32, 8)

Body: TypeAlias = Callable[[Any, Any, list[Any], Any, Any, list[list[Any]]], None]
"""Adds a piece to the totals: (builder, piece, rows of x, its index, pieces of a row, totals)."""


# --- the walk over a row


def products(
    body: Body,
    nbytes: int,
    *,
    per: int = 1,
    unrolled: bool = True,
    pairs: bool = False,
    ahead: int = _AHEAD,
) -> Any:
    """Instructions for 1 to MOST tokens, by their number.

    Args:
        body: what is done with a piece.
        nbytes: its length.
        per: how many of what the instructions count one piece is.
        unrolled: whether one token takes several pieces at once, each with totals of its own;
            otherwise the body has all four totals of the token.
        pairs: whether each total comes with a second one, f32x4, of which element 1 counts.
        ahead: how many bytes further on is what is fetched meanwhile; 0 leaves that to processors.
    """
    return {
        tokens: _product(body, (nbytes, per, ahead), tokens, unrolled and tokens == 1, pairs)
        for tokens in range(1, MOST + 1)
    }


def _product(
    body: Body, sizes: tuple[int, int, int], tokens: int, unrolled: bool, pairs: bool
) -> Any:
    nbytes, per, ahead = sizes
    each = _UNROLLED if tokens == 1 else 1
    step = _UNROLLED if unrolled else 1

    @instruction(UniTuple(f32x8, tokens), address, address, types.int64, types.int64)
    def product(builder: Any, row: Any, x: Any, stride: Any, count: Any) -> Any:
        totals = [_zeros(builder, each, 8) for _ in range(tokens)]
        seconds = [_zeros(builder, each if pairs else 0, 4) for _ in range(tokens)]
        rows = [builder.add(x, builder.mul(stride, ir.Constant(I64, n))) for n in range(tokens)]

        def take(index: Any, number: int | None) -> None:
            piece = builder.add(row, builder.mul(index, ir.Constant(I64, nbytes)))
            chosen = slice(None) if number is None else slice(number, number + 1)
            given = [a[chosen] + b[chosen] for a, b in zip(totals, seconds, strict=True)]
            body(builder, piece, rows, index, count, given)

        pieces = builder.udiv(count, ir.Constant(I64, per))
        rounds = builder.udiv(pieces, ir.Constant(I64, step))
        with cgutils.for_range(builder, rounds) as loop:
            first = builder.mul(loop.index, ir.Constant(I64, step))
            for number in range(step):
                index = builder.add(first, ir.Constant(I64, number))
                take(index, number if unrolled else None)
            # Last: LLVM counts from the address that comes first, and instructions with offsets of
            # more than a byte fill Zen 4's cache of them so fast that all took 1.4 times as long.
            here = builder.add(row, builder.mul(first, ir.Constant(I64, nbytes)))
            for line in range(0, step * nbytes if ahead else 0, _LINE):
                simd.prefetch_at(builder, at_offset(builder, here, ahead + line))
        if step > 1:
            first = builder.mul(rounds, ir.Constant(I64, step))
            with cgutils.for_range(builder, builder.sub(pieces, first)) as loop:
                take(builder.add(first, loop.index), 0)
        results = [_sum(builder, own) for own in totals]
        if pairs:
            rest = [_second_alone(builder, _sum(builder, own)) for own in seconds]
            results = [builder.fadd(a, b) for a, b in zip(results, rest, strict=True)]
        return cgutils.pack_array(builder, results)

    return product


def _zeros(builder: Any, count: int, lanes: int) -> list[Any]:
    """Variables; LLVM makes registers of them."""
    return [cgutils.alloca_once_value(builder, splat(0.0, F32, lanes)) for _ in range(count)]


def _second_alone(builder: Any, four: Any) -> Any:
    """Element 1 of four floats, and seven zeros."""
    return shuffle(builder, four, splat(0.0, F32, 4), [1, *[4] * 7])


def _sum(builder: Any, variables: list[Any]) -> Any:
    values = [builder.load(variable) for variable in variables]
    while len(values) > 1:
        values = [builder.fadd(a, b) for a, b in zip(values[::2], values[1::2], strict=True)]
    return values[0]


def add_product(builder: Any, total: Any, a: Any, b: Any) -> None:
    """Variable `total` + a * b."""
    builder.store(forms.fused_multiply_add(builder, a, b, builder.load(total)), total)


# --- blocks of 32, activations as bytes


def of_bytes(name: str) -> Any:
    """Products of blocks of that dtype with tokens as blocks of bytes."""
    nbytes = BLOCK_BYTES[name]
    if name in WITH_MINIMUM:
        return products(_with_minimum(name), nbytes, pairs=True)
    return products(_symmetric(name), nbytes)


def _x_block(builder: Any, x: Any, index: Any) -> Any:
    return builder.add(x, builder.mul(index, ir.Constant(I64, X_BLOCK)))


def _with_minimum(name: str) -> Body:
    """Weights are scale * q + minimum: products with scale and sum of a block of x side by side."""

    def body(
        builder: Any, block: Any, rows: list[Any], index: Any, _: Any, totals: list[list[Any]]
    ) -> None:
        q = UNSIGNED[name](builder, block)
        pair = _pair_of_halves(builder, block)
        for x, (total, minima) in zip(rows, totals, strict=True):
            at = _x_block(builder, x, index)
            factors = builder.fmul(pair, _pair_of_floats(builder, at))
            builder.store(builder.fadd(builder.load(minima), factors), minima)
            dots = forms.dot_u7(builder, q, load(builder, at_offset(builder, at, X_BYTES), _BYTES))
            scale = shuffle(builder, factors, factors, [0] * 8)
            add_product(builder, total, builder.sitofp(dots, _FLOATS), scale)

    return body


def _pair_of_halves(builder: Any, at: Any) -> Any:
    """Two f16 as f32x4; the other elements are zero."""
    both = builder.insert_element(splat(0, I32, 4), load(builder, at, I32), ir.Constant(I32, 0))
    floats = forms.half_to_float(builder, builder.bitcast(both, vector(I16, 8)))
    return shuffle(builder, floats, floats, [0, 1, 2, 3])


def _pair_of_floats(builder: Any, at: Any) -> Any:
    """Two f32 as f32x4; the other elements are undefined."""
    pair = load(builder, at, vector(F32, 2))
    return shuffle(builder, pair, pair, [0, 1, 0, 1])


def _symmetric(name: str) -> Body:
    """Weights are scale * (q - zero): sums of products start with what zero makes of the x."""
    signed = name in SIGNED
    quants = SIGNED[name] if signed else UNSIGNED[name]
    # An eighth of it, for each of eight sums.
    zero = ir.Constant(I32, -((forms.WIDE_OFFSET if signed else ZERO[name]) // 8))
    add_dots = forms.add_dots_i8 if signed else forms.add_dots

    def body(
        builder: Any, block: Any, rows: list[Any], index: Any, _: Any, totals: list[list[Any]]
    ) -> None:
        q, step = quants(builder, block), _half(builder, block)
        for x, (total,) in zip(rows, totals, strict=True):
            at = _x_block(builder, x, index)
            start = builder.mul(load(builder, at_offset(builder, at, X_SUM), I32), zero)
            numbers = load(builder, at_offset(builder, at, X_BYTES), _BYTES)
            dots = add_dots(builder, broadcast(builder, start, 8), q, numbers)
            scale = broadcast(builder, builder.fmul(step, load(builder, at, F32)), 8)
            add_product(builder, total, builder.sitofp(dots, _FLOATS), scale)

    return body


def _half(builder: Any, at: Any) -> Any:
    """One f16 as f32."""
    first = ir.Constant(I32, 0)
    wide = builder.insert_element(splat(0, I16, 8), load(builder, at, I16), first)
    return builder.extract_element(forms.half_to_float(builder, wide), first)


# --- activations as floats


def of_floats(name: str) -> Any:
    """Products of blocks of that dtype with tokens as floats."""
    quants, signed = UNSIGNED.get(name), False
    if quants is None:
        quants, signed = LEVELS[name], True

    def body(
        builder: Any, block: Any, rows: list[Any], index: Any, _: Any, totals: list[list[Any]]
    ) -> None:
        q = quants(builder, block)
        scale = broadcast(builder, _half(builder, block), 8)
        if name in WITH_MINIMUM:
            minimum = broadcast(builder, _half(builder, at_offset(builder, block, 2)), 8)
        else:
            minimum = builder.fmul(scale, splat(float(-ZERO[name]), F32, 8))
        for quarter in range(4):
            small = shuffle(builder, q, q, list(range(8 * quarter, 8 * quarter + 8)))
            widened = (builder.sext if signed else builder.zext)(small, _WORDS)
            value = builder.sitofp(widened, _FLOATS)
            weight = forms.fused_multiply_add(builder, value, scale, minimum)
            for x, (total,) in zip(rows, totals, strict=True):
                at = builder.add(x, builder.mul(index, ir.Constant(I64, 128)))
                values = load(builder, at_offset(builder, at, 32 * quarter), _FLOATS)
                add_product(builder, total, weight, values)

    return products(body, BLOCK_BYTES[name])


def of_plain(nbytes: int, load_eight: Callable[[Any, Any], Any]) -> Any:
    """Products of floats with tokens as floats, eight at a time."""

    def body(
        builder: Any, piece: Any, rows: list[Any], index: Any, _: Any, totals: list[list[Any]]
    ) -> None:
        weight = load_eight(builder, piece)
        for x, (total,) in zip(rows, totals, strict=True):
            at = builder.add(x, builder.mul(index, ir.Constant(I64, 32)))
            add_product(builder, total, weight, load(builder, at, _FLOATS))

    # So little is done with a line that fetching it costs more than it gains, a tenth on Zen 4.
    return products(body, nbytes, ahead=0)
