"""Micro-kernels, written as LLVM code: TOKENS tokens times two panels of ROWS rows.

Those named _pair do two tokens. They keep all sums in registers, or where there are too few of
those in what LLVM makes of them. Layouts: see `panels`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from hotplug_cpu.jit import forms
from hotplug_cpu.jit.forms import LANES
from hotplug_cpu.jit.vectors import (
    F32,
    I8,
    I16,
    I32,
    I64,
    address,
    at_offset,
    broadcast,
    instruction,
    load,
    rolled,
    shuffle,
    splat,
    store,
    vector,
)
from hotplug_cpu.kernels.matrices import dots_of_matrices
from hotplug_cpu.kernels.panels import (
    BLOCK,
    HALVES_BLOCK,
    HALVES_HEAD,
    PANEL_BLOCK,
    PANEL_HEAD,
    ROWS,
    TILE_BLOCK,
    TILE_HEAD,
    TOKENS,
)

__all__ = [
    "multiply_add_f32",
    "multiply_f32",
    "multiply_halves",
    "multiply_i8",
    "multiply_u4",
    "multiply_u5",
]

_STEPS = BLOCK // 4
_PANELS = (0, 1)
_WORDS = vector(I32, 8)
_FLOATS = vector(F32, 8)
_BYTES = vector(I8, 32)


def _constant(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


def _sums(builder: Any, tokens: int) -> list[list[Any]]:
    """One variable per token and panel, zero; LLVM makes registers of them."""
    zero = splat(0.0, F32, 8)
    return [[cgutils.alloca_once_value(builder, zero) for _ in _PANELS] for _ in range(tokens)]


def _store_sums(builder: Any, sums: list[list[Any]], result: Any) -> None:
    for token, row in enumerate(sums):
        for panel, variable in enumerate(row):
            place = at_offset(builder, result, 4 * ROWS * (2 * token + panel))
            store(builder, place, builder.load(variable))


# --- integers


def _dots_wide(builder: Any, panels: list[Any], tile: Any, tokens: int) -> list[list[Any]]:
    """Bytes of any size: every product goes straight into 32 bits."""
    if forms.MULTIPLIES_MATRICES:
        return dots_of_matrices(builder, panels, tile, tokens)
    dots = [[splat(0, I32, 8) for _ in _PANELS] for _ in range(tokens)]
    for step in range(_STEPS):
        weights = [_panel_bytes(builder, panel, step) for panel in panels]
        for token in range(tokens):
            x = _tile_bytes(builder, tile, step, token)
            for panel in _PANELS:
                dots[token][panel] = forms.add_dots_i8(
                    builder, dots[token][panel], weights[panel], x
                )
    return dots


def _dots_narrow(
    builder: Any, panels: list[Any], tile: Any, tokens: int, steps: int
) -> list[list[Any]]:
    """Bytes so small that `steps` sums of two products fit into 16 bits."""
    if forms.MULTIPLIES_MATRICES:
        return dots_of_matrices(builder, panels, tile, tokens)
    if not forms.SUMS_PAIRS:
        return _dots_plain(builder, panels, tile, tokens)
    dots = [[splat(0, I32, 8) for _ in _PANELS] for _ in range(tokens)]
    for first in range(0, _STEPS, steps):
        pairs = _pairs(builder, panels, tile, tokens, (first, steps))
        for own, variables in zip(dots, pairs, strict=True):
            for panel, variable in enumerate(variables):
                words = forms.sum_pairs(builder, builder.load(variable))
                own[panel] = builder.add(own[panel], words)
    return dots


def _pairs(
    builder: Any, panels: list[Any], tile: Any, tokens: int, steps: tuple[int, int]
) -> list[list[Any]]:
    """Variables with sums of some steps, given by the first and their number, in 16 bits."""
    first, count = steps
    none = splat(0, I16, 16)
    sums = [[cgutils.alloca_once_value(builder, none) for _ in panels] for _ in range(tokens)]
    with rolled(builder, count, tile) as index:
        step = builder.add(index, _constant(first))
        moved = builder.mul(step, _constant(4 * ROWS))
        weights = [_panel_bytes(builder, builder.add(panel, moved), 0) for panel in panels]
        here = builder.add(tile, builder.mul(step, _constant(4 * TOKENS)))
        for token, variables in enumerate(sums):
            x = _tile_bytes(builder, here, 0, token)
            for weight, variable in zip(weights, variables, strict=True):
                product = forms.pairs_u7(builder, weight, x)
                builder.store(builder.add(builder.load(variable), product), variable)
    return sums


def _dots_plain(builder: Any, panels: list[Any], tile: Any, tokens: int) -> list[list[Any]]:
    dots = [[splat(0, I32, 8) for _ in _PANELS] for _ in range(tokens)]
    for step in range(_STEPS):
        weights = [_panel_bytes(builder, panel, step) for panel in panels]
        _add_dots(builder, dots, weights, tile, step)
    return dots


def _dots_half(
    builder: Any, panels: list[Any], tile: Any, tokens: int, half: int
) -> list[list[Any]]:
    """Bytes 0..63, and of a block with `HALVES_HEAD` one half."""
    if forms.MULTIPLIES_MATRICES:
        return dots_of_matrices(builder, panels, tile, tokens, HALVES_HEAD, half)
    dots = [[splat(0, I32, 8) for _ in _PANELS] for _ in range(tokens)]
    for step in range(half * _STEPS // 2, (half + 1) * _STEPS // 2):
        weights = [_panel_bytes(builder, panel, step, HALVES_HEAD) for panel in panels]
        _add_dots(builder, dots, weights, tile, step)
    return dots


def _add_dots(
    builder: Any, dots: list[list[Any]], weights: list[Any], tile: Any, step: int
) -> None:
    for token in range(len(dots)):
        x = _tile_bytes(builder, tile, step, token)
        for panel in _PANELS:
            dots[token][panel] = forms.add_dots(builder, dots[token][panel], weights[panel], x)


def _panel_bytes(builder: Any, panel: Any, step: int, head: int = PANEL_HEAD) -> Any:
    return load(builder, at_offset(builder, panel, head + 4 * ROWS * step), _BYTES)


def _tile_bytes(builder: Any, tile: Any, step: int, token: int) -> Any:
    if forms.BY_ELEMENT:
        several = min(4, TOKENS - token // 4 * 4)
        place = TILE_HEAD + 4 * (TOKENS * step + token // 4 * 4)
        words = load(builder, at_offset(builder, tile, place), vector(I32, several))
        return builder.bitcast(shuffle(builder, words, words, [token % 4] * 8), _BYTES)
    word = load(builder, at_offset(builder, tile, TILE_HEAD + 4 * (TOKENS * step + token)), I32)
    return builder.bitcast(broadcast(builder, word, 8), _BYTES)


def _add_block(
    builder: Any,
    sums: list[list[Any]],
    dots: list[list[Any]],
    at: tuple[Any, int, list[Any], tuple[int, int]],
) -> None:
    """Sums + scale * scale * dots + offset * sum of the tile's block.

    `at` are a tile, the number of its first such sum, panels, and which of the vectors that they
    begin with are scale and offset.
    """
    tile, sum_at, panels, places = at
    scales, offsets = (
        [load(builder, at_offset(builder, panel, 4 * ROWS * place), _FLOATS) for panel in panels]
        for place in places
    )
    for token in range(len(dots)):
        scale = broadcast(builder, load(builder, at_offset(builder, tile, 4 * token), F32), 8)
        total = load(builder, at_offset(builder, tile, 4 * (sum_at + token)), F32)
        total = broadcast(builder, total, 8)
        for panel in _PANELS:
            value = builder.sitofp(dots[token][panel], _FLOATS)
            value = builder.fmul(value, scales[panel])
            before = builder.load(sums[token][panel])
            before = forms.fused_multiply_add(builder, offsets[panel], total, before)
            after = forms.fused_multiply_add(builder, value, scale, before)
            builder.store(after, sums[token][panel])


Dots = Callable[[Any, list[Any], Any, int], list[list[Any]]]


def _multiply(name: str, dots: Dots, tokens: int = TOKENS) -> Any:
    @instruction(types.none, address, address, address, types.int64, address)
    def multiply(
        builder: Any, first: Any, second: Any, tile: Any, blocks: Any, result: Any
    ) -> None:
        """Products of tokens and two panels over some blocks: f32[tokens][2 * ROWS] at `result`."""
        sums = _sums(builder, tokens)
        with cgutils.for_range(builder, blocks) as loop:
            block = builder.mul(loop.index, _constant(PANEL_BLOCK))
            panels = [builder.add(panel, block) for panel in (first, second)]
            here = builder.add(tile, builder.mul(loop.index, _constant(TILE_BLOCK)))
            at = here, TOKENS, panels, (0, 1)
            _add_block(builder, sums, dots(builder, panels, here, tokens), at)
        _store_sums(builder, sums, result)

    multiply.__name__ = name
    return multiply


def _dots_u4(builder: Any, panels: list[Any], tile: Any, tokens: int) -> list[list[Any]]:
    return _dots_narrow(builder, panels, tile, tokens, 8)


def _dots_u5(builder: Any, panels: list[Any], tile: Any, tokens: int) -> list[list[Any]]:
    return _dots_narrow(builder, panels, tile, tokens, 4)


def _multiply_halves(name: str, tokens: int = TOKENS) -> Any:
    @instruction(types.none, address, address, address, types.int64, address)
    def multiply(
        builder: Any, first: Any, second: Any, tile: Any, blocks: Any, result: Any
    ) -> None:
        """The same with panels whose halves have scales and offsets of their own.

        Offsets stand after both scales. The bytes are 0..63.
        """
        sums = _sums(builder, tokens)
        with cgutils.for_range(builder, blocks) as loop:
            block = builder.mul(loop.index, _constant(HALVES_BLOCK))
            panels = [builder.add(panel, block) for panel in (first, second)]
            here = builder.add(tile, builder.mul(loop.index, _constant(TILE_BLOCK)))
            for half in (0, 1):
                dots = _dots_half(builder, panels, here, tokens, half)
                at = here, (2 + half) * TOKENS, panels, (half, 2 + half)
                _add_block(builder, sums, dots, at)
        _store_sums(builder, sums, result)

    multiply.__name__ = name
    return multiply


multiply_u4 = _multiply("multiply_u4", _dots_u4), _multiply("multiply_u4_pair", _dots_u4, 2)
multiply_u5 = _multiply("multiply_u5", _dots_u5), _multiply("multiply_u5_pair", _dots_u5, 2)
multiply_i8 = _multiply("multiply_i8", _dots_wide), _multiply("multiply_i8_pair", _dots_wide, 2)
multiply_halves = _multiply_halves("multiply_halves"), _multiply_halves("multiply_halves_pair", 2)
"""For all tokens of a tile, and for its first two."""


# --- floats

_WIDE = vector(F32, LANES)
_VECTORS = range(0, 2 * ROWS, LANES)


def _multiply_floats(name: str, *, adds: bool) -> Any:
    @instruction(types.none, *(types.int64,) * 7)
    def multiply(
        builder: Any,
        panel: Any,
        stride: Any,
        tile: Any,
        tile_stride: Any,
        count: Any,
        result: Any,
        result_stride: Any,
    ) -> None:
        """Products of TOKENS tokens and 2 * ROWS rows of floats beside each other, at `result`.

        `stride` and `tile_stride` are bytes from one step of the contraction to the next, of which
        there are `count`; `result_stride` from one token to the next. `multiply_add_f32` adds to
        what is there.
        """
        rows = [
            builder.add(result, builder.mul(result_stride, _constant(token)))
            for token in range(TOKENS)
        ]
        places = [[at_offset(builder, row, 4 * first) for first in _VECTORS] for row in rows]
        zero = splat(0.0, F32, LANES)
        sums = [[cgutils.alloca_once_value(builder, zero) for _ in row] for row in places]
        each = [pair for own in zip(places, sums, strict=True) for pair in zip(*own, strict=True)]
        if adds:
            for place, variable in each:
                builder.store(load(builder, place, _WIDE), variable)
        with cgutils.for_range(builder, count) as loop:
            step = builder.add(panel, builder.mul(loop.index, stride))
            weights = [load(builder, at_offset(builder, step, 4 * n), _WIDE) for n in _VECTORS]
            here = builder.add(tile, builder.mul(loop.index, tile_stride))
            for token, variables in enumerate(sums):
                x = load(builder, at_offset(builder, here, 4 * token), F32)
                x = broadcast(builder, x, LANES)
                for weight, variable in zip(weights, variables, strict=True):
                    before = builder.load(variable)
                    after = forms.fused_multiply_add(builder, weight, x, before)
                    builder.store(after, variable)
        for place, variable in each:
            store(builder, place, builder.load(variable))

    multiply.__name__ = name
    return multiply


multiply_f32 = _multiply_floats("multiply_f32", adds=False)
multiply_add_f32 = _multiply_floats("multiply_add_f32", adds=True)
