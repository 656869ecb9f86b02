"""The oracle's products, attention and RoPE against definitions written another way."""

from __future__ import annotations

import cmath
import math

import numpy as np
import pytest

from hotplug import ops, quants
from hotplug.dtypes import get
from hotplug.graph import Graph
from hotplug.tensor import HostTensor, TensorType
from hotplug.testing.oracle import evaluate

RNG = np.random.default_rng(7)
SDPA = ops.scaled_dot_product_attention


def value(node, **leaves):
    return evaluate(Graph.build({"y": node}), leaves)["y"]


def leaf(name, array, dtype="f64"):
    return ops.input(name=name, dtype=dtype, shape=np.shape(array))


def test_matmul_by_hand():
    a, b = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [5.0, 6.0]])

    plain = value(ops.matmul(leaf("a", a), leaf("b", b)), a=a, b=b)
    turned = value(ops.matmul(leaf("a", a), leaf("b", b), transpose_b=True), a=a, b=b)

    np.testing.assert_array_equal(plain, [[13, 16]])
    np.testing.assert_array_equal(turned, [[11, 17]])


def test_matmul_broadcasts_leading_axes():
    a, b = RNG.normal(size=(2, 1, 3, 4)), RNG.normal(size=(5, 4, 2))

    got = value(ops.matmul(leaf("a", a), leaf("b", b)), a=a, b=b)

    np.testing.assert_allclose(got, np.einsum("bxmk,xkn->bxmn", np.repeat(a, 5, 1), b))


def test_matmul_of_quantised_weights_uses_what_they_decode_to():
    w, x = RNG.normal(size=(3, 32)).astype(np.float32), RNG.normal(size=(2, 32))
    dtype = get("q4_0")
    blocks = HostTensor(TensorType(dtype, (3, 32)), quants.encode(w, dtype))
    node = ops.matmul(leaf("x", x), leaf("w", w, "q4_0"), transpose_b=True)
    decoded = quants.decode(blocks.data, dtype, (3, 32))

    np.testing.assert_allclose(value(node, x=x, w=blocks), x @ decoded.T, rtol=1e-6)


def test_matmul_grouped():
    x, w = RNG.normal(size=(2, 1, 3)), RNG.normal(size=(4, 5, 3))
    ids = np.array([[3, 0], [-1, 4]])
    node = ops.matmul_grouped(leaf("x", x), leaf("w", w), leaf("i", ids, "i32"))

    got = value(node, x=x, w=w, i=ids)

    np.testing.assert_allclose(got[0], [w[3] @ x[0, 0], w[0] @ x[0, 0]], rtol=1e-6)
    np.testing.assert_array_equal(got[1], np.zeros((2, 5)))


def test_matmul_grouped_takes_a_row_for_each_expert():
    x, w = RNG.normal(size=(1, 2, 3)), RNG.normal(size=(2, 4, 3))
    node = ops.matmul_grouped(leaf("x", x), leaf("w", w), leaf("i", [[1, 0]], "i64"))

    got = value(node, x=x, w=w, i=np.array([[1, 0]]))

    np.testing.assert_allclose(got[0], [w[1] @ x[0, 0], w[0] @ x[0, 1]], rtol=1e-6)


def test_outer():
    a, b = RNG.normal(size=(2, 3)), RNG.normal(size=4)

    got = value(ops.outer(leaf("a", a), leaf("b", b)), a=a, b=b)

    np.testing.assert_allclose(got, np.einsum("bi,j->bij", a, b))


# RoPE: pairs as complex numbers, turned by e^(i t)


def turned(x, positions, pairs, angle, *, interleaved, magnitude=1.0):
    """`angle(i)` is the angle of pair i at position 1."""
    result = np.array(x)
    for token, position in enumerate(positions):
        for pair in range(pairs):
            one, two = (2 * pair, 2 * pair + 1) if interleaved else (pair, pair + pairs)
            for head in range(x.shape[1]):
                number = complex(x[token, head, one], x[token, head, two])
                number *= magnitude * cmath.exp(1j * position * angle(pair))
                result[token, head, one], result[token, head, two] = number.real, number.imag
    return result


def rope(x, positions, factors=None, **params):
    nodes = [leaf("x", x), leaf("p", positions, "i32")]
    leaves = {"x": x, "p": positions}
    if factors is not None:
        nodes.append(leaf("f", factors, "f32"))
        leaves["f"] = factors
    return value(ops.rope(*nodes, **params), **leaves)


