"""Scaled dot-product attention over a cache, for few queries.

The rows that a token sees are divided into `splits`, so that all threads have work even where
there are few heads (FlashDecoding). Two rows of a plan: `attention_split_*` leaves a partial result
for every token, head and split; `attention_combine` makes results of them.

The arguments are those of `attention`, and further

    splits      parts of the context, at least 1; as many for all threads are shared evenly
    partials    `panels.attention_partials(T, H, splits, Dv)` bytes, between the two rows

A partial result is its largest score, the sum of its weights, and after PARTIAL_HEAD bytes the
weighted sum of values. One of a split that no row is in has the largest score -inf and no values.
"""

from __future__ import annotations

from typing import Any

from numba import float32

from hotplug_cpu.jit import simd
from hotplug_cpu.kernels.members import add_values, prefetch_lines, scores_of
from hotplug_cpu.kernels.panels import KEYS, PARTIAL_HEAD
from hotplug_cpu.kernels.shares import next_unit
from hotplug_cpu.kernels.softmax import (
    NOTHING,
    ZERO,
    exp_f32,
    scale_row,
    softmax_step,
    visible,
)

__all__ = ["KERNELS"]

_inline = simd.inline
_ONE = float32(1.0)
_ROWS = 8  # of the cache that are read at once; two such groups stay in half of an L1 cache


@_inline
def _add_row(source: int, weight: float, target: int, width: int) -> None:
    by = simd.splat_f32(weight)
    for column in range(0, 4 * width, 32):
        value = simd.fma(simd.load_f32x8(source + column), by, simd.load_f32x8(target + column))
        simd.store_f32x8(target + column, value)


