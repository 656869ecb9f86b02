"""Products of many tokens with quantised weights: out[T, R] = x[T, K] w[R, K]^T.

Two rows of a plan make one product: the first lays out the activations as tiles, the second
unpacks weights panel by panel into scratch memory of its thread and multiplies every tile with
them. Several products may use the same tiles. Layouts and sizes: see `panels`.

    quantise_tiles  x x_stride tokens blocks tiles
    gemm_u4         for Q4_0, Q4_1, Q4_K
    gemm_u5         for Q5_0, Q5_1, Q5_K, and all of the above
    gemm_i8         for Q8_0, IQ4_NL, IQ4_XS
    gemm_halves     for Q2_K, Q3_K, Q6_K

Arguments of the products:

    unpack          address of the kernel of `weights` for the weights' type
    weights         address of the first row
    row_bytes       from one row of weights to the next
    rows            R
    count           K / 32
    chunk_bytes     what `panels.CHUNK_BLOCKS` blocks of a row take
    tiles           what the first row of the plan wrote
    tokens          T
    out, out_stride f32 result and bytes from one token to the next
    add, add_stride f32 values (T, R) that are added, such as a residual; 0 for none. May be `out`.
    scratch         `panels.gemm_*_scratch()` bytes for each thread
    scratch_stride  bytes from one thread's to the next
"""

from __future__ import annotations

from typing import Any

from numba import float32

from hotplug_cpu.jit import reductions, simd
from hotplug_cpu.kernels.layouts import call_unpack, store_words
from hotplug_cpu.kernels.panels import (
    CHUNK_BLOCKS,
    HALVES_BLOCK,
    PANEL_BLOCK,
    RESULT,
    ROWS,
    TILE_BLOCK,
    TILE_HEAD,
    TOKENS,
)
from hotplug_cpu.kernels.shares import next_unit
from hotplug_cpu.kernels.tiles import multiply_halves, multiply_i8, multiply_u4, multiply_u5

__all__ = ["KERNELS"]

_inline = simd.inline
_LARGEST = float32(127.0)
_NONE = float32(0.0)
_PAIR = 2 * ROWS
_SPAN = 16  # tiles times pairs of panels in a row, up to which a unit has several such pairs
_PART = 96  # tiles: so many stay in the last level of cache while all weights go by
_UNITS = 4  # shares of work per thread, below which tokens are divided besides rows


# --- activations


@_inline
def _quantise_block(x: int, block: int, token: int) -> None:
    """32 floats as bytes, with their scale and the sum of what the bytes stand for."""
    a, b, c, d = (
        simd.load_f32x8(x),
        simd.load_f32x8(x + 32),
        simd.load_f32x8(x + 64),
        simd.load_f32x8(x + 96),
    )
    largest = reductions.largest_magnitude((a, b, c, d))
    factor = simd.splat_f32(_LARGEST / largest if largest > _NONE else _NONE)
    bytes_ = simd.round_to_i8((a * factor, b * factor, c * factor, d * factor))
    scale = largest / _LARGEST
    low, high = reductions.sums_of_halves(simd.to_f32(simd.dot_u7(simd.splat_i8(1), bytes_)))
    simd.store_f32(block + 4 * token, scale)
    simd.store_f32(block + 4 * (TOKENS + token), scale * (low + high))
    simd.store_f32(block + 4 * (2 * TOKENS + token), scale * low)
    simd.store_f32(block + 4 * (3 * TOKENS + token), scale * high)
    store_words(block + TILE_HEAD + 4 * token, 4 * TOKENS, bytes_)


@_inline
def _clear(at: int, nbytes: int) -> None:
    for place in range(0, nbytes, 4):
        simd.store_f32(at + place, _NONE)


@_inline
def quantise_tiles(
    thread: int,  # noqa: ARG001 - all kernels take it
    threads: int,
    counter: int,
    x: int,
    x_stride: int,
    tokens: int,
    blocks: int,
    tiles: int,
) -> None:
    """Activations (T, K) f32 as tiles of bytes; tokens that the last tile lacks are zeros."""
    count = (tokens + TOKENS - 1) // TOKENS
    tile = next_unit(counter, count, threads)
    while tile < count:
        first = tile * TOKENS
        here = min(TOKENS, tokens - first)
        block = tiles + tile * blocks * TILE_BLOCK
        if here < TOKENS:
            _clear(block, blocks * TILE_BLOCK)
        for number in range(blocks):
            for token in range(here):
                _quantise_block(x + (first + token) * x_stride + 128 * number, block, token)
            block += TILE_BLOCK
        tile = next_unit(counter, count, threads)


