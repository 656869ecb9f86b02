"""Kernels of decoding that work on rows of floats: norms, gates, sums, caches.

All strides are bytes, all counts elements. An index outside the table is dropped or gives zeros.
"""

from __future__ import annotations

from typing import Any

from numba import types

from hotplug_cpu.jit import reductions, simd
from hotplug_cpu.kernels.common import index_of, share
from hotplug_cpu.kernels.legacy import quantise_block
from hotplug_cpu.kernels.sizes import BLOCK, x_row_bytes

__all__ = ["KERNELS"]

_inline = simd.inline
_f32 = types.float32
_ONE = _f32(1.0)
_FLOATS = 4 * BLOCK
_row_bytes = simd.inline(x_row_bytes)


@_inline
def _inverse_rms(x: int, count: int, eps: float) -> Any:
    total, other = simd.zero(), simd.zero()
    for at in range(0, 4 * (count // 16 * 16), 64):
        a, b = simd.load_f32x8(x + at), simd.load_f32x8(x + at + 32)
        total = simd.fma(a, a, total)
        other = simd.fma(b, b, other)
    squares = reductions.sum_of(total + other)
    for at in range(4 * (count // 16 * 16), 4 * count, 4):
        value = simd.load_f32(x + at)
        squares += value * value
    return _ONE / simd.sqrt_f32(squares / _f32(count) + eps)


@_inline
def rms_norm(
    thread: int,
    threads: int,
    x: int,
    x_stride: int,
    weight: int,
    eps: int,
    rows: int,
    count: int,
    out: int,
    out_stride: int,
) -> None:
    """Rows divided by their root mean square, times a weight, of which 0 means none."""
    first, last = share(rows, thread, threads)
    for row in range(first, last):
        source, target = x + row * x_stride, out + row * out_stride
        factor = _inverse_rms(source, count, simd.float_of(eps))
        vector = simd.splat_f32(factor)
        for at in range(0, 4 * (count // 8 * 8), 32):
            value = simd.load_f32x8(source + at) * vector
            if weight != 0:
                value = value * simd.load_f32x8(weight + at)
            simd.store_f32x8(target + at, value)
        for at in range(4 * (count // 8 * 8), 4 * count, 4):
            scaled = simd.load_f32(source + at) * factor
            if weight != 0:
                scaled *= simd.load_f32(weight + at)
            simd.store_f32(target + at, scaled)


@_inline
def rms_norm_quantise(
    thread: int,
    threads: int,
    x: int,
    x_stride: int,
    weight: int,
    eps: int,
    rows: int,
    blocks: int,
    out: int,
    copies: int,
) -> None:
    """As `rms_norm`, the result as blocks of bytes.

    If `copies` is not 0, each thread makes a whole result for itself, so many bytes apart: for one
    row that is done sooner than threads wait for each other.
    """
    first, last = share(rows, thread, threads)
    if copies != 0:
        first, last = 0, rows
        out += thread * copies
    for row in range(first, last):
        source = x + row * x_stride
        target = out + row * _row_bytes(blocks)
        factor = simd.splat_f32(_inverse_rms(source, blocks * BLOCK, simd.float_of(eps)))
        for block in range(blocks):
            at = block * _FLOATS
            a = simd.load_f32x8(source + at) * factor
            b = simd.load_f32x8(source + at + 32) * factor
            c = simd.load_f32x8(source + at + 64) * factor
            d = simd.load_f32x8(source + at + 96) * factor
            if weight != 0:
                a = a * simd.load_f32x8(weight + at)
                b = b * simd.load_f32x8(weight + at + 32)
                c = c * simd.load_f32x8(weight + at + 64)
                d = d * simd.load_f32x8(weight + at + 96)
            quantise_block(a, b, c, d, target, blocks, block)


@_inline
def quantise(
    thread: int,
    threads: int,
    x: int,
    x_stride: int,
    rows: int,
    blocks: int,
    out: int,
    copies: int,
) -> None:
    """Rows of floats as blocks of bytes; `copies` as in `rms_norm_quantise`."""
    first, last = share(rows * blocks, thread, threads)
    if copies != 0:
        first, last = 0, rows * blocks
        out += thread * copies
    for unit in range(first, last):
        source = x + unit // blocks * x_stride + unit % blocks * _FLOATS
        quantise_block(
            simd.load_f32x8(source),
            simd.load_f32x8(source + 32),
            simd.load_f32x8(source + 64),
            simd.load_f32x8(source + 96),
            out + unit // blocks * _row_bytes(blocks),
            blocks,
            unit % blocks,
        )


@_inline
def _silu(value: Any) -> Any:
    one = simd.splat_f32(_ONE)
    return value / (one + simd.exp(simd.zero() - value))


@_inline
def swiglu(
    thread: int,
    threads: int,
    gate: int,
    gate_stride: int,
    up: int,
    up_stride: int,
    rows: int,
    count: int,
    out: int,
    out_stride: int,
) -> None:
    """silu(gate) * up; `count` is a multiple of 8."""
    groups = count // 8
    first, last = share(rows * groups, thread, threads)
    for unit in range(first, last):
        row, at = unit // groups, unit % groups * 32
        value = _silu(simd.load_f32x8(gate + row * gate_stride + at))
        value = value * simd.load_f32x8(up + row * up_stride + at)
        simd.store_f32x8(out + row * out_stride + at, value)


@_inline
def swiglu_quantise(
    thread: int,
    threads: int,
    gate: int,
    gate_stride: int,
    up: int,
    up_stride: int,
    rows: int,
    blocks: int,
    out: int,
) -> None:
    """As `swiglu`, the result as blocks of bytes.

    Threads share columns as the products do that make gate and up: none reads another's results.
    """
    first, last = share(blocks, thread, threads)
    for unit in range(rows * (last - first)):
        row, block = unit // (last - first), first + unit % (last - first)
        at = block * _FLOATS
        g, u = gate + row * gate_stride + at, up + row * up_stride + at
        quantise_block(
            _silu(simd.load_f32x8(g)) * simd.load_f32x8(u),
            _silu(simd.load_f32x8(g + 32)) * simd.load_f32x8(u + 32),
            _silu(simd.load_f32x8(g + 64)) * simd.load_f32x8(u + 64),
            _silu(simd.load_f32x8(g + 96)) * simd.load_f32x8(u + 96),
            out + row * _row_bytes(blocks),
            blocks,
            block,
        )


@_inline
def add(
    thread: int,
    threads: int,
    a: int,
    a_stride: int,
    b: int,
    b_stride: int,
    rows: int,
    count: int,
    out: int,
    out_stride: int,
) -> None:
    """a + b; `count` is a multiple of 8; a stride of 0 repeats a row."""
    groups = count // 8
    first, last = share(rows * groups, thread, threads)
    for unit in range(first, last):
        row, at = unit // groups, unit % groups * 32
        value = simd.load_f32x8(a + row * a_stride + at) + simd.load_f32x8(b + row * b_stride + at)
        simd.store_f32x8(out + row * out_stride + at, value)


# --- caches


@_inline
def scatter_rows(
    thread: int,
    threads: int,
    x: int,
    x_stride: int,
    rows: int,
    count: int,
    indices: int,
    wide: int,
    table: int,
    table_stride: int,
    table_rows: int,
    half: int,
) -> None:
    """Rows of floats into a table of f32, or f16 if `half`; `count` is a multiple of 8.

    Threads share columns and not rows, so that of equal indices the last one wins.
    """
    first, last = share(count // 8, thread, threads)
    for row in range(rows):
        index = index_of(indices, row, wide)
        if 0 <= index < table_rows:
            source, target = x + row * x_stride, table + index * table_stride
            for group in range(first, last):
                value = simd.load_f32x8(source + 32 * group)
                if half:
                    simd.store_f16x8(target + 16 * group, value)
                else:
                    simd.store_f32x8(target + 32 * group, value)


@_inline
def read(thread: int, threads: int, at: int, nbytes: int, out: int) -> None:
    """Sum of memory as floats, a number per thread: how fast it can be read."""
    first, last = share(nbytes // 256, thread, threads)
    a = b = c = d = simd.zero()
    for unit in range(first, last):
        place = at + 256 * unit
        a = a + (simd.load_f32x8(place) + simd.load_f32x8(place + 32))
        b = b + (simd.load_f32x8(place + 64) + simd.load_f32x8(place + 96))
        c = c + (simd.load_f32x8(place + 128) + simd.load_f32x8(place + 160))
        d = d + (simd.load_f32x8(place + 192) + simd.load_f32x8(place + 224))
    simd.store_f32(out + 4 * thread, reductions.sum_of((a + b) + (c + d)))


KERNELS = {
    "add": add,
    "quantise": quantise,
    "read": read,
    "rms_norm": rms_norm,
    "rms_norm_quantise": rms_norm_quantise,
    "scatter_rows": scatter_rows,
    "swiglu": swiglu,
    "swiglu_quantise": swiglu_quantise,
}