@_inline
def attention_combine(
    thread: int,
    threads: int,
    partials: int,
    sinks: int,
    out: int,
    out_stride: int,
    tokens: int,
    heads: int,
    value_width: int,
    splits: int,
) -> None:
    """Partial results of all splits as the result of each token and head."""
    size = PARTIAL_HEAD + 4 * value_width
    stride = heads * size  # from one split to the next
    count = tokens * heads
    for number in range(count * thread // threads, count * (thread + 1) // threads):
        token, head = number // heads, number % heads
        first = partials + (token * splits * heads + head) * size
        at = out + token * out_stride + 4 * head * value_width
        for column in range(0, 4 * value_width, 32):
            simd.store_f32x8(at + column, simd.zero())
        largest, total = NOTHING, ZERO
        for split in range(splits):
            partial = first + split * stride
            largest = max(largest, simd.load_f32(partial))
            total += simd.load_f32(partial + 4)
        if total == ZERO:  # and not NaN
            continue
        total = ZERO
        if sinks != 0:
            sink = simd.load_f32(sinks + 4 * head)
            largest = max(largest, sink)
            total = exp_f32(sink - largest)
        for split in range(splits):
            partial = first + split * stride
            part = simd.load_f32(partial + 4)
            if part != ZERO:
                weight = exp_f32(simd.load_f32(partial) - largest)
                total += part * weight
                _add_row(partial + PARTIAL_HEAD, weight, at, value_width)
        scale_row(at, value_width, _ONE / total)


@_inline
def _clear(partial: int, value_width: int) -> None:
    simd.store_f32(partial, NOTHING)
    simd.store_f32(partial + 4, ZERO)
    for column in range(0, 4 * value_width, 32):
        simd.store_f32x8(partial + PARTIAL_HEAD + column, simd.zero())


@_inline
def _scale(source: int, factor: float, count: int, target: int) -> None:
    by = simd.splat_f32(factor)
    for at in range(0, 4 * count, 32):
        simd.store_f32x8(target + at, simd.load_f32x8(source + at) * by)


def _for_members(make: Any, size: int, load_row: Any) -> Any:
    """What `make` makes for one, two and three members, as a function for all of a key head."""
    one, two, three = (make(members, size, load_row) for members in (1, 2, 3))

    @_inline
    def each(
        group: int, own: int, own_stride: int, row: int, stride: int, rows: int, width: int,
        result: int, result_stride: int,
    ) -> None:  # fmt: skip
        member = 0
        while member < group:
            left = group - member
            mine, there = own + member * own_stride, result + member * result_stride
            if left == 1:
                one(mine, own_stride, row, stride, rows, width, there, result_stride)
                member += 1
            elif left == 2 or left == 4:
                two(mine, own_stride, row, stride, rows, width, there, result_stride)
                member += 2
            else:
                three(mine, own_stride, row, stride, rows, width, there, result_stride)
                member += 3

    return each


@_inline
def _coming(key: int, row: int, stride: int, after: tuple[int, int]) -> tuple[int, int]:
    """Where the group of rows after this one lies, and the bytes of a row.

    Heads read pieces of rows, which no prefetcher foresees: while a group is computed with, the
    next one is fetched, line after line. Behind a block's last group comes the first of `after`.
    """
    if key + _ROWS < KEYS:
        return row + _ROWS * stride, stride
    return after


def _scores(size: int, load_row: Any) -> Any:
    """Scores of a block of keys, for one kind of elements."""
    score = _for_members(scores_of, size, load_row)

    @_inline
    def score_block(
        query: int, k: int, stride: int, keys: int, shape: tuple[int, int, int], scores: int,
        after: tuple[int, int],
    ) -> None:  # fmt: skip
        """Scores of all heads for a block of keys, as f32[heads][KEYS].

        `shape` is the number of key heads, of query heads of each, and their width; `after` is what
        is read next, as address and bytes of a row.
        """
        kv_heads, group, width = shape
        for key in range(0, keys, _ROWS):
            row, here = k + key * stride, min(_ROWS, keys - key)
            coming, nbytes = _coming(key, row, stride, after)
            share = _ROWS * min(nbytes, kv_heads * width * size) // kv_heads
            for head in range(kv_heads):
                prefetch_lines(coming + head * share, share)
                score(
                    group, query + 4 * width * group * head, 4 * width,
                    row + head * width * size, stride, here, width,
                    scores + 4 * (KEYS * group * head + key), 4 * KEYS,
                )  # fmt: skip

    return score_block


def _values(size: int, load_row: Any) -> Any:
    """Sums of a block of values, for one kind of elements."""
    add = _for_members(add_values, size, load_row)

    @_inline
    def add_block(
        weights: int, v: int, stride: int, keys: int, shape: tuple[int, int, int],
        result: int, result_stride: int, after: tuple[int, int],
    ) -> None:  # fmt: skip
        """Add a block of values, times weights f32[heads][KEYS], to the results of all heads."""
        kv_heads, group, width = shape
        for key in range(0, keys, _ROWS):
            row, here = v + key * stride, min(_ROWS, keys - key)
            coming, nbytes = _coming(key, row, stride, after)
            share = _ROWS * min(nbytes, kv_heads * width * size) // kv_heads
            for head in range(kv_heads):
                prefetch_lines(coming + head * share, share)
                first = head * group
                add(
                    group, weights + 4 * (KEYS * first + key), 4 * KEYS,
                    row + head * width * size, stride, here, width,
                    result + first * result_stride, result_stride,
                )  # fmt: skip

    return add_block


def _split(size: int, load_row: Any) -> Any:
    """A kernel for caches of elements of `size` bytes, which `load_row` loads as floats."""
    score_block, add_block = _scores(size, load_row), _values(size, load_row)

    @_inline
    def attention_split(
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
        splits: int,
        partials: int,
        scratch: int,
        scratch_stride: int,
    ) -> None:
        group = heads // kv_heads
        partial_stride = PARTIAL_HEAD + 4 * value_width
        scores = scratch + thread * scratch_stride
        query = scores + 4 * KEYS * heads
        cap = simd.float_of(softcap)
        view = (positions, tokens, rows, causal, window)
        units = tokens * splits
        unit = next_unit(counter, units, threads)
        while unit < units:
            split, token = unit % splits, unit // splits
            low, high = visible(view, token)
            share = ((high - low + splits - 1) // splits + 7) // 8 * 8
            begin = low + split * share
            end = min(high, begin + share)
            result = partials + (token * splits + split) * heads * partial_stride
            _scale(q + token * q_stride, simd.float_of(scale), heads * width, query)
            for head in range(heads):
                _clear(result + head * partial_stride, value_width)
            for start in range(begin, end, KEYS):
                keys = min(KEYS, end - start)
                shape = (kv_heads, group, width)
                values = v + start * v_stride
                after = (values, v_stride)
                score_block(query, k + start * k_stride, k_stride, keys, shape, scores, after)
                for head in range(heads):
                    at = result + head * partial_stride
                    state = (at, at + 4)
                    factor = softmax_step(scores + 4 * KEYS * head, 0, keys, cap, state)
                    if factor != _ONE:
                        scale_row(at + PARTIAL_HEAD, value_width, factor)
                shape = (kv_heads, group, value_width)
                at = result + PARTIAL_HEAD
                after = (k + (start + KEYS) * k_stride, k_stride)
                add_block(scores, values, v_stride, keys, shape, at, partial_stride, after)
            unit = next_unit(counter, units, threads)

    return attention_split


KERNELS = {
    "attention_split_f16": _split(2, simd.f16_at),
    "attention_split_f32": _split(4, simd.f32_at),
    "attention_combine": attention_combine,
}
