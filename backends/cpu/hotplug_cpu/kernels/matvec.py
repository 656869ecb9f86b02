"""Products of few tokens with a matrix of weights: out[T, R] = x[T, K] w[R, K]^T + add[T, R].

Weights are read once for four tokens, as they lie in the file and in that order: four rows at a
time would save loads of activations, but memory is read at half the speed. Kernels:

    matvec_<dtype>          x as blocks of bytes, see `legacy`; count = K / 32
    matvec_<dtype>_f32      x as f32; count = K / 32 for quantised weights, else K / 8

Arguments: `row_bytes`, `x_stride`, `out_stride` and `add_stride` are bytes from one row or token to
the next. `add` is 0 if nothing is to be added; a bias has the stride 0. `x_copies` are bytes from
one thread's own x to the next one's, 0 if there is one for all. Threads share rows in pieces of
`grain`.
"""

from __future__ import annotations

from typing import Any

from numba import types

from hotplug_cpu.jit import forms, simd
from hotplug_cpu.kernels import superblocks
from hotplug_cpu.kernels.legacy import BLOCK_BYTES, QUANTS, SIGNED, WITH_MINIMUM, ZERO
from hotplug_cpu.kernels.sizes import X_BLOCK, X_BYTES, X_SUM

__all__ = ["KERNELS"]

_inline = simd.inline
_i32 = types.int32
_BAND = 8  # rows that stay in the cache while all tokens are multiplied with them
_AHEAD = 4096  # bytes: what is fetched while it comes from memory
_FLOATS = 32  # bytes of eight floats


@_inline
def _write(out: int, value: float, add: int) -> None:
    if add != 0:
        value += simd.load_f32(add)
    simd.store_f32(out, value)


