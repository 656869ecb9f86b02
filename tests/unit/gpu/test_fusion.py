"""What one kernel computes of several nodes is what they give one by one, and the oracle too."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug import memory, ops
from hotplug.backend import Partition
from hotplug.gpu import fusion
from hotplug.gpu.driver import Capabilities
from hotplug.gpu.executable import GPUExecutable
from hotplug.graph import Graph
from hotplug.testing.conformance.values import normal, tensor
from hotplug.testing.graphs import DecoderShape, decoder
from hotplug.testing.oracle import evaluate

ROWS, WIDTH = 5, 48

GPU = Capabilities(
    dialect="opencl", identity="test", is_cpu=False, f64=True, alignment=64, max_items=256,
    local_bytes=32768, max_buffer=2**32, int8=True,
)  # fmt: skip


def leaf(name, *shape, dtype="f32"):
    return ops.input(name=name, dtype=dtype, shape=shape or (ROWS, WIDTH))


def patterns(graph):
    return [[node.op for node in fused.nodes] for fused in fusion.find(graph, GPU)]


def gate():
    x = ops.scale(leaf("x"), factor=0.5, offset=0.25)
    return Graph.build({"y": ops.mul(ops.mul(ops.sigmoid(x), x), leaf("up"))})


def broadcasting():
    x, row, column = leaf("x"), leaf("row", WIDTH), leaf("column", ROWS, 1, dtype="f16")
    wide = ops.add(ops.mul(x, ops.cast(column, dtype="f32")), row)
    return Graph.build({"y": ops.cast(ops.clamp(wide, low=-1.0, high=0.75), dtype="f16")})


def choosing():
    x, w = leaf("x"), leaf("w")
    larger = ops.logical_and(ops.greater(x, w), ops.less(w, leaf("most", 1)))
    return Graph.build({"y": ops.where(larger, ops.exp(x), ops.neg(w)), "larger": larger})


def transposed():
    x = ops.transpose(leaf("x", WIDTH, ROWS))
    return Graph.build({"y": ops.add(ops.square(x), ops.tanh(x)), "z": ops.sqrt(leaf("w"))})


def residual():
    total = ops.add(leaf("x"), leaf("d"))
    normed = ops.rms_norm(total, leaf("weight", WIDTH), eps=1e-5)
    return Graph.build({"y": ops.add(total, ops.relu(normed))})


def centred():
    total = ops.add(leaf("x"), ops.transpose(leaf("d", WIDTH, ROWS)))
    w, b = leaf("weight", WIDTH, dtype="f16"), leaf("bias", WIDTH, dtype="f16")
    return Graph.build({"y": ops.layer_norm(total, w, b), "total": total})


def cached(tokens=3, table="f16", flat=True, then=None, **params):
    """Attention over a cache that new tokens go into.

    Args:
        flat: whether a row of the cache is one axis.
        then: what else is done with queries or rows of the cache, by name.
    """
    at = leaf("at", tokens, dtype="i32")
    queries = ops.rope(leaf("q", tokens, 6, 16), at, **params)
    keys = ops.rope(leaf("k", tokens, 2, 16), at, **params)
    values = ops.transpose(leaf("v", 2, tokens, 8), axis0=0, axis1=1)
    rows = {}
    for name, heads in (("keys", keys), ("values", values)):
        new = ops.reshape(heads, shape=(tokens, -1)) if flat else heads
        state = ops.state(name=name, dtype=table, shape=(12, *new.shape[1:]))
        rows[name] = ops.scatter_rows(state, at, new)
    caches = [ops.reshape(row, shape=(12, 2, -1)) if flat else row for row in rows.values()]
    mixed = ops.scaled_dot_product_attention(queries, *caches, None, at, causal=True)
    more = then(queries, keys, rows) if then else {}
    return Graph.build({"y": mixed, **more}, rows)


def linear(x, name, columns, dtype="q4_0", **params):
    w = ops.weight(name=name, dtype=dtype, shape=(columns, x.shape[-1]))
    return ops.matmul(x, w, transpose_b=True, **params)


def normed(rows=2, width=64):
    weight = ops.weight(name="norm", dtype="f32", shape=(width,))
    return ops.rms_norm(leaf("x", rows, width), weight, eps=1e-3)


def projections(rows=1):
    """Products of three dtypes of one norm, some of them with a bias."""
    x = normed(rows)
    y = {name: linear(x, name, 40) for name in "qk"}
    y["v"] = linear(x, "v", 24, dtype="q5_1")
    y["w"] = linear(x, "w", 24, dtype="q5_1")
    biased = {
        name: ops.add(ops.weight(name=f"b{name}", dtype="f32", shape=(y[name].shape[1],)), y[name])
        for name in "qkv"
    }
    return Graph.build({**y, **biased})


def feed_forward(rows=1, precision="default"):
    """A block of a network, its residual added up."""
    x = normed(rows)
    gate, up = (linear(x, name, 96, "q8_0", precision=precision) for name in ("gate", "up"))
    down = linear(ops.swiglu(gate, up), "down", 64, precision=precision)
    return Graph.build({"y": ops.add(leaf("x", rows, 64), down)})


CACHED = ["rope", "rope", "reshape", "scatter_rows", "scatter_rows"]

CASES = {
    "gate": (gate, [["scale", "sigmoid", "mul", "mul"]]),
    "broadcasting": (broadcasting, [["cast", "mul", "add", "clamp", "cast"]]),
    "choosing": (choosing, [["exp", "neg", "where"], ["greater", "less", "logical_and"]]),
    "transposed": (transposed, [["square", "tanh", "add"]]),
    "residual": (residual, [["add", "rms_norm"], ["relu", "add"]]),
    "centred": (centred, [["add", "layer_norm"]]),
    "cached": (cached, [CACHED]),
    "cached in part": (
        lambda: cached(table="f32", flat=False, layout="interleaved", dims=8),
        [["rope", "rope", "scatter_rows", "scatter_rows"]],
    ),
    "projections": (projections, [["rms_norm", *["matmul", "add"] * 3, "matmul"]]),
    "feed-forward": (
        feed_forward,
        [["rms_norm", "matmul", "matmul", "swiglu"], ["matmul", "add"]],
    ),
}


def values(graph):
    random = np.random.default_rng(5)
    data = {}
    for name, node in graph.inputs.items():
        if node.dtype.name == "i32":
            data[name] = np.array([4, 9, 4], np.int32)  # of two rows for one place the last stays
        else:
            data[name] = random.standard_normal(node.shape).astype(np.float32)
    for name, node in graph.weights.items():  # so that products are of the size of what goes in
        data[name] = tensor(random, node.type, normal(node.shape[-1] ** -0.5))
    return data


def run(device, graph, *, fuse):
    """Results by name, of a second run, whose memory holds what the first left."""
    executable = GPUExecutable(Partition(graph), device.buffers, device.programs, fuse=fuse)
    bindings = {}
    for node in (node for node in graph.nodes if node.is_leaf):
        bindings[node.name] = device.buffers.allocate(node.type.nbytes)
    for name, value in values(graph).items():
        inputs = graph.inputs
        data = value.astype(inputs[name].dtype.numpy) if name in inputs else value.data
        bindings[name].write(0, data.data)
    for name, node in graph.outputs:
        bindings[f"output:{name}"] = device.buffers.allocate(node.type.nbytes)
    executable.run(bindings)
    executable.run(bindings)
    results = {}
    for name, node in (*graph.outputs, *graph.updates):
        results[name] = np.empty(node.shape, node.dtype.numpy)
        bound = name if name in dict(graph.updates) else f"output:{name}"
        bindings[bound].read(0, results[name].data)
    return executable, results


@pytest.mark.parametrize("name", CASES)
def test_what_is_fused_gives_what_single_nodes_give(each, name):
    build, expected = CASES[name]
    graph = build()
    assert sorted(patterns(graph)) == sorted(expected)
    executable, together = run(each, graph, fuse=True)
    apart_executable, apart = run(each, graph, fuse=False)
    assert len(executable.explain()) < len(apart_executable.explain())
    oracle = {
        name.removeprefix("state:"): value for name, value in evaluate(graph, values(graph)).items()
    }
    rounded = any(node.dtype.quantised for node in graph.weights.values())
    for result, value in together.items():
        rounding = 1e-3 if value.dtype == np.float16 else 1e-6
        far = 0.02 if rounded else rounding  # activations lose half of 1/127
        for reference, allowed in ((apart[result], rounding), (oracle[result], far)):
            wide = np.asarray(reference, np.float64)
            np.testing.assert_allclose(value.astype(np.float64), wide, allowed, allowed)


def test_what_others_need_is_left_alone():
    x, w = leaf("x"), leaf("w")
    inner = ops.exp(x)
    assert patterns(Graph.build({"y": ops.mul(inner, w), "inner": inner})) == []
    assert patterns(Graph.build({"y": ops.mul(inner, w), "sum": ops.sum(inner, axis=0)})) == []
    # Computed late, it would see what the state has become.
    state = ops.state(name="s", dtype="f32", shape=(ROWS, WIDTH))
    seen = ops.exp(state)
    new = ops.scatter_rows(state, leaf("at", 1, dtype="i32"), leaf("row", 1, WIDTH))
    assert patterns(Graph.build({"y": ops.mul(seen, ops.sum(new, axis=0))}, {"s": new})) == []
    # Another shape would be computed again for every element.
    assert patterns(Graph.build({"y": ops.mul(x, ops.exp(leaf("row", WIDTH)))})) == []
    assert (
        patterns(
            Graph.build(
                {"y": ops.mul(ops.exp(leaf("i", 3, dtype="f64")), leaf("j", 3, dtype="f64"))}
            )
        )
        == []
    )


def test_a_chain_reads_no_more_than_its_kernel_takes():
    total = leaf("x0")
    for i in range(1, 10):
        total = ops.add(total, leaf(f"x{i}"))
    found = patterns(Graph.build({"y": total}))
    assert found == [["add"] * 5, ["add"] * 4] or found == [["add"] * 5, ["add"] * 4][::-1]


def test_a_sum_that_is_needed_before_its_norm_stays_apart():
    total = ops.add(leaf("x"), leaf("d"))
    early = ops.sum(total, axis=-1, keepdims=True)
    graph = Graph.build({"y": ops.rms_norm(total), "early": early})
    ordered = Graph.ordered(
        [*(node for node in graph.nodes if node.op != "rms_norm"), dict(graph.outputs)["y"]],
        dict(graph.outputs),
    )
    assert patterns(ordered) == []


def test_many_tokens_are_rotated_apart():
    assert patterns(cached(tokens=9)) == []


def test_heads_that_others_need_are_left_alone():
    graph = cached(then=lambda queries, keys, rows: {"keys": ops.sum(keys, axis=0)})
    assert patterns(graph) == []
    old = ops.state(name="keys", dtype="f16", shape=(12, 32))
    graph = cached(then=lambda queries, keys, rows: {"old": ops.sum(old, axis=0)})
    assert patterns(graph) == []
    graph = cached(then=lambda queries, keys, rows: {"new": ops.sum(rows["keys"], axis=0)})
    assert patterns(graph) == [CACHED]


def test_heads_that_two_attentions_read_are_made_once():
    def again(queries, keys, rows):
        caches = [ops.reshape(row, shape=(12, 2, -1)) for row in rows.values()]
        return {"z": ops.scaled_dot_product_attention(queries, *caches)}

    assert patterns(cached(then=again)) == [CACHED]


def test_a_decoder_needs_fewer_launches():
    found = patterns(decoder(DecoderShape(layers=2, width=64, heads=2, kv_heads=1, head=32)))
    assert found.count(CACHED) == 2
    assert found.count(["rms_norm", *["matmul"] * 3]) == 2
    assert found.count(["rms_norm", "matmul", "matmul", "swiglu"]) == 2
    assert found.count(["matmul", "add"]) == 4
    floats = DecoderShape(layers=2, width=64, heads=2, kv_heads=1, head=32, weights="f32")
    assert patterns(decoder(floats)).count(["add", "rms_norm"]) == 3


def test_products_that_round_nothing_are_left_alone():
    assert ["matmul", "add"] not in patterns(feed_forward(precision="exact"))
    assert ["matmul", "add"] not in patterns(feed_forward(rows=9))


def test_products_are_not_computed_later_than_they_are_needed():
    x = leaf("x", 2, 64)
    a, b = linear(x, "a", 8), linear(x, "b", 8)
    assert patterns(Graph.build({"a": ops.sum(a, axis=0), "b": b})) == []
    assert patterns(Graph.build({"y": ops.add(a, ops.softmax(b))})) == [["matmul", "add"]]
    assert patterns(Graph.build({"y": ops.add(a, b)})) == [["matmul", "matmul"]]
    # What is added would be what the state has become.
    state = ops.state(name="s", dtype="f32", shape=(2, 8))
    new = ops.scatter_rows(state, leaf("at", 1, dtype="i32"), leaf("row", 1, 8))
    graph = Graph.build({"y": ops.add(linear(x, "a", 8), state)}, {"s": new})
    assert patterns(graph) == []


def test_what_is_needed_besides_is_stored():
    x = normed()
    a, b = linear(x, "a", 8), linear(x, "b", 8)
    graph = Graph.build({"x": ops.sum(x, axis=0), "a": a, "b": b})
    assert patterns(graph) == [["matmul", "matmul"]]
    gated = Graph.build({"y": ops.swiglu(a, b), "b": b})
    assert patterns(gated) == [["rms_norm", "matmul", "matmul"]]


def test_memory_of_what_is_never_stored_is_not_taken():
    graph = gate()
    apart, together = memory.plan(graph), memory.plan(graph, fusions=fusion.find(graph, GPU))
    assert together.arena_bytes == 0 < apart.arena_bytes
    inside = [node for node in graph.nodes if node.op in {"scale", "sigmoid"}]
    assert not set(inside) & together.locations.keys()
