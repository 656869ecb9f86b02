"""Cases of several nodes: values that meet, states over several runs, and whole decoders."""

from __future__ import annotations

from collections.abc import Iterator

from hotplug import ops
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.testing.conformance.case import Case
from hotplug.testing.conformance.cases.operands import BLOCK_QUANTS, QUANTS, leaf
from hotplug.testing.conformance.values import Recipe, given, integers, normal
from hotplug.testing.graphs import DecoderShape, decoder

__all__ = ["cases"]

# Chains of f32 ops: each step's error is some units of 2^-24 of values of one size, and softmax and
# norms pass it on with a factor of a few. 1e-4 leaves room for some hundred such steps.
_CHAIN = 1e-4
# Decoders in default precision: activations lose half a step of their blocks' 1/127, 0.4% at most,
# in every product; its errors are independent and add up like their squares over some layers.
_ROUNDED = 0.08
# K and V are rounded to f16 on the way into a cache, where an error before it moves them by 2^-11.
_F16_CACHE = 2e-3


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _results()
    yield from _views()
    yield from _reuse()
    yield from _states()
    yield from _caches()
    yield from _decoders()


def _results() -> Iterator[Case]:
    x, w = leaf("x", "f32", (3, 4)), ops.weight(name="w", dtype="f32", shape=(3, 4))
    total = ops.add(x, w)
    yield Case("program/one value as two outputs", Graph.build({"a": total, "b": total}))
    yield Case("program/value and its user", Graph.build({"a": total, "b": ops.neg(total)}))
    view = ops.transpose(total)
    yield Case("program/value and its view", Graph.build({"a": total, "b": view}))
    yield Case("program/input, weight and value", Graph.build({"x": x, "w": w, "y": total}))
    yield Case("program/input twice", Graph.build({"a": x, "b": x, "c": ops.transpose(x)}))
    half = ops.slice(total, starts=(1, 0), stops=(3, 4))
    yield Case(
        "program/parts of one value", Graph.build({"a": half, "b": ops.reshape(total, shape=(12,))})
    )
    yield Case("program/operand twice", Graph.build({"y": ops.mul(x, x), "z": ops.sub(x, x)}))
    scaled = ops.mul(x, w)
    yield Case(
        "program/an output that another overwrites in place",
        Graph.build({"a": scaled, "b": ops.abs(scaled), "c": ops.neg(ops.abs(scaled))}),
    )


def _views() -> Iterator[Case]:
    x = leaf("x", "f32", (4, 6, 5))
    box = ops.slice(x, starts=(0, 1, 1), stops=(4, 6, 5), steps=(2, 2, 1))
    turned = ops.permute(box, axes=(2, 0, 1))
    inner = ops.slice(turned, starts=(1, 0, 0), stops=(4, 2, 3), steps=(2, 1, 1))
    yield Case("program/view of view of view", Graph.build({"y": inner}))
    yield Case("program/op on a view of views", Graph.build({"y": ops.neg(inner)}))
    flat = ops.reshape(ops.transpose(x), shape=(24, 5))
    yield Case("program/reshape that takes a copy", Graph.build({"y": ops.neg(flat)}))
    both = ops.add(ops.transpose(leaf("a", "f32", (5, 5))), leaf("a", "f32", (5, 5)))
    yield Case("program/a plus its own transpose", Graph.build({"y": both}))
    computed = ops.neg(x)
    view = ops.reshape(ops.slice(computed, starts=(1, 0, 0), stops=(3, 6, 5)), shape=(12, 5))
    yield Case("program/view of a computed value", Graph.build({"y": ops.abs(view), "z": view}))
    written = ops.transpose(ops.abs(ops.transpose(ops.neg(x))))
    yield Case("program/in place through a view", Graph.build({"y": written}))