def _kernel(dot1: Any, columns4: Any) -> Any:
    """A product made of dot products.

    Args:
        dot1: (w, x, count) -> one row times one token.
        columns4: (w, x, x_stride, count) -> one row times four tokens.
    """

    @_inline
    def matvec(
        thread: int,
        threads: int,
        weights: int,
        row_bytes: int,
        rows: int,
        count: int,
        x: int,
        x_stride: int,
        tokens: int,
        out: int,
        out_stride: int,
        add: int,
        add_stride: int,
        x_copies: int,
        grain: int,
    ) -> None:
        groups = (rows + grain - 1) // grain
        first = groups * thread // threads * grain
        last = min(rows, groups * (thread + 1) // threads * grain)
        x += thread * x_copies
        wide = tokens // 4 * 4
        step = _BAND if tokens > 1 else rows
        for band in range((last - first + step - 1) // step):
            start = first + band * step
            stop = min(last, start + step)
            for row in range(start, stop if wide else start):
                w = weights + row * row_bytes
                for token in range(0, wide, 4):
                    at = out + token * out_stride + 4 * row
                    plus = add + token * add_stride + 4 * row if add != 0 else 0
                    following = add_stride if add != 0 else 0
                    r0, r1, r2, r3 = columns4(w, x + token * x_stride, x_stride, count)
                    _write(at, r0, plus)
                    _write(at + out_stride, r1, plus + following)
                    _write(at + 2 * out_stride, r2, plus + 2 * following)
                    _write(at + 3 * out_stride, r3, plus + 3 * following)
            for token in range(wide, tokens):
                source = x + token * x_stride
                target = out + token * out_stride
                plus = add + token * add_stride
                for row in range(start, stop):
                    value = dot1(weights + row * row_bytes, source, count)
                    _write(target + 4 * row, value, plus + 4 * row if add != 0 else 0)

    return matvec


def _with_minimum(quants: Any, block_bytes: int) -> Any:
    """Weights are scale * q + minimum."""

    @_inline
    def step(w: int, x: int, numbers: Any, total: Any, minima: Any) -> Any:
        pair = simd.load_f16_pair(w) * simd.load_f32_pair(x)
        dots = simd.to_f32(simd.dot_u7(quants(w), numbers))
        return simd.fma(dots, simd.splat_first(pair), total), minima + pair

    @_inline
    def dot1(w: int, x: int, count: int) -> Any:
        t0 = t1 = t2 = t3 = simd.zero()
        m0 = m1 = simd.zero_pair()
        for _ in range(count // 4):
            simd.prefetch(w + _AHEAD)
            simd.prefetch(w + _AHEAD + 64)
            t0, m0 = step(w, x, simd.load_i8x32(x + X_BYTES), t0, m0)
            w1, x1 = w + block_bytes, x + X_BLOCK
            t1, m1 = step(w1, x1, simd.load_i8x32(x1 + X_BYTES), t1, m1)
            w2, x2 = w1 + block_bytes, x1 + X_BLOCK
            t2, m0 = step(w2, x2, simd.load_i8x32(x2 + X_BYTES), t2, m0)
            w3, x3 = w2 + block_bytes, x2 + X_BLOCK
            t3, m1 = step(w3, x3, simd.load_i8x32(x3 + X_BYTES), t3, m1)
            w += 4 * block_bytes
            x += 4 * X_BLOCK
        for _ in range(count % 4):
            t0, m0 = step(w, x, simd.load_i8x32(x + X_BYTES), t0, m0)
            w += block_bytes
            x += X_BLOCK
        return simd.sum_of((t0 + t1) + (t2 + t3)) + simd.second_of(m0 + m1)

    @_inline
    def columns4(w: int, x0: int, x_stride: int, count: int) -> Any:
        x1 = x0 + x_stride
        x2 = x1 + x_stride
        x3 = x2 + x_stride
        t0 = t1 = t2 = t3 = simd.zero()
        m0 = m1 = m2 = m3 = simd.zero_pair()
        for index in range(count):
            at = index * X_BLOCK
            t0, m0 = step(w, x0 + at, simd.load_i8x32(x0 + at + X_BYTES), t0, m0)
            t1, m1 = step(w, x1 + at, simd.load_i8x32(x1 + at + X_BYTES), t1, m1)
            t2, m2 = step(w, x2 + at, simd.load_i8x32(x2 + at + X_BYTES), t2, m2)
            t3, m3 = step(w, x3 + at, simd.load_i8x32(x3 + at + X_BYTES), t3, m3)
            w += block_bytes
        return (
            simd.sum_of(t0) + simd.second_of(m0),
            simd.sum_of(t1) + simd.second_of(m1),
            simd.sum_of(t2) + simd.second_of(m2),
            simd.sum_of(t3) + simd.second_of(m3),
        )

    return _kernel(dot1, columns4)


def _symmetric(quants: Any, block_bytes: int, per_lane: int, signed: bool) -> Any:
    """Weights are scale * (q - offset).

    Args:
        quants: reads the q of a block.
        block_bytes: bytes of a block.
        per_lane: the offset, an eighth of it: what each of eight sums starts with.
        signed: whether q is as `add_dots_i8` wants it, and not unsigned.
    """
    factor = _i32(-per_lane)

    @_inline
    def step(w: int, x: int, numbers: Any, start: Any, total: Any) -> Any:
        scale = simd.splat_f32(simd.load_f16(w) * simd.load_f32(x))
        if signed:
            dots = simd.add_dots_i8(start, quants(w), numbers)
        else:
            dots = simd.add_dots(start, quants(w), numbers)
        return simd.fma(simd.to_f32(dots), scale, total)

    @_inline
    def start_of(x: int) -> Any:
        return simd.splat_i32(_i32(simd.load_i32(x + X_SUM) * factor))

    @_inline
    def dot1(w: int, x: int, count: int) -> Any:
        t0 = t1 = t2 = t3 = simd.zero()
        for _ in range(count // 4):
            simd.prefetch(w + _AHEAD)
            simd.prefetch(w + _AHEAD + 64)
            t0 = step(w, x, simd.load_i8x32(x + X_BYTES), start_of(x), t0)
            w1, x1 = w + block_bytes, x + X_BLOCK
            t1 = step(w1, x1, simd.load_i8x32(x1 + X_BYTES), start_of(x1), t1)
            w2, x2 = w1 + block_bytes, x1 + X_BLOCK
            t2 = step(w2, x2, simd.load_i8x32(x2 + X_BYTES), start_of(x2), t2)
            w3, x3 = w2 + block_bytes, x2 + X_BLOCK
            t3 = step(w3, x3, simd.load_i8x32(x3 + X_BYTES), start_of(x3), t3)
            w += 4 * block_bytes
            x += 4 * X_BLOCK
        for _ in range(count % 4):
            t0 = step(w, x, simd.load_i8x32(x + X_BYTES), start_of(x), t0)
            w += block_bytes
            x += X_BLOCK
        return simd.sum_of((t0 + t1) + (t2 + t3))

    @_inline
    def columns4(w: int, x0: int, x_stride: int, count: int) -> Any:
        x1 = x0 + x_stride
        x2 = x1 + x_stride
        x3 = x2 + x_stride
        t0 = t1 = t2 = t3 = simd.zero()
        for index in range(count):
            at = index * X_BLOCK
            t0 = step(w, x0 + at, simd.load_i8x32(x0 + at + X_BYTES), start_of(x0 + at), t0)
            t1 = step(w, x1 + at, simd.load_i8x32(x1 + at + X_BYTES), start_of(x1 + at), t1)
            t2 = step(w, x2 + at, simd.load_i8x32(x2 + at + X_BYTES), start_of(x2 + at), t2)
            t3 = step(w, x3 + at, simd.load_i8x32(x3 + at + X_BYTES), start_of(x3 + at), t3)
            w += block_bytes
        return simd.sum_of(t0), simd.sum_of(t1), simd.sum_of(t2), simd.sum_of(t3)

    return _kernel(dot1, columns4)


def _of_floats(step: Any, w_bytes: int, x_bytes: int) -> Any:
    """x as floats: `step(w, x, total)` adds the products of one piece of a row.

    Rows are taken one by one: the work is in making floats of the weights.
    """

    @_inline
    def dot1(w: int, x: int, count: int) -> Any:
        first = second = simd.zero()
        for _ in range(count // 2):
            first = step(w, x, first)
            second = step(w + w_bytes, x + x_bytes, second)
            w += 2 * w_bytes
            x += 2 * x_bytes
        if count % 2:
            first = step(w, x, first)
        return simd.sum_of(first + second)

    @_inline
    def columns4(w: int, x0: int, x_stride: int, count: int) -> Any:
        x1 = x0 + x_stride
        x2 = x1 + x_stride
        x3 = x2 + x_stride
        t0 = t1 = t2 = t3 = simd.zero()
        for index in range(count):
            at = index * x_bytes
            t0 = step(w, x0 + at, t0)
            t1 = step(w, x1 + at, t1)
            t2 = step(w, x2 + at, t2)
            t3 = step(w, x3 + at, t3)
            w += w_bytes
        return simd.sum_of(t0), simd.sum_of(t1), simd.sum_of(t2), simd.sum_of(t3)

    return _kernel(dot1, columns4)


def _quantised_step(quants: Any, offset: int, has_minimum: bool) -> Any:
    middle = types.float32(-offset)

    @_inline
    def step(w: int, x: int, total: Any) -> Any:
        a, b, c, d = simd.floats_of_i8(quants(w))
        x0, x1 = simd.load_f32x8(x), simd.load_f32x8(x + 32)
        x2, x3 = simd.load_f32x8(x + 64), simd.load_f32x8(x + 96)
        products = simd.fma(a, x0, simd.fma(b, x1, simd.fma(c, x2, d * x3)))
        scale = simd.load_f16(w)
        total = simd.fma(products, simd.splat_f32(scale), total)
        if has_minimum:
            minimum = simd.splat_f32(simd.load_f16(w + 2))
        else:
            minimum = simd.splat_f32(scale * middle)
        return simd.fma((x0 + x1) + (x2 + x3), minimum, total)

    return step


@_inline
def _step_f16(w: int, x: int, total: Any) -> Any:
    return simd.fma(simd.load_f16x8(w), simd.load_f32x8(x), total)


@_inline
def _step_bf16(w: int, x: int, total: Any) -> Any:
    return simd.fma(simd.load_bf16x8(w), simd.load_f32x8(x), total)


@_inline
def _step_f32(w: int, x: int, total: Any) -> Any:
    return simd.fma(simd.load_f32x8(w), simd.load_f32x8(x), total)


def _bytes_kernel(name: str) -> Any:
    size = BLOCK_BYTES[name]
    if name in WITH_MINIMUM:
        return _with_minimum(QUANTS[name], size)
    if name in SIGNED:
        return _symmetric(SIGNED[name], size, forms.WIDE_OFFSET // 8, True)
    return _symmetric(QUANTS[name], size, ZERO[name] // 8, False)


def _floats_kernel(name: str) -> Any:
    has_minimum = name in WITH_MINIMUM
    step = _quantised_step(QUANTS[name], ZERO.get(name, 0), has_minimum)
    return _of_floats(step, BLOCK_BYTES[name], 128)


KERNELS = {
    **{f"matvec_{name}": _bytes_kernel(name) for name in QUANTS},
    **{f"matvec_{name}_f32": _floats_kernel(name) for name in QUANTS},
    **{f"matvec_{name}": _kernel(*superblocks.of_bytes(name)) for name in superblocks.FORMATS},
    **{f"matvec_{name}_f32": _kernel(*superblocks.of_floats(name)) for name in superblocks.FORMATS},
    "matvec_f16_f32": _of_floats(_step_f16, 16, _FLOATS),
    "matvec_bf16_f32": _of_floats(_step_bf16, 16, _FLOATS),
    "matvec_f32_f32": _of_floats(_step_f32, 32, _FLOATS),
}