@pytest.mark.parametrize(("layout", "interleaved"), [("interleaved", True), ("half", False)])
def test_rope_turns_pairs(layout, interleaved):
    x, at = RNG.normal(size=(3, 2, 8)), np.array([0, 5, 99])
    expected = turned(x, at, 4, lambda i: 10000 ** (-2 * i / 8), interleaved=interleaved)

    np.testing.assert_allclose(rope(x, at, layout=layout), expected, atol=1e-12)


def test_rope_of_some_dims_leaves_the_others():
    x, at = RNG.normal(size=(2, 1, 8)), np.array([3, 4])
    got = rope(x, at, dims=4, base=100.0, magnitude=2.0)

    expected = turned(x[..., :4], at, 2, lambda i: 100 ** (-2 * i / 4), interleaved=True,
                      magnitude=2.0)  # fmt: skip
    np.testing.assert_allclose(got[..., :4], expected, atol=1e-12)
    np.testing.assert_array_equal(got[..., 4:], x[..., 4:])


def test_rope_scales_frequencies_and_divides_by_factors():
    x, at, factors = RNG.normal(size=(2, 1, 4)), np.array([3, 40]), np.array([1.0, 8.0])
    expected = turned(x, at, 2, lambda i: 0.25 * 10000 ** (-i / 2) / factors[i], interleaved=True)

    np.testing.assert_allclose(rope(x, at, factors, frequency_scale=0.25), expected, atol=1e-12)


def test_rope_is_relative():
    """Products of turned vectors depend on the distance of their positions only."""
    q, k = RNG.normal(size=(2, 1, 16))

    def product(i, j):
        both = rope(np.stack([q, k]), np.array([i, j]))
        return float(both[0, 0] @ both[1, 0])

    assert product(5, 2) == pytest.approx(product(105, 102), abs=1e-10)


def test_rope_yarn_by_the_formula():
    dims, base, context, scale, mix = 16, 10000.0, 64, 0.25, 1.0
    x, at = RNG.normal(size=(3, 1, dims)), np.array([1, 10, 200])

    def correction(turns):
        return dims * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(base))

    low = max(0, math.floor(correction(32.0)))
    high = min(dims - 1, math.ceil(correction(1.0)))

    def angle(pair):
        u = base ** (-2 * pair / dims)
        ramp = min(max((pair - low) / max(0.001, high - low), 0.0), 1.0)
        kept = (1 - ramp) * mix
        return scale * u * (1 - kept) + u * kept

    expected = turned(x, at, dims // 2, angle, interleaved=True,
                      magnitude=1 + 0.1 * math.log(1 / scale))  # fmt: skip
    got = rope(x, at, frequency_scale=scale, extrapolation=mix, original_context=context)

    np.testing.assert_allclose(got, expected, atol=1e-12)


def sections_of(layout, sections, pairs):
    """Row of positions of each pair, counted out."""
    if layout == "sections_interleaved":
        rows = []
        for place in range(sum(sections)):
            row = place % 3
            rows.append(row if place < 3 * sections[row] else 3)
    else:
        rows = [row for row, count in enumerate(sections) for _ in range(count)]
    return [rows[pair % len(rows)] for pair in range(pairs)]


@pytest.mark.parametrize("layout", ["sections", "sections_interleaved", "vision"])
@pytest.mark.parametrize("sections", [(2, 1, 1, 0), (1, 1, 1, 1), (2, 2, 0, 0), (3, 2, 2, 1)])
def test_rope_with_sections(layout, sections):
    width, pairs = 16, 8
    x, at = RNG.normal(size=(2, 1, width)), RNG.integers(0, 30, (4, 2))
    rows = sections_of(layout, sections, pairs)
    starts = np.concatenate([[0], np.cumsum(sections)])
    expected = np.array(x)
    for token in range(2):
        for pair in range(pairs):
            exponent = 2 * pair / width
            if layout == "vision":
                exponent = 4 * (pair % sum(sections) - starts[rows[pair]]) / width
            t = at[rows[pair], token] * 10000.0**-exponent
            number = complex(x[token, 0, pair], x[token, 0, pair + pairs]) * cmath.exp(1j * t)
            expected[token, 0, pair], expected[token, 0, pair + pairs] = number.real, number.imag

    got = rope(x, at, layout=layout, sections=sections)

    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_sections_with_equal_rows_are_plain():
    x, at = RNG.normal(size=(3, 2, 16)), np.array([1, 2, 30])
    got = rope(x, np.stack([at] * 4), layout="sections", sections=(3, 3, 2, 0))

    np.testing.assert_allclose(got, rope(x, at, layout="half"), atol=1e-12)


# Attention


