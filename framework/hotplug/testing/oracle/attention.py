"""Reference of attention."""

from __future__ import annotations

import math

import numpy as np

from hotplug.testing.oracle.reduction import alibi_slopes, masked_softmax
from hotplug.testing.oracle.table import Array, Floats, reference

__all__: list[str] = []


@reference("scaled_dot_product_attention")
def _attention(
    q: Floats,
    k: Floats,
    v: Floats,
    mask: Floats | None,
    positions: Floats | None,
    sinks: Floats | None,
    *,
    scale: float,
    causal: bool,
    window: int,
    softcap: float,
    max_bias: float,
) -> Floats:
    tokens, heads, width = q.shape[-3:]
    rows, kv_heads = k.shape[-3:-1]
    lead = np.broadcast_shapes(q.shape[:-3], k.shape[:-3])
    q, k, v = (np.broadcast_to(x, lead + x.shape[-3:]) for x in (q, k, v))
    if mask is not None:
        mask = np.broadcast_to(mask, (*lead, heads, tokens, rows))
    if positions is None:
        # Padding is marked by positions only: where all rows are visible, any place will do.
        positions = rows - tokens + np.arange(tokens) if causal else np.zeros(tokens)
    visible = _visible(positions, rows, causal, window)
    slopes = alibi_slopes(heads, max_bias) if max_bias else np.ones(heads)
    result = np.zeros((*lead, tokens, heads, v.shape[-1]))
    for batch in np.ndindex(lead):
        for head in range(heads):
            shared = head // (heads // kv_heads)
            scores = q[batch][:, head] @ k[batch][:, shared].T
            scores = scores * (scale or 1 / math.sqrt(width))
            if softcap:
                scores = softcap * np.tanh(scores / softcap)
            scores = np.where(visible, scores, -np.inf)
            weights = masked_softmax(
                scores,
                None if mask is None else mask[(*batch, head)],
                slopes[head],
                None if sinks is None else sinks[head],
            )
            result[batch][:, head] = weights @ v[batch][:, shared]
    return result


def _visible(positions: Floats, rows: int, causal: bool, window: int) -> Array:
    """Which row each query sees, mask apart; shape (tokens, rows)."""
    row = np.arange(rows)[None, :]
    at = positions[:, None]
    visible = np.broadcast_to(at >= 0, (len(positions), rows))
    if causal:
        visible = visible & (row <= at)
    if window:
        visible = visible & (row > at - window)
    return visible
