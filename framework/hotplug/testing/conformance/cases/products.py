"""Cases of matrix products, attention and rotary embedding."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from hotplug import ops
from hotplug.node import Node
from hotplug.testing.conformance.case import Case, single
from hotplug.testing.conformance.cases.operands import (
    BLOCK_QUANTS,
    FLOATS,
    LAYOUTS,
    QUANTS,
    SUPER_QUANTS,
    leaf,
)
from hotplug.testing.conformance.values import Recipe, given, integers, normal, uniform

__all__ = ["cases"]

_PLAIN_PAIRS = tuple((a, b) for a in FLOATS for b in FLOATS)

_MATMULS: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((3, 5), (5, 4)),
    ((1, 64), (64, 9)),
    ((2, 3, 4), (4, 5)),
    ((2, 1, 3, 4), (3, 4, 2)),
    ((0, 4), (4, 3)),
    ((3, 0), (0, 2)),
)
_MORE_MATMULS: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((1, 1), (1, 1)),
    ((17, 129), (129, 33)),
    ((65, 64), (64, 66)),
    ((3, 4), (5, 4, 2)),
    ((8, 300), (300, 1)),
)
# Rows of x, rows of w, k: one row and several, odd counts, more than one block.
_QUANT_SIZES = ((1, 7, 512), (3, 16, 256), (5, 1, 768))
_MORE_QUANT_SIZES = ((0, 4, 256), (17, 33, 256), (64, 65, 512), (1, 128, 1024), (2, 64, 256))
_ROTATIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("plain", {}),
    ("half", {"layout": "half"}),
    ("some dims", {"dims": 4}),
    ("some dims, half", {"dims": 6, "layout": "half", "magnitude": 1.5}),
    ("base", {"base": 500000.0}),
    ("stretched", {"frequency_scale": 0.25, "magnitude": 0.5}),
    ("yarn", {"frequency_scale": 0.25, "extrapolation": 1.0, "original_context": 32}),
    (
        "yarn, half",
        {
            "layout": "half", "frequency_scale": 0.1, "extrapolation": 0.5,
            "original_context": 128, "beta_fast": 16.0, "beta_slow": 2.0, "magnitude": 0.9,
        },
    ),
)  # fmt: skip
_SECTIONED = ("sections", "sections_interleaved", "vision")


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _plain_matmul()
    yield from _quantised_matmul()
    yield from _grouped()
    yield from _outer()
    yield from _solve_triangular()
    yield from _rope()
    yield from _attention()


def _plain_matmul() -> Iterator[Case]:
    for left, right in _PLAIN_PAIRS:
        for a_shape, b_shape in _MATMULS + _MORE_MATMULS:
            slow = (a_shape, b_shape) in _MORE_MATMULS
            a, b = leaf("a", left, a_shape), leaf("b", right, b_shape)
            name = f"matmul/{left} {right}/{a_shape}{b_shape}"
            yield single(name, ops.matmul(a, b), slow=slow)
            turned = leaf("b", right, (*b_shape[:-2], b_shape[-1], b_shape[-2]))
            yield single(f"{name} transposed", ops.matmul(a, turned, transpose_b=True), slow=slow)
    for layout, make in LAYOUTS.items():
        for transposed in (False, True):
            shape = (4, 6) if transposed else (6, 4)
            b = make("b", "f32", shape)
            result = ops.matmul(make("a", "f32", (3, 6)), b, transpose_b=transposed)
            yield single(f"matmul/f32/{layout}{' transposed' if transposed else ''}", result)


def _quantised_matmul() -> Iterator[Case]:
    for dtype in QUANTS:
        for precision in ("default", "exact"):
            for m, n, k in _QUANT_SIZES + _MORE_QUANT_SIZES:
                slow = (m, n, k) in _MORE_QUANT_SIZES
                yield _quantised(f"{m}x{n}x{k}", "f32", dtype, (m, k), (n, k), precision, slow=slow)
        yield _quantised("batch", "f32", dtype, (2, 3, 2, 256), (3, 4, 256), "exact")
        yield _quantised("x f16", "f16", dtype, (2, 256), (5, 256), "default")
    for dtype in BLOCK_QUANTS:
        yield _quantised("one block", "f32", dtype, (2, 32), (3, 32), "default")
        yield _quantised("one block of many rows", "f32", dtype, (9, 32), (35, 32), "default")
    x = leaf("x", "f32", (2, 256))
    w = ops.weight(name="w", dtype="q4_1", shape=(9, 512))
    part = ops.slice(w, starts=(2, 256), stops=(8, 512), steps=(2, 1))
    yield single("matmul/q4_1/slice of weights", ops.matmul(x, part, transpose_b=True))
    view = ops.transpose(leaf("x", "f32", (256, 2)))
    yield single("matmul/q4_1/transposed x", ops.matmul(view, part, transpose_b=True))
    zeros: dict[str, Recipe] = {"x": given(0)}
    yield single("matmul/q4_1/zeros", ops.matmul(x, part, transpose_b=True), zeros)


def _quantised(
    what: str,
    x_dtype: str,
    dtype: str,
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    precision: str,
    *,
    slow: bool = False,
) -> Case:
    w = ops.weight(name="w", dtype=dtype, shape=w_shape)
    result = ops.matmul(leaf("x", x_dtype, x_shape), w, transpose_b=True, precision=precision)
    return single(f"matmul/{x_dtype} {dtype}/{what} {precision}", result, slow=slow)


def _grouped() -> Iterator[Case]:
    ids = leaf("ids", "i32", (4, 2))
    some: dict[str, Recipe] = {"ids": given(0, 2, -1, 1, 3, 0, 99, 2)}
    for x_dtype in FLOATS:
        for w_dtype in FLOATS:
            for used in (1, 2):
                w = ops.weight(name="w", dtype=w_dtype, shape=(3, 5, 7))
                result = ops.matmul_grouped(leaf("x", x_dtype, (4, used, 7)), w, ids)
                yield single(f"matmul_grouped/{x_dtype} {w_dtype}/{used} rows", result, some)
    for dtype in QUANTS:
        for precision in ("default", "exact"):
            w = ops.weight(name="w", dtype=dtype, shape=(3, 5, 256))
            x, wide = leaf("x", "f32", (4, 1, 256)), leaf("ids", "i64", (4, 2))
            result = ops.matmul_grouped(x, w, wide, precision=precision)
            yield single(f"matmul_grouped/f32 {dtype}/{precision}", result, some)
    for layout, make in LAYOUTS.items():
        x, w = make("x", "f32", (4, 2, 7)), make("w", "f32", (3, 5, 7))
        result = ops.matmul_grouped(x, w, make("ids", "i32", (4, 2)))
        yield single(f"matmul_grouped/f32/{layout}", result, {"ids": integers(0, 2)})


def _outer() -> Iterator[Case]:
    for dtype in FLOATS:
        for left, right in (((3,), (4,)), ((2, 3), (4,)), ((2, 1, 3), (5, 2)), ((0,), (3,))):
            result = ops.outer(leaf("a", dtype, left), leaf("b", dtype, right))
            yield single(f"outer/{dtype}/{left}{right}", result)
    for layout, make in LAYOUTS.items():
        result = ops.outer(make("a", "f32", (2, 3)), make("b", "f32", (2, 4)))
        yield single(f"outer/f32/{layout}", result)


def _solve_triangular() -> Iterator[Case]:
    # A diagonal away from 0, as where such systems come from.
    data: dict[str, Recipe] = {"a": uniform(0.5, 1.5)}
    shapes: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
        ((4, 4), (4, 3)), ((1, 1), (1, 1)), ((2, 3, 5, 5), (2, 3, 5, 2)), ((3, 3), (2, 3, 4)),
        ((0, 0), (0, 2)), ((2, 1, 3, 3), (4, 3, 0)),
    )  # fmt: skip
    for lower in (True, False):
        for unit in (True, False):
            params = {"lower": lower, "unit_diagonal": unit}
            for a_shape, b_shape in shapes:
                a, b = leaf("a", "f32", a_shape), leaf("b", "f32", b_shape)
                name = f"solve_triangular/f32/{a_shape}{b_shape} {lower} {unit}"
                yield single(name, ops.solve_triangular(a, b, **params), data)
    for left, right in _PLAIN_PAIRS:
        a, b = leaf("a", left, (2, 5, 5)), leaf("b", right, (2, 5, 3))
        yield single(f"solve_triangular/{left} {right}/batch", ops.solve_triangular(a, b), data)
    for layout, make in LAYOUTS.items():
        result = ops.solve_triangular(make("a", "f32", (2, 4, 4)), make("b", "f32", (2, 4, 3)))
        yield single(f"solve_triangular/f32/{layout}", result, data)


def _rope() -> Iterator[Case]:
    for dtype in FLOATS:
        x, positions = leaf("x", dtype, (5, 2, 8)), leaf("positions", "i32", (5,))
        for what, params in _ROTATIONS:
            data: dict[str, Recipe] = {"positions": given(0, 3, 17, 100, 1000)}
            yield single(f"rope/{dtype}/{what}", ops.rope(x, positions, **params), data)
        yield from _sectioned_rope(dtype)
    data = {"positions": given(0, 3, 17, 100, 1000), "factors": uniform(0.5, 4)}
    x, wide = leaf("x", "f32", (2, 5, 3, 12)), leaf("positions", "i64", (5,))
    yield single("rope/f32/batch, i64 positions", ops.rope(x, wide), data)
    factors = leaf("factors", "f32", (6,))
    yield single("rope/f32/factors", ops.rope(x, wide, factors, layout="half"), data)
    yield single("rope/f32/no tokens", ops.rope(leaf("x", "f32", (0, 2, 8)), _positions(0)))
    for layout, make in LAYOUTS.items():
        result = ops.rope(make("x", "f32", (5, 2, 8)), _positions(5), layout="half")
        yield single(f"rope/f32/{layout}", result, data)
        one = ops.rope(make("x", "f32", (5, 2, 8)), _positions(5))
        yield single(f"rope/f32/{layout} interleaved", one, data)


def _positions(tokens: int) -> Node:
    return leaf("positions", "i32", (tokens,))


def _sectioned_rope(dtype: str) -> Iterator[Case]:
    data: dict[str, Recipe] = {"positions": integers(0, 40)}
    for layout in _SECTIONED:
        for sections in ((2, 1, 1, 0), (2, 3, 2, 1), (1, 1, 1, 1)):
            x, positions = leaf("x", dtype, (5, 2, 16)), leaf("positions", "i32", (4, 5))
            result = ops.rope(x, positions, layout=layout, sections=sections)
            yield single(f"rope/{dtype}/{layout} {sections}", result, data)


def _attention() -> Iterator[Case]:
    for dtype in ("f32", "f16"):
        q = leaf("q", dtype, (3, 4, 8))
        for kv in FLOATS:
            k, v = leaf("k", kv, (7, 2, 8)), leaf("v", kv, (7, 2, 6))
            result = ops.scaled_dot_product_attention(q, k, v)
            yield single(f"{_SDPA}/{dtype} {kv}/grouped heads", result)
    for dtype in QUANTS:
        width = 256 if dtype in SUPER_QUANTS else 32
        q = leaf("q", "f32", (2, 2, width))
        k, v = leaf("k", dtype, (5, 1, width)), leaf("v", dtype, (5, 1, width))
        yield single(f"{_SDPA}/f32 {dtype}/cache", ops.scaled_dot_product_attention(q, k, v))
    for keys, values in (("q8_0", "f16"), ("f32", "q4_1"), ("q8_0", "q5_0")):
        q, k, v = (
            leaf("q", "f32", (2, 2, 32)),
            leaf("k", keys, (5, 1, 32)),
            leaf("v", values, (5, 1, 32)),
        )
        result = ops.scaled_dot_product_attention(q, k, v)
        yield single(f"{_SDPA}/f32 {keys} {values}/cache", result)
    for what, masks, params, data in _attention_params():
        operands = (leaf("q", "f32", (3, 4, 8)), leaf("k", "f32", (7, 2, 8)))
        v = leaf("v", "f32", (7, 2, 8))
        result = ops.scaled_dot_product_attention(*operands, v, *masks, **params)
        yield single(f"{_SDPA}/f32/{what}", result, data)
    yield from _attention_shapes()


_SDPA = "scaled_dot_product_attention"
_MASK = given(0, -math.inf, -1.5, 0.5, 0, -math.inf, 2.0, 0, 0, 1)


def _attention_params() -> Iterator[
    tuple[str, tuple[Node | None, ...], dict[str, Any], dict[str, Recipe]]
]:
    positions, sinks = leaf("positions", "i32", (3,)), leaf("sinks", "f32", (4,))
    mask, hidden = leaf("mask", "f32", (3, 7)), leaf("hidden", "bool", (4, 3, 7))
    at: dict[str, Recipe] = {"positions": given(2, 3, 4)}
    masked: dict[str, Recipe] = {"mask": _MASK}
    yield "scale", (), {"scale": 0.2}, {}
    yield "causal", (), {"causal": True}, {}
    yield "causal at positions", (None, positions), {"causal": True}, at
    yield "causal, first row", (None, positions), {"causal": True}, {"positions": given(0, 0, 1)}
    yield "padding", (None, positions), {"causal": True}, {"positions": given(0, -1, 6)}
    yield "padding, not causal", (None, positions), {}, {"positions": given(-1, 3, -2)}
    for window in (1, 2, 4, 7, 100):
        yield f"window {window}", (None, positions), {"causal": True, "window": window}, at
    yield "window without positions", (), {"causal": True, "window": 2}, {}
    yield "softcap", (), {"softcap": 1.5}, {"q": normal(5)}
    yield "mask", (mask,), {}, masked
    yield "mask f16", (leaf("mask", "f16", (3, 7)),), {}, masked
    yield "mask bf16", (leaf("mask", "bf16", (3, 7)),), {}, masked
    wide = leaf("positions", "i64", (3,))
    yield "i64 positions", (None, wide), {"causal": True}, at
    yield "mask bool per head", (hidden,), {}, {}
    yield "mask hides all", (hidden,), {}, {"hidden": given(0)}
    yield "mask, softcap", (mask,), {"softcap": 2.0}, masked
    yield "mask and causal", (mask, positions), {"causal": True}, {**masked, **at}
    yield "alibi", (mask,), {"max_bias": 8.0}, masked
    yield "sinks", (None, None, sinks), {}, {}
    yield "sinks, all hidden", (hidden, None, sinks), {}, {"hidden": given(0)}
    everything = {"causal": True, "window": 3, "softcap": 4.0, "max_bias": 2.0, "scale": 0.5}
    yield "everything", (mask, positions, sinks), everything, {**masked, **at}


def _attention_shapes() -> Iterator[Case]:
    shapes: tuple[tuple[tuple[int, ...], ...], ...] = (
        ((1, 3, 64), (130, 1, 64), (130, 1, 64)),
        ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
        ((2, 3, 2, 8), (2, 5, 2, 8), (2, 5, 2, 4)),
        ((2, 3, 2, 8), (5, 2, 8), (5, 2, 8)),
        ((0, 2, 8), (5, 2, 8), (5, 2, 8)),
        ((33, 6, 16), (33, 3, 16), (33, 3, 16)),
        ((2, 12, 8), (9, 2, 8), (9, 2, 8)),
    )
    for q_shape, k_shape, v_shape in shapes:
        q, k, v = (
            leaf(*a) for a in zip("qkv", ("f32",) * 3, (q_shape, k_shape, v_shape), strict=True)
        )
        result = ops.scaled_dot_product_attention(q, k, v, causal=True)
        yield single(f"{_SDPA}/f32/{q_shape}{k_shape}{v_shape}", result)
    q, k = leaf("q", "f32", (5, 2, 8)), leaf("k", "f32", (3, 2, 8))
    for causal in (False, True):
        result = ops.scaled_dot_product_attention(q, k, leaf("v", "f32", (3, 2, 8)), causal=causal)
        name = f"{_SDPA}/f32/more queries than rows{', causal' if causal else ''}"
        yield single(name, result)
    for heads in (2, 6):
        q, mask = leaf("q", "f32", (3, heads, 8)), leaf("mask", "f32", (3, 5))
        k, v = leaf("k", "f32", (5, heads, 8)), leaf("v", "f32", (5, heads, 8))
        result = ops.scaled_dot_product_attention(q, k, v, mask, max_bias=8.0)
        yield single(f"{_SDPA}/f32/alibi of {heads}", result)
    for layout, make in LAYOUTS.items():
        q, k, v = (
            make("q", "f32", (3, 4, 8)),
            make("k", "f32", (7, 2, 8)),
            make("v", "f32", (7, 2, 8)),
        )
        yield single(f"{_SDPA}/f32/{layout}", ops.scaled_dot_product_attention(q, k, v))
    half = [ops.transpose(leaf(n, "f16", (2, 7, 8)), axis0=0, axis1=1) for n in "kv"]
    q = leaf("q", "f32", (3, 4, 8))
    yield single(f"{_SDPA}/f32 f16/cache by head", ops.scaled_dot_product_attention(q, *half))
