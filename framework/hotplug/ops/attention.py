"""Attention and rotary position embedding."""

from __future__ import annotations

from hotplug.dtypes import Kind, get
from hotplug.node import Node
from hotplug.ops.checks import broadcast, require, require_float, require_index, require_rank
from hotplug.ops.spec import op
from hotplug.tensor import TensorType

__all__ = ["ROPE_LAYOUTS", "rope", "scaled_dot_product_attention"]

ROPE_LAYOUTS = ("interleaved", "half", "sections", "sections_interleaved", "vision")
"""Which two elements of a head a pair is, and which row of positions turns it.

- `interleaved`: pair i is elements 2i and 2i + 1, as in llama.
- `half`: pair i is elements i and i + dims/2, as in GPT-NeoX. The layouts below share this.
- `sections` (M-RoPE, arXiv 2409.12191): row s of positions turns pair i if i mod sum(sections)
  falls into section s.
- `sections_interleaved`: with p = i mod sum(sections), row p mod 3 turns pair i if
  p < 3 * sections[p mod 3], else row 3 does.
- `vision`: as `sections`, over the whole head (d/2 pairs); the frequency of the pair that stands j
  pairs after the start of its section is base^(-4j/d).

These are ggml's NORMAL, NEOX, MROPE, IMROPE and VISION."""


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

    Pair (a, b) becomes m (a cos t - b sin t, a sin t + b cos t). Pair i of dims/2 has the angle
    u = position * base^(-2i/dims) / factors[i], and t = frequency_scale * u, m = `magnitude`.

    With `extrapolation` e above 0 (YaRN, arXiv 2309.00071, with ggml's rounding) t is
    (1 - r) * frequency_scale * u + r * u and m = magnitude * (1 + 0.1 ln(1 / frequency_scale)),
    where r = e * (1 - clamp((i - low) / max(0.001, high - low), 0, 1)),
    low = max(0, floor(c(beta_fast))), high = min(dims - 1, ceil(c(beta_slow))) and
    c(n) = dims * ln(original_context / (2 pi n)) / (2 ln base).

    Args:
        x: (..., tokens, heads, d), floats.
        positions: (tokens,) i32; (4, tokens) for the layouts with sections.
        factors: (dims / 2,) f32, frequency divisors of long-context models.
        layout: one of ROPE_LAYOUTS.
        dims: how many leading elements of a head are turned; 0 for all. The others pass unchanged,
            without the magnitude.
        base: the frequency base.
        frequency_scale: factor on all angles (1/4 stretches a context fourfold).
        original_context: context the model was trained with; YaRN needs it.
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
    require(not sectioned or sum(sections) > 0, f"sections {sections} are empty")
    require(layout != "vision" or turned == width, "layout 'vision' turns the whole head")
    require(
        not extrapolation or (original_context > 0 and layout != "vision"),
        "YaRN needs original_context, and is not defined for layout 'vision'",
    )
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
    """softmax(cap(scale * q k^T) + slope * mask) v, each head apart.

    Query heads share key heads in equal groups: query head h uses key head h // (heads / kv_heads).

    Args:
        q: (..., tokens, heads, d), f32 (or f16).
        k: (..., rows, kv_heads, d), plain floats or quantised; heads is a multiple of kv_heads.
        v: (..., rows, kv_heads, dv).
        mask: broadcast to (..., heads, tokens, rows); floats are added, bool True means visible. It
            hides rows besides those that `causal` and `window` hide.
        positions: (tokens,) i32: the row at which each query stands, so that one graph serves every
            length of a cache. A negative position marks padding, whose result is zeros. Without it
            query i stands at row rows - tokens + i, which matters only if `causal`.
        sinks: (heads,) f32: an extra score per head that takes part in the softmax only.
        scale: factor on the scores; 0 stands for 1 / sqrt(d).
        causal: a query sees only rows up to its own position.
        window: a query at row p sees only rows p - window + 1 to p; 0 for all.
        softcap: scaled scores become softcap * tanh(score / softcap), before the mask; 0 is off.
        max_bias: ALiBi: the mask is multiplied by the head's slope, as in op `softmax`, and must be
            of floats; 0 is off, and all slopes are 1.

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
        require(mask.dtype.kind in {Kind.FLOAT, Kind.BOOL}, f"mask {mask.type} is no mask")
    if max_bias:
        require(
            mask is not None and mask.dtype.kind is Kind.FLOAT, "max_bias needs a mask of floats"
        )
    if positions is not None:
        require_index(positions)
        require(positions.shape == (tokens,), f"positions must be ({tokens},)")
    if sinks is not None:
        require_rank(sinks, 1)
        require(sinks.shape[0] == heads, f"sinks must be ({heads},)")
    return TensorType(get("f32"), (*lead, tokens, heads, v.shape[-1]))
