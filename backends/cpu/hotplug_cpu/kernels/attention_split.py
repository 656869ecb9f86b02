"""Scaled dot-product attention over a cache, for few queries.

The rows that a token sees are divided into `splits`, so that all threads have work even where
there are few heads (FlashDecoding). Two rows of a plan: `attention_split_*` leaves a partial result
for every token, head and split; `attention_combine` makes results of them.

The arguments are those of `attention`, and further

    splits      parts of the context; about 4 * threads / kv_heads, at least 1
    partials    `panels.attention_partials(T, H, splits, Dv)` bytes, between the two rows

A partial result is its largest score, the sum of its weights, and after PARTIAL_HEAD bytes the
weighted sum of values. One of a split that no row is in has the largest score -inf and no values.
"""

from __future__ import annotations

from typing import Any

from numba import float32

from hotplug_cpu.jit import simd
from hotplug_cpu.kernels.panels import KEYS, PARTIAL_HEAD
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
    count = tokens * heads
    for number in range(count * thread // threads, count * (thread + 1) // threads):
        token, head = number // heads, number % heads
        first = partials + number * splits * size
        at = out + token * out_stride + 4 * head * value_width
        for column in range(0, 4 * value_width, 32):
            simd.store_f32x8(at + column, simd.zero())
        largest = NOTHING
        for split in range(splits):
            largest = max(largest, simd.load_f32(first + split * size))
        if largest == NOTHING:
            continue
        total = ZERO
        if sinks != 0:
            sink = simd.load_f32(sinks + 4 * head)
            largest = max(largest, sink)
            total = exp_f32(sink - largest)
        for split in range(splits):
            partial = first + split * size
            score = simd.load_f32(partial)
            if score > NOTHING:
                weight = exp_f32(score - largest)
                total += simd.load_f32(partial + 4) * weight
                _add_row(partial + PARTIAL_HEAD, weight, at, value_width)
        scale_row(at, value_width, _ONE / total)


@_inline
def _clear(partial: int, value_width: int) -> None:
    simd.store_f32(partial, NOTHING)
    simd.store_f32(partial + 4, ZERO)
    for column in range(0, 4 * value_width, 32):
        simd.store_f32x8(partial + PARTIAL_HEAD + column, simd.zero())


def _eight_scores(size: int, load: Any) -> Any:
    """Products of a query with eight rows of keys, for one kind of elements."""

    @_inline
    def eight_scores(q: int, k: int, stride: int, keys: int, width: int) -> Any:
        """Where there are fewer than eight rows the last one is repeated."""
        last = keys - 1
        k1 = k + min(1, last) * stride
        k2 = k + min(2, last) * stride
        k3 = k + min(3, last) * stride
        k4 = k + min(4, last) * stride
        k5 = k + min(5, last) * stride
        k6 = k + min(6, last) * stride
        k7 = k + min(7, last) * stride
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = simd.zero()
        for step in range(width // 8):
            x = simd.load_f32x8(q + 32 * step)
            at = 8 * size * step
            s0 = simd.fma(load(k + at), x, s0)
            s1 = simd.fma(load(k1 + at), x, s1)
            s2 = simd.fma(load(k2 + at), x, s2)
            s3 = simd.fma(load(k3 + at), x, s3)
            s4 = simd.fma(load(k4 + at), x, s4)
            s5 = simd.fma(load(k5 + at), x, s5)
            s6 = simd.fma(load(k6 + at), x, s6)
            s7 = simd.fma(load(k7 + at), x, s7)
        return simd.sums_of((s0, s1, s2, s3, s4, s5, s6, s7))

    return eight_scores


def _add_values(size: int, load: Any) -> Any:
    """Weighted sums of rows of values, for one kind of elements."""

    @_inline
    def add_values(weights: int, v: int, stride: int, keys: int, width: int, result: int) -> None:
        """Add the rows, each times its weight, to a result; four vectors at a time."""
        column = 0
        while column + 32 <= width:
            at, source = result + 4 * column, v + column * size
            a, b = simd.load_f32x8(at), simd.load_f32x8(at + 32)
            c, d = simd.load_f32x8(at + 64), simd.load_f32x8(at + 96)
            for key in range(keys):
                weight = simd.splat_f32(simd.load_f32(weights + 4 * key))
                a = simd.fma(load(source), weight, a)
                b = simd.fma(load(source + 8 * size), weight, b)
                c = simd.fma(load(source + 16 * size), weight, c)
                d = simd.fma(load(source + 24 * size), weight, d)
                source += stride
            simd.store_f32x8(at, a)
            simd.store_f32x8(at + 32, b)
            simd.store_f32x8(at + 64, c)
            simd.store_f32x8(at + 96, d)
            column += 32
        while column < width:
            at, source = result + 4 * column, v + column * size
            a = simd.load_f32x8(at)
            for key in range(keys):
                weight = simd.splat_f32(simd.load_f32(weights + 4 * key))
                a = simd.fma(load(source), weight, a)
                source += stride
            simd.store_f32x8(at, a)
            column += 8

    return add_values


def _split(size: int, load: Any) -> Any:
    """A kernel for caches of elements of `size` bytes, of which `load` makes 8 floats."""
    eight_scores, add_values = _eight_scores(size, load), _add_values(size, load)

    @_inline
    def attention_split(
        thread: int,
        threads: int,
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
        partial_size = PARTIAL_HEAD + 4 * value_width
        scores = scratch + thread * scratch_stride
        factor, cap = simd.splat_f32(simd.float_of(scale)), simd.float_of(softcap)
        view = (positions, tokens, rows, causal, window)
        units = tokens * kv_heads * splits
        for unit in range(units * thread // threads, units * (thread + 1) // threads):
            split = unit % splits
            head = unit // splits % kv_heads
            token = unit // splits // kv_heads
            low, high = visible(view, token)
            share = ((high - low + splits - 1) // splits + 7) // 8 * 8
            begin = low + split * share
            end = min(high, begin + share)
            first = token * heads + head * group
            for member in range(group):
                partial = partials + ((first + member) * splits + split) * partial_size
                _clear(partial, value_width)
            for start in range(begin, end, KEYS):
                keys = min(KEYS, end - start)
                k_at = k + start * k_stride + head * width * size
                v_at = v + start * v_stride + head * value_width * size
                for member in range(group):
                    partial = partials + ((first + member) * splits + split) * partial_size
                    query = q + token * q_stride + 4 * width * (head * group + member)
                    for key in range(0, keys, 8):
                        dots = eight_scores(
                            query, k_at + key * k_stride, k_stride, min(8, keys - key), width
                        )
                        simd.store_f32x8(scores + 4 * key, dots * factor)
                    rescale = softmax_step(scores, 0, keys, cap, (partial, partial + 4))
                    if rescale != _ONE:
                        scale_row(partial + PARTIAL_HEAD, value_width, rescale)
                    add_values(scores, v_at, v_stride, keys, value_width, partial + PARTIAL_HEAD)

    return attention_split


KERNELS = {
    "attention_split_f16": _split(2, simd.load_f16x8),
    "attention_split_f32": _split(4, simd.load_f32x8),
    "attention_combine": attention_combine,
}