def attend(q, k, v, visible=None, add=0.0, scale=None, cap=0.0, sinks=None):
    """Query by query in plain Python; q (tokens, heads, d), one lead."""
    tokens, heads, width = q.shape
    result = np.zeros((tokens, heads, v.shape[-1]))
    scale = 1 / math.sqrt(width) if scale is None else scale
    add = np.broadcast_to(add, (heads, tokens, len(k)))
    for t in range(tokens):
        for h in range(heads):
            g = h * k.shape[1] // heads
            rows = [r for r in range(len(k)) if visible is None or visible[t][r]]
            scores = [scale * float(q[t, h] @ k[r, g]) for r in rows]
            scores = [cap * math.tanh(s / cap) if cap else s for s in scores]
            weights = [math.exp(s + add[h, t, r]) for s, r in zip(scores, rows, strict=True)]
            total = sum(weights) + (0 if sinks is None else math.exp(sinks[h]))
            for weight, r in zip(weights, rows, strict=True):
                result[t, h] += weight / total * v[r, g]
    return result


Q, K, V = RNG.normal(size=(3, 4, 8)), RNG.normal(size=(6, 2, 8)), RNG.normal(size=(6, 2, 5))


def attention(mask=None, positions=None, sinks=None, q=Q, k=K, v=V, **params):
    nodes = [leaf("q", q), leaf("k", k), leaf("v", v)]
    leaves = {"q": q, "k": k, "v": v}
    for name, array, dtype in (("m", mask, "f64"), ("p", positions, "i32"), ("s", sinks, "f64")):
        if array is None:
            nodes.append(None)
            continue
        array = np.asarray(array)  # noqa: PLW2901
        nodes.append(leaf(name, array, "bool" if array.dtype == bool else dtype))
        leaves[name] = array
    return value(SDPA(*nodes, **params), **leaves)


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_attention_with_shared_heads():
    close(attention(), attend(Q, K, V))


def test_attention_scale_and_cap():
    close(attention(scale=0.7, softcap=1.2), attend(Q, K, V, scale=0.7, cap=1.2))


def test_causal_queries_stand_at_the_end():
    visible = [[r <= 3 + t for r in range(6)] for t in range(3)]

    close(attention(causal=True), attend(Q, K, V, visible))


def test_causal_at_positions_with_padding():
    at = [1, -1, 4]
    visible = [[p >= 0 and r <= p for r in range(6)] for p in at]

    close(attention(positions=at, causal=True), attend(Q, K, V, visible))


def test_padding_gives_zeros_without_causal_too():
    got = attention(positions=[0, -1, 2])

    np.testing.assert_array_equal(got[1], np.zeros((4, 5)))
    close(got[[0, 2]], attend(Q, K, V)[[0, 2]])


@pytest.mark.parametrize("window", [1, 2, 5, 99])
def test_a_window_counts_the_queries_own_row(window):
    at = [1, 3, 5]
    visible = [[p - window + 1 <= r <= p for r in range(6)] for p in at]

    got = attention(positions=at, causal=True, window=window)

    close(got, attend(Q, K, V, visible))


def test_more_queries_than_rows_are_no_padding():
    q, k, v = RNG.normal(size=(5, 2, 4)), RNG.normal(size=(2, 2, 4)), RNG.normal(size=(2, 2, 4))

    close(attention(q=q, k=k, v=v), attend(q, k, v))


def test_masks_and_slopes():
    mask = RNG.normal(size=(3, 6))
    slopes = np.array([2.0 ** (-8 * (h + 1) / 4) for h in range(4)])[:, None, None]

    close(attention(mask=mask), attend(Q, K, V, add=mask))
    close(attention(mask=mask, max_bias=8.0), attend(Q, K, V, add=slopes * mask))


def test_a_bool_mask_hides_besides_causal():
    mask = RNG.integers(0, 2, (3, 6)).astype(bool)
    visible = [[mask[t, r] and r <= 3 + t for r in range(6)] for t in range(3)]

    close(attention(mask=mask, causal=True), attend(Q, K, V, visible))


def test_sinks():
    sinks = RNG.normal(size=4)

    close(attention(sinks=sinks), attend(Q, K, V, sinks=sinks))


def test_all_hidden_gives_zeros():
    hidden = np.zeros((3, 6), bool)

    np.testing.assert_array_equal(attention(mask=hidden), np.zeros((3, 4, 5)))
    np.testing.assert_array_equal(attention(mask=hidden, sinks=np.ones(4)), np.zeros((3, 4, 5)))


def test_leading_axes_broadcast():
    q = np.stack([Q, 2 * Q])
    got = attention(q=q)

    close(got[0], attend(Q, K, V))
    close(got[1], attend(2 * Q, K, V))