def _reuse() -> Iterator[Case]:
    """Memory that several values share one after the other."""
    x = leaf("x", "f32", (65,))
    for length in (3, 40):
        node: Node = x
        for step in range(length):
            node = ops.neg(node) if step % 2 else ops.abs(node)
        yield Case(f"program/chain of {length}", Graph.build({"y": node}), runs=2)
    parts = [ops.roll(ops.neg(x), shifts=(i,)) for i in range(9)]
    joined = ops.concat(*parts)
    yield Case("program/many values at once", Graph.build({"y": joined}))
    node = x
    for shift in range(9):
        node = ops.maximum(ops.roll(node, shifts=(shift,)), ops.minimum(node, x))
    yield Case("program/old values needed again", Graph.build({"y": node}), runs=2)
    mixed = ops.cast(ops.argsort(x), dtype="f32")
    mixed = ops.where(ops.greater(mixed, x), mixed, x)
    yield Case("program/several dtypes", Graph.build({"y": ops.cast(mixed, dtype="f16")}))
    empty = ops.concat(ops.neg(leaf("none", "f32", (0,))), x)
    yield Case("program/an empty value among others", Graph.build({"y": empty}))
    constant = ops.fill(value=2.0, dtype="f32", shape=(4,))
    rows = ops.cast(ops.arange(start=0, stop=4, dtype="i32"), dtype="f32")
    yield Case("program/without leaves", Graph.build({"y": ops.mul(constant, rows)}), runs=2)


def _state(dtype: str = "f32", shape: tuple[int, ...] = (6, 4), name: str = "s") -> Node:
    return ops.state(name=name, dtype=dtype, shape=shape)


def _write(state: Node, index: int, rows: Node) -> Node:
    at = ops.fill(value=index, dtype="i32", shape=(1,))
    return ops.scatter_rows(state, at, rows)


def _states() -> Iterator[Case]:
    state = _state()
    x = leaf("x", "f32", (1, 4))
    yield Case("state/unwritten is zero", Graph.build({"y": ops.add(state, x)}), runs=2)
    more = ops.add(state, x)
    yield Case("state/replaced", Graph.build({"y": more}, {"s": more}), runs=3)
    yield Case("state/replaced, nothing returned", Graph.build({}, {"s": more}), runs=3)
    written = _write(state, 2, x)
    yield Case("state/row written in place", Graph.build({"y": written}, {"s": written}), runs=2)
    after = ops.neg(written)
    yield Case("state/read after the write", Graph.build({"y": after}, {"s": written}), runs=3)
    old = ops.contiguous(state)
    chained = _write(_write(ops.scatter_rows(state, _row_ids(), x), 0, ops.neg(x)), 5, x)
    graph = Graph.ordered(
        _in_order(old, chained, ops.neg(chained)),
        {"old": old, "new": ops.neg(chained)},
        {"s": chained},
    )
    data: dict[str, Recipe] = {"rows": integers(-1, 6)}
    yield Case("state/chain of writes, read before and after", graph, data, runs=4)
    as_heads = ops.reshape(written, shape=(6, 2, 2))
    view = ops.permute(as_heads, axes=(1, 0, 2))
    yield Case("state/read through views", Graph.build({"y": view}, {"s": written}), runs=2)
    moved = ops.contiguous(ops.roll(state, shifts=(1, 0)))
    turned = ops.scatter_rows(moved, _row_ids(), x)
    yield Case("state/shifted and written", Graph.build({"y": turned}, {"s": turned}), data, runs=4)
    yield Case("state/given back as it is", Graph.build({"y": state}, {"s": state}), runs=2)
    a, b = _state(name="a"), _state(name="b")
    swapped = Graph.build({}, {"a": ops.contiguous(ops.add(b, x)), "b": ops.contiguous(ops.neg(a))})
    yield Case("state/two that feed each other", swapped, runs=4)
    started: dict[str, Recipe] = {"s": given(1, 2, 3)}
    yield Case("state/not zero at first", Graph.build({"y": more}, {"s": more}), started, runs=2)


def _row_ids() -> Node:
    return leaf("rows", "i32", (1,))


def _in_order(*results: Node) -> tuple[Node, ...]:
    """Nodes in the order of the results: all that the first one needs comes first."""
    ordered: dict[Node, None] = {}
    for result in results:
        ordered.update(dict.fromkeys(Graph.build({"y": result}).nodes))
    return tuple(ordered)


def _caches() -> Iterator[Case]:
    """A KV cache written and attended to in one graph, over several runs, padding among them."""
    for dtype in ("f32", "f16", "bf16", "q8_0", "q4_0"):
        for tokens in (1, 3, 8):
            yield _cache_case(dtype, tokens)


