"""Graphs of the shapes that programs have, for tests and benchmarks of planners and devices."""

from __future__ import annotations

from dataclasses import dataclass

from hotplug import ops
from hotplug.graph import Graph
from hotplug.node import Node

__all__ = ["DecoderShape", "decoder", "layers"]


def layers(count: int, width: int, rows: int = 1) -> Graph:
    """A chain of products with square f32 weights "blk.0.w", "blk.1.w", ..., and relu behind each.

    Its input is "x" (rows, width), its output "y" alike.
    """
    x = ops.input(name="x", dtype="f32", shape=(rows, width))
    for layer in range(count):
        weight = ops.weight(name=f"blk.{layer}.w", dtype="f32", shape=(width, width))
        x = ops.relu(ops.matmul(x, weight, transpose_b=True))
    return Graph.build({"y": x})


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """Sizes of a decoder-only transformer; the defaults are those of SmolLM2-135M."""

    layers: int = 30
    width: int = 576
    hidden: int = 1536
    heads: int = 9
    kv_heads: int = 3
    head: int = 64
    vocabulary: int = 49152
    context: int = 512
    tokens: int = 1
    weights: str = "q4_1"


def decoder(shape: DecoderShape | None = None) -> Graph:
    """A llama decoder step.

    Inputs are "tokens" (tokens,) i32, "positions" and "rows" alike; states "k0", "v0", ... hold the
    KV cache in f16; the output "logits" is (1, vocabulary) f32, of the last token.
    """
    shape = shape or DecoderShape()
    updates: dict[str, Node] = {}
    x = ops.take(_weight(shape, "embedding", shape.vocabulary, shape.width), _ids(shape, "tokens"))
    for layer in range(shape.layers):
        x = _attention(shape, layer, x, updates)
        x = _feed_forward(shape, layer, x)
    last = ops.slice(x, starts=(shape.tokens - 1, 0), stops=(shape.tokens, shape.width))
    logits = _linear(shape, "embedding", _norm(shape, "norm", last), shape.vocabulary)
    return Graph.build({"logits": logits}, updates)


def _ids(shape: DecoderShape, name: str) -> Node:
    return ops.input(name=name, dtype="i32", shape=(shape.tokens,))


def _weight(shape: DecoderShape, name: str, rows: int, columns: int) -> Node:
    return ops.weight(name=name, dtype=shape.weights, shape=(rows, columns))


def _linear(shape: DecoderShape, name: str, x: Node, rows: int) -> Node:
    return ops.matmul(x, _weight(shape, name, rows, x.shape[-1]), transpose_b=True)


def _norm(shape: DecoderShape, name: str, x: Node) -> Node:
    return ops.rms_norm(x, ops.weight(name=name, dtype="f32", shape=(shape.width,)), eps=1e-5)


def _attention(shape: DecoderShape, layer: int, x: Node, updates: dict[str, Node]) -> Node:
    positions = _ids(shape, "positions")
    normed = _norm(shape, f"{layer}.attention_norm", x)
    kv_width = shape.kv_heads * shape.head
    q = _linear(shape, f"{layer}.q", normed, shape.heads * shape.head)
    k = _linear(shape, f"{layer}.k", normed, kv_width)
    v = _linear(shape, f"{layer}.v", normed, kv_width)
    q = ops.rope(ops.reshape(q, shape=(shape.tokens, shape.heads, shape.head)), positions)
    k = ops.rope(ops.reshape(k, shape=(shape.tokens, shape.kv_heads, shape.head)), positions)
    keys = _cached(shape, f"k{layer}", ops.reshape(k, shape=(shape.tokens, kv_width)), updates)
    values = _cached(shape, f"v{layer}", v, updates)
    mixed = ops.scaled_dot_product_attention(q, keys, values, None, positions, causal=True)
    joined = ops.reshape(mixed, shape=(shape.tokens, shape.heads * shape.head))
    return ops.add(x, _linear(shape, f"{layer}.o", joined, shape.width))


def _cached(shape: DecoderShape, name: str, new: Node, updates: dict[str, Node]) -> Node:
    state = ops.state(name=name, dtype="f16", shape=(shape.context, new.shape[-1]))
    cache = ops.scatter_rows(state, _ids(shape, "rows"), new)
    updates[name] = cache
    return ops.reshape(cache, shape=(shape.context, shape.kv_heads, shape.head))


def _feed_forward(shape: DecoderShape, layer: int, x: Node) -> Node:
    normed = _norm(shape, f"{layer}.feed_forward_norm", x)
    gate = _linear(shape, f"{layer}.gate", normed, shape.hidden)
    up = _linear(shape, f"{layer}.up", normed, shape.hidden)
    return ops.add(x, _linear(shape, f"{layer}.down", ops.swiglu(gate, up), shape.width))
