"""How wide products lay out their operands, and what memory they need. Imports no Numba.

A *tile* of activations holds TOKENS tokens interleaved; a *panel* of weights holds ROWS rows
interleaved. A micro-kernel multiplies one tile with two panels. All sizes are bytes.

Integers, per block of 32 along the contraction:

    tile    f32 scale[TOKENS], f32 sum[TOKENS], f32 sum[2][TOKENS], i8[8][TOKENS][4]: sums of the
            bytes times the scale, of the block and of its halves
    panel   f32 scale[ROWS], f32 offset[ROWS], i8[8][ROWS][4]: a weight is scale * byte + offset;
            or, for `gemm_halves`, f32 scale[2][ROWS], f32 offset[2][ROWS], i8[8][ROWS][4]

Wider panels, of `wide.PANEL` rows, for floats and for words of 16 bits; activations are not tiles:

    floats  panel f32[K][PANEL]; activations f32 as they lie, or as `pack_rows` lays them out
    words   per block of 32: panel f32 scale[PANEL], i16[16][PANEL][2]; activations f32 scale,
            i16[32]; a number is scale * word
"""

from __future__ import annotations

__all__ = [
    "BLOCK",
    "CHUNK_BLOCKS",
    "CHUNK_FLOATS",
    "CHUNK_WORDS",
    "HALVES_BLOCK",
    "HALVES_HEAD",
    "KEYS",
    "PACKED_STRIDE",
    "PANEL_BLOCK",
    "PANEL_HEAD",
    "PARTIAL_HEAD",
    "QUERIES",
    "RESULT",
    "ROWS",
    "TILE_BLOCK",
    "TILE_HEAD",
    "TOKENS",
    "WIDEST",
    "WORDS_BLOCK",
    "attention_partials",
    "attention_scratch",
    "attention_split_scratch",
    "gemm_f32_scratch",
    "gemm_i16_scratch",
    "gemm_int8_scratch",
    "packed_bytes",
    "quantised_bytes",
    "tiles",
    "words_bytes",
]

BLOCK = 32
TOKENS = 6
ROWS = 8

TILE_HEAD = 16 * TOKENS
TILE_BLOCK = TILE_HEAD + BLOCK * TOKENS
PANEL_HEAD, HALVES_HEAD = 8 * ROWS, 16 * ROWS
PANEL_BLOCK = PANEL_HEAD + BLOCK * ROWS
HALVES_BLOCK = HALVES_HEAD + BLOCK * ROWS
RESULT = 4 * TOKENS * 2 * ROWS

CHUNK_BLOCKS = 32
"""Blocks of the contraction that are multiplied at once: two panels fill 20 or 24 KB of L1."""

WIDEST = 32
"""Rows of a panel of floats, at most; `wide.PANEL` is how many there are on this machine."""

CHUNK_FLOATS = 512
"""The same for floats: a panel of 64 KB lies in the second level of cache. Every quantised type's
block divides it."""

PACKED_STRIDE = 4 * CHUNK_FLOATS + 64
"""Bytes from one token to the next where `pack_rows` has written CHUNK_FLOATS of each."""

CHUNK_WORDS = 48
"""Blocks of words that are multiplied at once: a panel takes 100 KB, half that without AVX-512."""

WORDS_BLOCK = 4 + 2 * BLOCK
"""Bytes of a block of activations as words."""


def tiles(tokens: int) -> int:
    """How many tiles hold the tokens."""
    return -(-tokens // TOKENS)


def quantised_bytes(tokens: int, width: int) -> int:
    """What `quantise_tiles` writes for (tokens, width)."""
    return tiles(tokens) * (width // BLOCK) * TILE_BLOCK


def packed_bytes(tokens: int, width: int) -> int:
    """What `pack_rows` writes for (tokens, width)."""
    return -(-width // CHUNK_FLOATS) * tokens * PACKED_STRIDE


def gemm_int8_scratch() -> int:
    """Scratch of one thread of `gemm_u4`, `gemm_u5`, `gemm_i8` and `gemm_halves`."""
    return RESULT + 2 * CHUNK_BLOCKS * HALVES_BLOCK


def words_bytes(tokens: int, width: int) -> int:
    """What `quantise_words` writes for (tokens, width)."""
    return tokens * (width // BLOCK) * WORDS_BLOCK


def gemm_i16_scratch() -> int:
    """Scratch of one thread of `gemm_i16`: a row of zeros, and a panel."""
    return 4 * WIDEST * (1 + CHUNK_WORDS * (1 + BLOCK // 2))


def gemm_f32_scratch() -> int:
    """Scratch of one thread of `gemm_f32`: a row of zeros, and a panel."""
    return 4 * WIDEST * (1 + CHUNK_FLOATS)


# --- attention

QUERIES = 96
"""Query rows (a token and a head) that are processed at once; a multiple of TOKENS."""

KEYS = 64
"""Rows of the cache that are processed at once; a multiple of 2 * ROWS."""

PARTIAL_HEAD = 32
"""Bytes before the values of a partial result: its largest score, its sum of weights."""


def attention_scratch(width: int, value_width: int) -> int:
    """Scratch of one thread of `attention_*`.

    Queries and results, a block of keys and of values, scores of a tile twice, state of the rows.
    """
    padded = -(-value_width // (2 * ROWS)) * 2 * ROWS
    floats = (QUERIES + KEYS) * (width + padded) + KEYS * (TOKENS + 8) + 2 * QUERIES
    return 4 * floats


def attention_split_scratch(heads: int, width: int) -> int:
    """Scratch of one thread of `attention_split_*`: scores of a block of keys, and queries."""
    return 4 * heads * (KEYS + width)


def attention_partials(tokens: int, heads: int, splits: int, value_width: int) -> int:
    """What `attention_split_*` writes and `attention_combine` reads."""
    return tokens * heads * splits * (PARTIAL_HEAD + 4 * value_width)
