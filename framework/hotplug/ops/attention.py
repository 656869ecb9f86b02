"""Attention and rotary position embedding."""

from __future__ import annotations

from hotplug.dtypes import get
from hotplug.node import Node
from hotplug.ops.checks import broadcast, require, require_float, require_index, require_rank
from hotplug.ops.spec import op
from hotplug.tensor import TensorType

__all__ = ["ROPE_LAYOUTS", "rope", "scaled_dot_product_attention"]

ROPE_LAYOUTS = ("interleaved", "half", "sections", "sections_interleaved", "vision")
"""Which elements are turned together. `interleaved`: (0, 1), (2, 3)... as llama; `half`:
(i, i + d/2) as NeoX; `sections` and `sections_interleaved`: halves whose frequencies take their
position from four position rows (M-RoPE, interleaved M-RoPE); `vision`: two sections over the
whole head."""


def _rope_flops(node: Node) -> int:
    return 6 * node.type.size


@op("rope", inplace=(0,), flops=_rope_flops)
def rope(
    x: Node,
    positions: Node,
    factors: Node | None = None,
    *,
    layout: str = "interleaved",
    dims: int = 0,
    base: float = 10000.0,
    frequency_scale: float = 1.0,
    original_context: int = 0,
    extrapolation: float = 0.0,
    magnitude: float = 1.0,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    sections: tuple[int, ...] = (),
) -> TensorType:
    """Turn pairs of elements by angles that grow with position (RoPE, arXiv 2104.09864).

    Pair i of `dims / 2` is turned by position * base^(-2i/dims) / factors[i], scaled linearly by
    `frequency_scale`. With `extrapolation` above 0 the YaRN ramp (arXiv 2309.00071) blends scaled
    and unscaled angles between the dims that `beta_fast` and `beta_slow` name for
    `original_context`, and the result is multiplied by magnitude * (1 + 0.1 ln(1 /
    frequency_scale)), otherwise by `magnitude`.

    Args:
        x: (..., tokens, heads, d), floats.
        positions: (tokens,) i32; (4, tokens) for the layouts with sections.
        factors: (dims / 2,) f32, frequency divisors of long-context models.
        layout: one of ROPE_LAYOUTS.
        dims: how many leading elements of a head are turned; 0 for all. The others pass.
        base: the frequency base.
        frequency_scale: factor on all angles (1/4 stretches a context fourfold).
        original_context: context the model was trained with, for YaRN.
        extrapolation: YaRN's mix; 0 is off.
        magnitude: factor on the result.
        beta_fast: YaRN's upper turn count.
        beta_slow: YaRN's lower turn count.
        sections: pairs per section, for the layouts that have them; four numbers.
    """
    require_float(x)
    require_index(positions)
    require(layout in ROPE_LAYOUTS, f"layout must be one of {ROPE_LAYOUTS}, not {layout!r}")
    require(len(x.shape) >= 3, f"{x.type} must be (..., tokens, heads, d)")
    tokens, width = x.shape[-3], x.shape[-1]
    turned = dims or width
    require(turned % 2 == 0 and 0 < turned <= width, f"dims {dims} of a head of {width}")
    sectioned = layout in {"sections", "sections_interleaved", "vision"}
    expected = (4, tokens) if sectioned else (tokens,)
    require(positions.shape == expected, f"positions must be {expected}, given {positions.type}")
    require(len(sections) == (4 if sectioned else 0), f"sections {sections} with layout {layout!r}")
    if factors is not None:
        require(factors.shape == (turned // 2,), f"factors must be ({turned // 2},)")
    return x.type


def _attention_flops(node: Node) -> int:
    q, k = node.operands[:2]
    return 2 * k.shape[-3] * (q.type.size + node.type.size)


@op("scaled_dot_product_attention", flops=_attention_flops)
def scaled_dot_product_attention(
    q: Node,
    k: Node,
    v: Node,
    mask: Node | None = None,
    positions: Node | None = None,
    sinks: Node | None = None,
    *,
    scale: float = 0.0,
    causal: bool = False,
    window: int = 0,
    softcap: float = 0.0,
    max_bias: float = 0.0,
) -> TensorType:
    """softmax(scale * q k^T + mask) v, heads apart; query heads share key heads in equal groups.

    Args:
        q: (..., tokens, heads, d), f32 (or f16).
        k: (..., rows, kv_heads, d), plain floats or quantised; heads is a multiple of kv_heads.
        v: (..., rows, kv_heads, dv).
        mask: added to the scores, broadcast to (..., heads, tokens, rows); or bool, True = visible.
        positions: (tokens,) i32: the row at which each query stands, so that one graph serves every
            length of a cache. A negative position marks padding, whose result is zeros. Without it
            query i stands at row rows - tokens + i.
        sinks: (heads,) f32: an extra score per head that takes part in the softmax only.
        scale: factor on the scores; 0 stands for 1 / sqrt(d).
        causal: a query sees only rows up to its own position.
        window: a query sees only the last `window` rows up to its position; 0 for all.
        softcap: scores become softcap * tanh(score / softcap); 0 is off.
        max_bias: ALiBi's (arXiv 2108.12409) largest slope exponent, as in ggml; 0 is off.

    Returns:
        (..., tokens, heads, dv), f32. A query that sees no row gives zeros.
    """
    require_float(q)
    require(min(len(q.shape), len(k.shape), len(v.shape)) >= 3, "operands need three axes at least")
    heads, kv_heads = q.shape[-2], k.shape[-2]
    require(k.shape[:-1] == v.shape[:-1], f"{k.type} and {v.type} must have equal rows and heads")
    require(k.shape[-1] == q.shape[-1], f"head lengths {q.shape[-1]} and {k.shape[-1]} differ")
    require(kv_heads > 0 and heads % kv_heads == 0, f"{heads} heads over {kv_heads} key heads")
    require(window == 0 or causal, "a window needs causal=True")
    lead = broadcast(q.shape[:-3], k.shape[:-3])
    tokens, rows = q.shape[-3], k.shape[-3]
    if mask is not None:
        scores = (*lead, heads, tokens, rows)
        require(broadcast(mask.shape, scores) == scores, f"mask {mask.type} for scores {scores}")
    if positions is not None:
        require_index(positions)
        require(positions.shape == (tokens,), f"positions must be ({tokens},)")
    if sinks is not None:
        require_rank(sinks, 1)
        require(sinks.shape[0] == heads, f"sinks must be ({heads},)")
    return TensorType(get("f32"), (*lead, tokens, heads, v.shape[-1]))
