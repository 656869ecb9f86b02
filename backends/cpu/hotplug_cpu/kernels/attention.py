"""Scaled dot-product attention over a cache, for many queries.

Online softmax over blocks of keys (FlashAttention-2, arXiv 2307.08691), with the micro-kernel of
wide products for both of its products. The query rows of a key head, one per token and query head,
stand together, so that a block of keys is laid out once for all of them. Threads share these rows.

Arguments, one row of a plan:

    q, q_stride         f32 (T, heads, width), bytes from one token to the next
    k, k_stride         (rows, kv_heads, width), bytes from one row to the next; f16 or f32 by name
    v, v_stride         (rows, kv_heads, value_width), the same
    positions           i32 (T), negative for padding, whose result is zeros; 0: rows - T + t
    sinks               f32 (heads), scores that take part in the softmax only; 0: none
    out, out_stride     f32 (T, heads, value_width), bytes from one token to the next
    tokens heads kv_heads width value_width rows
                        T, H, Hkv, D, Dv, C; widths are multiples of 8, heads of kv_heads
    scale softcap       bits of f32 in the low half of the word; softcap 0 for none
    window              how many rows a query sees at most; 0 for all
    causal              whether a query sees only rows up to its position
    scratch             `panels.attention_scratch(D, Dv)` bytes for each thread
    scratch_stride      bytes from one thread's to the next
"""

from __future__ import annotations

from typing import Any

from numba import float32

from hotplug_cpu.jit import simd
from hotplug_cpu.kernels.layouts import store_transposed
from hotplug_cpu.kernels.panels import KEYS, QUERIES, ROWS, TOKENS
from hotplug_cpu.kernels.shares import next_unit
from hotplug_cpu.kernels.softmax import (
    NOTHING,
    ZERO,
    exp_f32,
    scale_row,
    softmax_step,
    visible,
)
from hotplug_cpu.kernels.tiles import multiply_add_f32, multiply_f32

__all__ = ["KERNELS"]

_inline = simd.inline
_PAIR = 2 * ROWS
_UNITS = 4  # shares of work per thread, at least
_SCORES = 4 * KEYS
_ONE = float32(1.0)


