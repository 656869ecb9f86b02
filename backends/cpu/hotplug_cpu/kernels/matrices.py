"""Products of bytes two rows and two tokens at a time, as ARM's smmla does them.

Words of two steps of the contraction put side by side are 8 bytes of a row, or of a token: operands
are laid out as for all other processors, see `panels`.
"""

from __future__ import annotations

from typing import Any

from hotplug_cpu.jit import forms
from hotplug_cpu.jit.vectors import I8, I32, at_offset, concatenate, load, shuffle, splat, vector
from hotplug_cpu.kernels.panels import BLOCK, PANEL_HEAD, ROWS, TILE_HEAD, TOKENS

__all__ = ["dots_of_matrices"]

_STEPS = BLOCK // 4
_ROW_PAIRS = range(0, ROWS, 2)


def dots_of_matrices(
    builder: Any,
    panels: list[Any],
    tile: Any,
    tokens: int,
    head: int = PANEL_HEAD,
    half: int | None = None,
) -> list[list[Any]]:
    """Sums of products of a block, or of one half of it: 8 x i32 for each token and panel.

    Args:
        builder: writes the code.
        panels: addresses of blocks of panels.
        tile: address of a block of a tile.
        tokens: how many of its tokens, an even number.
        head: bytes before the bytes of a panel's block.
        half: 0 or 1.
    """
    pairs = range(0, tokens, 2)
    blocks = range(len(panels))
    sums = {
        (token, panel, row): splat(0, I32, 4)
        for token in pairs
        for panel in blocks
        for row in _ROW_PAIRS
    }
    steps = range(_STEPS) if half is None else range(half * _STEPS // 2, (half + 1) * _STEPS // 2)
    for step in steps[::2]:
        xs = {token: _two(builder, tile, TILE_HEAD, TOKENS, step, token) for token in pairs}
        for panel in blocks:
            for row in _ROW_PAIRS:
                weights = _two(builder, panels[panel], head, ROWS, step, row)
                for token in pairs:
                    key = token, panel, row
                    sums[key] = forms.add_matrix_product(builder, sums[key], weights, xs[token])
    return [
        [
            _column(builder, [sums[token // 2 * 2, panel, row] for row in _ROW_PAIRS], token % 2)
            for panel in blocks
        ]
        for token in range(tokens)
    ]


def _two(builder: Any, base: Any, head: int, width: int, step: int, first: int) -> Any:
    """8 bytes, from two steps, of each of two rows or tokens among `width`."""
    places = [head + 4 * (width * (step + n) + first) for n in (0, 1)]
    here, below = (load(builder, at_offset(builder, base, at), vector(I32, 2)) for at in places)
    return builder.bitcast(shuffle(builder, here, below, [0, 2, 1, 3]), vector(I8, 16))


def _column(builder: Any, products: list[Any], token: int) -> Any:
    """What products of 2 x 2 say of one of their two tokens."""
    lanes = [token + place for place in (0, 2, 4, 6)]
    pairs = zip(products[::2], products[1::2], strict=True)
    return concatenate(builder, [shuffle(builder, a, b, lanes) for a, b in pairs])
