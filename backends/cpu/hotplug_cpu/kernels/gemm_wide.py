"""Products of many tokens with weights as floats or words: out[T, R] = x[T, K] w[R, K]^T.

Weights are unpacked into panels of rows in scratch memory of each thread; activations are read
where they lie.

    gemm_f32        activations f32; weights of any type, unpacked by a kernel of `floats`
    gemm_i16        activations as `quantise_words` writes them; weights f16, bf16 or Q8_0, unpacked
                    by a kernel of `words`

Arguments:
    unpack          address of the kernel that unpacks
    weights         address of the first row
    row_bytes       from one row of weights to the next
    rows            R
    count           K of floats, K / 32 of words
    chunk_bytes     what CHUNK_FLOATS floats or CHUNK_WORDS blocks of a row of weights take
    x, x_stride     activations, and bytes from one token to the next
    x_chunk         bytes from so many of them to the next ones of a token
    tokens          T
    out, out_stride f32 result and bytes from one token to the next
    add, add_stride f32 values (T, R) that are added, such as a residual; 0 for none. May be `out`.
    scratch         `panels.gemm_*_scratch()` bytes for each thread
    scratch_stride  bytes from one thread's to the next
"""

from __future__ import annotations

from typing import Any

from hotplug_cpu.jit import simd
from hotplug_cpu.jit.forms import LANES
from hotplug_cpu.kernels.layouts import call_unpack
from hotplug_cpu.kernels.panels import CHUNK_FLOATS, CHUNK_WORDS, PACKED_STRIDE, ROWS
from hotplug_cpu.kernels.shares import next_unit
from hotplug_cpu.kernels.wide import FLOATS, PANEL, WORDS, Family

__all__ = ["KERNELS"]

_inline = simd.inline
_PART = 384  # tokens: so many stay in the second level of cache while some rows go by
_UNITS = 4  # shares of work per thread, at least
_SPAN = 8  # panels in a row, at most


@_inline
def _unpack(unpack: int, source: int, row_bytes: int, rows: int, length: int, panel: int) -> None:
    for group in range(0, rows, ROWS):
        here = min(ROWS, rows - group)
        call_unpack(unpack, source + group * row_bytes, row_bytes, here, length, panel + 4 * group)


@_inline
def pack_rows(
    thread: int,  # noqa: ARG001 - all kernels take it
    threads: int,
    counter: int,
    x: int,
    x_stride: int,
    tokens: int,
    width: int,
    out: int,
) -> None:
    """Activations (T, K) f32 as f32[K / CHUNK_FLOATS][T][PACKED_STRIDE / 4].

    Rows that lie some powers of two apart fall on the same lines of a cache; these do not.
    """
    token = next_unit(counter, tokens, threads)
    while token < tokens:
        source = x + token * x_stride
        target = out + token * PACKED_STRIDE
        for start in range(0, width, CHUNK_FLOATS):
            length = 4 * min(CHUNK_FLOATS, width - start)
            vectors = length // 32 * 32
            for at in range(0, vectors, 32):
                simd.store_f32x8(target + at, simd.load_f32x8(source + at))
            for at in range(vectors, length, 4):
                simd.store_f32(target + at, simd.load_f32(source + at))
            source += length
            target += tokens * PACKED_STRIDE
        token = next_unit(counter, tokens, threads)


@_inline
def _moved(rows: tuple[int, int], count: int) -> tuple[int, int]:
    """Rows, as their address and stride, from a later one on."""
    return rows[0] + count * rows[1], rows[1]


def _outer(pair: Any, one: Any) -> Any:
    @_inline
    def outer(
        panel: int, x: Any, tokens: int, length: int, before: Any, out: Any, rows: int
    ) -> None:
        """As the micro-kernels of `wide`, for one vector of rows or two."""
        if rows > LANES:
            pair(panel, *x, tokens, length, *before, *out, rows)
        else:
            one(panel, *x, tokens, length, *before, *out, rows)

    return outer


def _column(family: Family) -> Any:
    tall, short = family.tall, family.short
    many, few = _outer(*family.many), _outer(*family.few)

    @_inline
    def column(
        panel: int, x: Any, tokens: int, length: int, before: Any, out: Any, rows: int
    ) -> None:
        """The same for all tokens."""
        while tokens > tall - short:
            here = min(tokens, tall)
            many(panel, x, here, length, before, out, rows)
            x, before, out = _moved(x, here), _moved(before, here), _moved(out, here)
            tokens -= here
        while tokens > 0:
            here = min(tokens, short)
            few(panel, x, here, length, before, out, rows)
            x, before, out = _moved(x, here), _moved(before, here), _moved(out, here)
            tokens -= here

    return column


@_inline
def _divide(columns: int, tiles: int, part: int, threads: int) -> tuple[int, int]:
    """How many parts of the tokens, and how many panels in a row, make a unit of work.

    Parts of a fitting size, or more of them where there are too few panels for all threads.
    """
    parts = (tiles + part - 1) // part
    if threads > 1:
        parts = max(parts, min(tiles, _UNITS * threads // columns))
    return parts, max(1, min(_SPAN, columns // (_UNITS * threads)))


def _product(family: Family, chunk: int) -> Any:
    """A product kernel that multiplies so many steps of the contraction at once."""
    tall, column = family.tall, _column(family)

    @_inline
    def gemm(
        thread: int,
        threads: int,
        counter: int,
        unpack: int,
        weights: int,
        row_bytes: int,
        rows: int,
        count: int,
        chunk_bytes: int,
        x: int,
        x_stride: int,
        x_chunk: int,
        tokens: int,
        out: int,
        out_stride: int,
        add: int,
        add_stride: int,
        scratch: int,
        scratch_stride: int,
    ) -> None:
        tiles, columns = (tokens + tall - 1) // tall, (rows + PANEL - 1) // PANEL
        parts, span = _divide(columns, tiles, _PART // tall, threads)
        spans = (columns + span - 1) // span
        units = spans * parts
        zeros = scratch + thread * scratch_stride
        for place in range(0, 4 * PANEL, 32):
            simd.store_f32x8(zeros + place, simd.zero())
        panel = zeros + 4 * PANEL
        unit = next_unit(counter, units, threads)
        while unit < units:
            # Some panels for one part of the tokens, so that these stay in the cache.
            part, first_row = unit // spans, unit % spans * span * PANEL
            token = tiles * part // parts * tall
            some = min(tokens, tiles * (part + 1) // parts * tall) - token
            for start in range(0, count, chunk):
                length, number = min(chunk, count - start), start // chunk
                here = x + token * x_stride + number * x_chunk, x_stride
                for row in range(first_row, min(rows, first_row + span * PANEL), PANEL):
                    wide = min(PANEL, rows - row)
                    source = weights + row * row_bytes + number * chunk_bytes
                    _unpack(unpack, source, row_bytes, wide, length, panel)
                    target = out + token * out_stride + 4 * row, out_stride
                    before = target
                    if start == 0:
                        before = zeros, 0
                        if add != 0:
                            before = add + token * add_stride + 4 * row, add_stride
                    column(panel, here, some, length, before, target, wide)
            unit = next_unit(counter, units, threads)

    return gemm


KERNELS = {
    "pack_rows": pack_rows,
    "gemm_f32": _product(FLOATS, CHUNK_FLOATS),
    "gemm_i16": _product(WORDS, CHUNK_WORDS),
}