def _cache_case(dtype: str, tokens: int) -> Case:
    rows, heads, width = 32, 2, 32
    q = leaf("q", "f32", (tokens, 2 * heads, width))
    new = leaf("kv", "f32", (tokens, heads, width))
    at, positions = leaf("at", "i32", (tokens,)), leaf("positions", "i32", (tokens,))
    cached: dict[str, Node] = {}
    for name, value in (("k", new), ("v", ops.neg(new))):
        state = _state(dtype, (rows, heads, width), name)
        cached[name] = ops.scatter_rows(state, at, value)
    k, v = cached["k"], cached["v"]
    y = ops.scaled_dot_product_attention(q, k, v, None, positions, causal=True)
    runs = 3
    data = {"at": _cache_rows(tokens, runs), "positions": _cache_rows(tokens, runs)}
    name = f"cache/{dtype}/{tokens} tokens"
    return Case(name, Graph.build({"y": y}, cached), data, runs=runs, tolerance=_F16_CACHE)


def _cache_rows(tokens: int, runs: int) -> tuple[Recipe, ...]:
    """Rows one after the other; the last run has a single token and padding, whose row is -1."""
    whole = [given(*range(run * tokens, (run + 1) * tokens)) for run in range(runs - 1)]
    return (*whole, given((runs - 1) * tokens, *([-1] * (tokens - 1))))


def _decoders() -> Iterator[Case]:
    for weights in ("f32", *QUANTS):
        for tokens in (1, 4):
            yield _decoder_case(weights, tokens, slow=weights not in {"f32", *BLOCK_QUANTS})
    yield _block("f16")
    for tokens in (1, 5):
        yield _projections(tokens)


def _projections(tokens: int) -> Case:
    """Products of one norm with weights of several dtypes, to each of which a row is added."""
    x = ops.rms_norm(leaf("x", "f32", (tokens, 64)), leaf("norm", "f32", (64,)))
    results = {}
    data: dict[str, Recipe] = {}
    for name, dtype, columns in (("q", "q4_0", 40), ("k", "q4_0", 24), ("v", "q8_0", 24)):
        w = ops.weight(name=name, dtype=dtype, shape=(columns, 64))
        product = ops.matmul(x, w, transpose_b=True)
        results[name] = ops.add(product, leaf(f"{name} bias", "f32", (columns,)))
        data[name] = normal(64**-0.5)
    graph = Graph.build(results)
    return Case(f"program/projections of {tokens}", graph, data, tolerance=_ROUNDED)


def _decoder_case(weights: str, tokens: int, *, slow: bool) -> Case:
    shape = DecoderShape(
        layers=2, width=256, hidden=256, heads=4, kv_heads=2, head=64,
        vocabulary=40, context=16, tokens=tokens, weights=weights,
    )  # fmt: skip
    data: dict[str, Recipe | tuple[Recipe, ...]] = {
        "tokens": integers(0, 39),
        "rows": _cache_rows(tokens, 3),
        "positions": _cache_rows(tokens, 3),
    }
    graph = decoder(shape)
    # As in trained models: products keep the size of what goes in, and attention does not
    # saturate; otherwise small errors would grow into large ones by right.
    small = {name for name, node in graph.weights.items() if len(node.shape) == 2}
    data |= dict.fromkeys(small, normal(shape.width**-0.5))
    tolerance = _F16_CACHE if weights == "f32" else _ROUNDED
    name = f"decoder/{weights}/{tokens} tokens"
    return Case(name, graph, data, runs=3, tolerance=tolerance, slow=slow)


def _block(dtype: str) -> Case:
    """Norm, product, gate, residual, softmax, in a narrow dtype."""
    x, w = leaf("x", dtype, (5, 32)), ops.weight(name="w", dtype=dtype, shape=(32, 32))
    hidden = ops.cast(ops.matmul(ops.rms_norm(x), w, transpose_b=True), dtype=dtype)
    mixed = ops.add(x, ops.swiglu(hidden, ops.silu(hidden)))
    result = ops.softmax(ops.cast(mixed, dtype="f32"), scale=0.1)
    # Four roundings to f16, 2^-11 each, of values up to some tens, in softmax times 0.1.
    return Case(f"program/block in {dtype}", Graph.build({"y": result}), tolerance=2e-2)