# --- products


@_inline
def _write(
    result: int, out: int, out_stride: int, add: int, add_stride: int, tokens: int, rows: int
) -> None:
    """The part of a result that exists, with what is added, to where it belongs."""
    adds = add != 0
    for _ in range(tokens):
        if rows == _PAIR:
            low, high = simd.load_f32x8(result), simd.load_f32x8(result + 4 * ROWS)
            if adds:
                low = low + simd.load_f32x8(add)
                high = high + simd.load_f32x8(add + 4 * ROWS)
            simd.store_f32x8(out, low)
            simd.store_f32x8(out + 4 * ROWS, high)
        else:
            for at in range(0, 4 * rows, 4):
                value = simd.load_f32(result + at)
                simd.store_f32(out + at, value + simd.load_f32(add + at) if adds else value)
        result += 4 * _PAIR
        out += out_stride
        add += add_stride


def _product(multiply: Any, chunk: int, panel_step: int, tile_step: int) -> Any:
    """A product kernel.

    Args:
        multiply: micro-kernels (first panel, second panel, tile, count, result), for a whole tile
            and for its first two tokens.
        chunk: steps of the contraction that are multiplied at once.
        panel_step: bytes of a panel for one step.
        tile_step: bytes of a tile for one step.
    """
    whole, pair = multiply

    @_inline
    def some(first: int, second: int, tile: int, count: int, result: int, tokens: int) -> None:
        """The products of the first tokens of a tile."""
        if tokens > 2:
            whole(first, second, tile, count, result)
        else:
            pair(first, second, tile, count, result)

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
        tiles: int,
        tokens: int,
        out: int,
        out_stride: int,
        add: int,
        add_stride: int,
        scratch: int,
        scratch_stride: int,
    ) -> None:
        tile_count = (tokens + TOKENS - 1) // TOKENS
        pairs = (rows + _PAIR - 1) // _PAIR
        wanted = max(1, (_UNITS * threads) // pairs, (tile_count + _PART - 1) // _PART)
        parts = min(tile_count, wanted)
        span = max(1, min(_SPAN // tile_count, pairs // (_UNITS * _UNITS * threads)))
        spans = (pairs + span - 1) // span
        units = spans * parts
        result = scratch + thread * scratch_stride
        first = result + RESULT
        unit = next_unit(counter, units, threads)
        while unit < units:
            # All rows for one part of the tokens, so that these stay in the cache.
            part = unit // spans
            start_row = unit % spans * span * _PAIR
            for row in range(start_row, min(rows, start_row + span * _PAIR), _PAIR):
                here = min(_PAIR, rows - row)
                for start in range(0, count, chunk):
                    length = min(chunk, count - start)
                    source = weights + row * row_bytes + start // chunk * chunk_bytes
                    second = first + length * panel_step
                    call_unpack(unpack, source, row_bytes, min(here, ROWS), length, first)
                    if here > ROWS:
                        below = source + ROWS * row_bytes
                        call_unpack(unpack, below, row_bytes, here - ROWS, length, second)
                    else:
                        second = first
                    for tile in range(tile_count * part // parts, tile_count * (part + 1) // parts):
                        token = tile * TOKENS
                        left = min(TOKENS, tokens - token)
                        at = out + token * out_stride + 4 * row
                        x = tiles + (tile * count + start) * tile_step
                        some(first, second, x, length, result, left)
                        before, stride = at, out_stride
                        if start == 0:
                            before, stride = 0, 0
                            if add != 0:
                                before, stride = add + token * add_stride + 4 * row, add_stride
                        _write(result, at, out_stride, before, stride, left, here)
            unit = next_unit(counter, units, threads)

    return gemm


KERNELS = {
    "quantise_tiles": quantise_tiles,
    "gemm_u4": _product(multiply_u4, CHUNK_BLOCKS, PANEL_BLOCK, TILE_BLOCK),
    "gemm_u5": _product(multiply_u5, CHUNK_BLOCKS, PANEL_BLOCK, TILE_BLOCK),
    "gemm_i8": _product(multiply_i8, CHUNK_BLOCKS, PANEL_BLOCK, TILE_BLOCK),
    "gemm_halves": _product(multiply_halves, CHUNK_BLOCKS, HALVES_BLOCK, TILE_BLOCK),
}