@_inline
def _pack_queries(
    q: int,
    stride: int,
    head: int,
    group: int,
    rows: tuple[int, int],
    width: int,
    scale: float,
    target: int,
) -> None:
    """Query rows first to first + count, scaled, as f32[tile][width][TOKENS]."""
    first, count = rows
    for row in range(count):
        token, member = (first + row) // group, (first + row) % group
        source = q + token * stride + 4 * width * (head * group + member)
        at = target + 4 * (row // TOKENS * TOKENS * width + row % TOKENS)
        for column in range(width):
            simd.store_f32(at + 4 * TOKENS * column, simd.load_f32(source + 4 * column) * scale)


@_inline
def _weights_of_keys(scores: int, keys: int, weights: int) -> None:
    """Scores f32[TOKENS][KEYS] as f32[keys][8], for the second product."""
    for key in range(0, 4 * keys, 32):
        at = scores + key
        last = simd.load_f32x8(at + 5 * _SCORES)
        rows = (
            simd.load_f32x8(at),
            simd.load_f32x8(at + _SCORES),
            simd.load_f32x8(at + 2 * _SCORES),
            simd.load_f32x8(at + 3 * _SCORES),
            simd.load_f32x8(at + 4 * _SCORES),
            last,
            last,
            last,
        )
        store_transposed(weights + 8 * key, 32, rows)


@_inline
def _finish(
    at: int, values: int, width: int, sinks: int, head: int, state: tuple[int, int]
) -> None:
    """One row of the result: values divided by the sum of the weights."""
    largest, total = simd.load_f32(state[0]), simd.load_f32(state[1])
    factor = _ONE
    if sinks != 0 and largest > NOTHING:
        sink = simd.load_f32(sinks + 4 * head)
        top = max(largest, sink)
        factor = exp_f32(largest - top)
        total = total * factor + exp_f32(sink - top)
    by = simd.splat_f32(factor / total if total != ZERO else ZERO)  # NaN stays
    for column in range(0, 4 * width, 32):
        simd.store_f32x8(at + column, simd.load_f32x8(values + column) * by)


@_inline
def _range(view: tuple[int, ...], first: int, last: int) -> tuple[int, int]:
    """Rows of the cache that any of some tokens sees."""
    low, high = view[2], 0
    for token in range(first, last + 1):
        begin, end = visible(view, token)
        if end > begin:
            low, high = min(low, begin), max(high, end)
    return low, high


@_inline
def _clear(places: tuple[int, ...], count: int, padded: int) -> None:
    _, results, _, _, _, _, largest, totals = places
    for row in range(count):
        simd.store_f32(largest + 4 * row, NOTHING)
        simd.store_f32(totals + 4 * row, ZERO)
    for at in range(0, 4 * count * padded, 32):
        simd.store_f32x8(results + at, simd.zero())


@_inline
def _attend(
    places: tuple[int, ...],
    view: tuple[int, ...],
    tile: tuple[int, int, int, int],
    block: tuple[int, int],
    sizes: tuple[int, int],
    softcap: float,
) -> None:
    """One tile of query rows sees one block of keys.

    Args:
        places: where things lie in scratch memory.
        view: see `visible`.
        tile: (first query row of the unit, first and number of the tile's rows in it, query rows
            of a token).
        block: (first row of the cache, number of rows).
        sizes: width of keys, padded width of values.
        softcap: 0 for none.
    """
    queries, results, keys_at, values_at, scores, weights, largest, totals = places
    first, begin_row, count, group = tile
    start, keys = block
    width, padded = sizes
    begin, end = _range(
        view, (first + begin_row) // group, (first + begin_row + count - 1) // group
    )
    seen = min(keys, end - start)
    if seen <= 0 or begin >= start + keys:
        return
    for pair in range(0, seen, _PAIR):
        multiply_f32(
            keys_at + 4 * pair * width,
            4 * _PAIR,
            queries + 4 * begin_row * width,
            4 * TOKENS,
            width,
            scores + 4 * pair,
            _SCORES,
        )
    for lane in range(count):
        row = begin_row + lane
        begin, end = visible(view, (first + row) // group)
        state = (largest + 4 * row, totals + 4 * row)
        factor = softmax_step(scores + lane * _SCORES, begin - start, end - start, softcap, state)
        if factor != _ONE:
            scale_row(results + 4 * row * padded, padded, factor)
    _weights_of_keys(scores, seen, weights)
    for column in range(0, padded, _PAIR):
        multiply_add_f32(
            values_at + 4 * column,
            4 * padded,
            weights,
            32,
            seen,
            results + 4 * (begin_row * padded + column),
            4 * padded,
        )


@_inline
def _unit_rows(query_rows: int, kv_heads: int, threads: int) -> int:
    """Query rows of a key head that are one unit of work: so many that no thread stays idle."""
    shares = (_UNITS * threads + kv_heads - 1) // kv_heads
    share = (query_rows + shares - 1) // shares
    return min(QUERIES, (share + TOKENS - 1) // TOKENS * TOKENS)


def _pack_keys(size: int, load: Any) -> Any:
    """Laying out keys, for one kind of elements."""

    @_inline
    def pack_keys(source: int, stride: int, keys: int, width: int, target: int) -> None:
        """Rows of keys as panels f32[keys / PAIR][width][PAIR]."""
        last = keys - 1
        for first in range(0, keys, _PAIR):
            for half in range(first, first + _PAIR, ROWS):
                at_half = target + 4 * (half - first)
                a0 = source + min(half, last) * stride
                a1 = source + min(half + 1, last) * stride
                a2 = source + min(half + 2, last) * stride
                a3 = source + min(half + 3, last) * stride
                a4 = source + min(half + 4, last) * stride
                a5 = source + min(half + 5, last) * stride
                a6 = source + min(half + 6, last) * stride
                a7 = source + min(half + 7, last) * stride
                for at in range(0, width * size, 8 * size):
                    rows = (
                        load(a0 + at),
                        load(a1 + at),
                        load(a2 + at),
                        load(a3 + at),
                        load(a4 + at),
                        load(a5 + at),
                        load(a6 + at),
                        load(a7 + at),
                    )
                    store_transposed(at_half, 4 * _PAIR, rows)
                    at_half += 4 * 8 * _PAIR
            target += 4 * _PAIR * width

    return pack_keys


def _copy_values(size: int, load: Any) -> Any:
    """Making floats of values, for one kind of elements."""

    @_inline
    def copy_values(
        source: int, stride: int, keys: int, width: int, target: int, padded: int
    ) -> None:
        """Rows of values as f32[keys][padded]."""
        for key in range(keys):
            for column in range(0, width, 8):
                value = load(source + key * stride + column * size)
                simd.store_f32x8(target + 4 * (key * padded + column), value)

    return copy_values


def _attention(size: int, load: Any) -> Any:
    """A kernel for caches of elements of `size` bytes, of which `load` makes 8 floats."""
    pack_keys, copy_values = _pack_keys(size, load), _copy_values(size, load)

    @_inline
    def attention(
        thread: int,
        threads: int,
        counter: int,
        q: int,
        q_stride: int,
        k: int,
        k_stride: int,
        v: int,
        v_stride: int,
        positions: int,
        sinks: int,
        out: int,
        out_stride: int,
        tokens: int,
        heads: int,
        kv_heads: int,
        width: int,
        value_width: int,
        rows: int,
        scale: int,
        softcap: int,
        window: int,
        causal: int,
        scratch: int,
        scratch_stride: int,
    ) -> None:
        group = heads // kv_heads
        padded = (value_width + _PAIR - 1) // _PAIR * _PAIR
        view = (positions, tokens, rows, causal, window)
        # Where things lie in scratch memory.
        queries = scratch + thread * scratch_stride
        results = queries + 4 * QUERIES * width
        keys_at = results + 4 * QUERIES * padded
        values_at = keys_at + 4 * KEYS * width
        scores = values_at + 4 * KEYS * padded
        weights = scores + _SCORES * TOKENS
        largest = weights + 8 * _SCORES
        totals = largest + 4 * QUERIES
        places = (queries, results, keys_at, values_at, scores, weights, largest, totals)
        unit_rows = _unit_rows(tokens * group, kv_heads, threads)
        units = (tokens * group + unit_rows - 1) // unit_rows * kv_heads
        taken = next_unit(counter, units, threads)
        while taken < units:
            unit = units - 1 - taken  # later tokens see more: the longest first
            head = unit % kv_heads
            first = unit // kv_heads * unit_rows
            count = min(unit_rows, tokens * group - first)
            span = (first, count)
            _pack_queries(q, q_stride, head, group, span, width, simd.float_of(scale), queries)
            _clear(places, count, padded)
            low, high = _range(view, first // group, (first + count - 1) // group)
            k_at, v_at = k + head * width * size, v + head * value_width * size
            for start in range(low, high, KEYS):
                keys = min(KEYS, high - start)
                pack_keys(k_at + start * k_stride, k_stride, keys, width, keys_at)
                source = v_at + start * v_stride
                copy_values(source, v_stride, keys, value_width, values_at, padded)
                for row in range(0, count, TOKENS):
                    tile = (first, row, min(TOKENS, count - row), group)
                    _attend(
                        places, view, tile, (start, keys), (width, padded), simd.float_of(softcap)
                    )
            for row in range(count):
                query_head = head * group + (first + row) % group
                _finish(
                    out + (first + row) // group * out_stride + 4 * value_width * query_head,
                    results + 4 * row * padded,
                    value_width,
                    sinks,
                    query_head,
                    (largest + 4 * row, totals + 4 * row),
                )
            taken = next_unit(counter, units, threads)

    return attention


KERNELS = {
    "attention_f16": _attention(2, simd.load_f16x8),
    "attention_f32": _attention(4, simd.load_f32x8),
}
