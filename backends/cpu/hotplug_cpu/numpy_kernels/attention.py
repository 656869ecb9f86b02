"""Attention, one key head at a time by blocks of queries, over the rows that can be seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hotplug_cpu.numpy_kernels.pieces import PIECE, part_at
from hotplug_cpu.numpy_kernels.reduction import alibi_slopes, masked_softmax
from hotplug_cpu.numpy_kernels.table import kernel
from hotplug_cpu.tensor_view import AnyArray, TensorView

__all__: list[str] = []


@dataclass(frozen=True, slots=True)
class _Rules:
    """What holds for all heads and batches of one call.

    Attributes:
        scale: factor on the scores.
        softcap: bound of the scores; 0 is off.
        slopes: (heads, 1, 1) factors on the mask; None for 1.
        sinks: (heads, 1, 1) further scores, or None.
        positions: (tokens,) row at which each query stands, negative for padding.
        causal: whether a query sees no later rows.
        window: how many rows a query sees; 0 for all.
    """

    scale: float
    softcap: float
    slopes: AnyArray | None
    sinks: AnyArray | None
    positions: AnyArray
    causal: bool
    window: int


@kernel("scaled_dot_product_attention")
def _attention(
    out: TensorView,
    q: TensorView,
    k: TensorView,
    v: TensorView,
    mask: TensorView | None,
    positions: TensorView | None,
    sinks: TensorView | None,
    *,
    scale: float,
    causal: bool,
    window: int,
    softcap: float,
    max_bias: float,
) -> None:
    *lead, tokens, heads, _ = out.shape
    rows = k.shape[-3]
    rules = _Rules(
        scale or 1 / math.sqrt(q.shape[-1]),
        softcap,
        alibi_slopes(heads, max_bias)[:, None, None] if max_bias else None,
        None if sinks is None else sinks.float32()[:, None, None],
        _own_rows(tokens, rows, causal=causal) if positions is None else positions.array,
        causal,
        window,
    )
    queries = q.float32()
    scores = (*lead, heads, tokens, rows)
    masks = None if mask is None else np.broadcast_to(mask.numbers(), scores)
    for at in np.ndindex(*lead):
        _attend(
            rules,
            out.array[at],
            np.broadcast_to(queries, (*lead, *q.shape[-3:]))[at],
            part_at(k, at, 3),
            part_at(v, at, 3),
            None if masks is None else masks[at],
        )


def _own_rows(tokens: int, rows: int, *, causal: bool) -> AnyArray:
    """Where queries stand if nobody says; not causal, they see all rows from anywhere."""
    return np.arange(rows - tokens, rows) if causal else np.zeros(tokens, np.int64)


def _default_positions(tokens: int, rows: int, causal: bool) -> AnyArray:
    """The last rows; where every row is seen, any place does, as long as it marks no padding."""
    return np.arange(rows - tokens, rows) if causal else np.zeros(tokens, np.int64)


def _attend(
    rules: _Rules, out: AnyArray, q: AnyArray, k: TensorView, v: TensorView, mask: AnyArray | None
) -> None:
    """One batch: out (tokens, heads, dv), q (tokens, heads, d), k and v (rows, kv_heads, ...)."""
    rows, kv_heads = k.shape[:2]
    group = q.shape[1] // kv_heads
    seen = _span(rules, rules.positions, rows)
    block = max(1, PIECE // max(1, group * rows))
    for head in range(kv_heads):
        keys, values = k.part((seen, head)).float32(), v.part((seen, head)).float32()
        own = slice(head * group, (head + 1) * group)
        for start in range(0, len(q), block):
            tokens = slice(start, start + block)
            near = _span(rules, rules.positions[tokens], rows)
            inner = slice(near.start - seen.start, near.stop - seen.start)
            shown = None if mask is None else mask[own, tokens, near]
            scores = _scores(rules, q[tokens, own], keys[inner])
            np.copyto(scores, -np.inf, where=_hidden(rules, rules.positions[tokens], near))
            masked_softmax(scores, shown, _of(rules.slopes, own), _of(rules.sinks, own))
            out[tokens, own] = (scores @ values[inner]).swapaxes(0, 1)


def _span(rules: _Rules, positions: AnyArray, rows: int) -> slice:
    """The rows that some of the queries see, mask apart."""
    real = positions[positions >= 0]
    if not real.size:
        return slice(0, 0)
    stop = min(rows, int(real.max()) + 1) if rules.causal else rows
    start = max(0, int(real.min()) - rules.window + 1) if rules.window else 0
    return slice(min(start, stop), stop)


def _scores(rules: _Rules, q: AnyArray, keys: AnyArray) -> AnyArray:
    """Scaled and capped scores of queries (tokens, group, d); (group, tokens, rows)."""
    scores: AnyArray = q.swapaxes(0, 1) @ keys.T
    scores *= rules.scale
    if rules.softcap:
        scores /= rules.softcap
        np.tanh(scores, out=scores)
        scores *= rules.softcap
    return scores


def _hidden(rules: _Rules, positions: AnyArray, seen: slice) -> AnyArray:
    """Which of some rows each query does not see, mask apart; (tokens, rows)."""
    at = positions[:, None]
    row = np.arange(seen.start, seen.stop)
    hidden: AnyArray = at < 0
    if rules.causal:
        hidden = hidden | (row > at)
    if rules.window:
        hidden = hidden | (row <= at - rules.window)
    return hidden


def _of(per_head: AnyArray | None, heads: slice) -> AnyArray | None:
    return None if per_head is None else per_head[heads]
