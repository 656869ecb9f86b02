"""Graphs cut for several devices compute what they did, and keep what belongs together together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hotplug import ops
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.placement.parallel import Parallel, parallelise
from hotplug.placement.shards import Groups
from hotplug.quants import encode
from hotplug.tensor import HostTensor, TensorType
from hotplug.testing.graphs import DecoderShape, decoder
from hotplug.testing.oracle import Array, evaluate
from hotplug.verify import verify

SHAPE = DecoderShape(
    layers=2, width=64, hidden=96, heads=4, kv_heads=2, head=16, vocabulary=64, context=8, tokens=3
)
RNG = np.random.default_rng(5)


def leaf_values(graph: Graph) -> dict[str, HostTensor]:
    """Random weights and states; inputs count from 0."""
    found = {}
    for node in graph.nodes:
        if node.is_leaf:
            integers = node.dtype.kind.value == "int"
            counted = np.arange(node.type.size).reshape(node.shape)
            drawn = RNG.standard_normal(node.shape, np.float32) / 4
            values: Array = counted if integers else drawn
            found[node.name] = HostTensor(node.type, encode(values, node.dtype))
    return found


def with_pieces(parallel: Parallel, held: dict[str, HostTensor]) -> dict[str, HostTensor]:
    cuts = parallel.cuts.items()
    return held | {name: held[cut.origin].part(cut.axis, cut.start, cut.stop) for name, cut in cuts}


def compare(graph: Graph, parallel: Parallel, rtol: float = 1e-5) -> dict[str, Array]:
    """Both graphs on the same leaves; states of pieces are put together."""
    verify(parallel.graph)
    held = leaf_values(graph)
    wanted = evaluate(graph, held)
    got = evaluate(parallel.graph, with_pieces(parallel, held))
    for name, value in wanted.items():
        if name in got:
            np.testing.assert_allclose(got[name], value, rtol=rtol, atol=1e-5)
            continue
        state = name.removeprefix("state:")
        cuts = [cut for cut in parallel.cuts.values() if cut.origin == state]
        joined = np.concatenate([got[f"state:{cut.name}"] for cut in cuts], axis=cuts[0].axis)
        np.testing.assert_allclose(joined, value, rtol=rtol, atol=1e-5)
    return got


@pytest.mark.parametrize("weights", ["f32", "q8_0", "q4_1"])
@pytest.mark.parametrize(
    "shares", [{"a": 1.0}, {"a": 1, "b": 1}, {"a": 3, "b": 1}, {"a": 1, "b": 2, "c": 3, "d": 1}]
)
def test_a_decoder_computes_the_same(shares: dict[str, float], weights: str) -> None:
    graph = decoder(replace(SHAPE, weights=weights))
    parallel = parallelise(graph, shares, least=0)
    compare(graph, parallel)
    assert set(parallel.devices.values()) == set(shares)


@pytest.mark.parametrize("whole", [{"k0"}, {"1.up"}, {"0.q", "v1"}])
def test_what_is_to_stay_whole_is_not_cut(whole: set[str]) -> None:
    graph = decoder(SHAPE)
    cut = {c.origin for c in parallelise(graph, {"a": 1, "b": 1}, least=0).cuts.values()}
    assert cut >= whole
    parallel = parallelise(graph, {"a": 1, "b": 1}, least=0, whole=whole)
    compare(graph, parallel)
    assert not whole & {c.origin for c in parallel.cuts.values()}
    assert parallel.cuts


def test_heads_go_with_their_keys_and_values() -> None:
    parallel = parallelise(decoder(SHAPE), {"a": 1, "b": 1}, least=0)
    states = parallel.graph.states
    assert states["k0[:, 0:16]"].shape == (8, 16)
    for name, node in states.items():
        device = parallel.devices[node]
        users = parallel.graph.consumers[node]
        assert {parallel.devices[user] for user in users} == {device}, name
    mixed = [n for n in parallel.graph.nodes if n.op == "scaled_dot_product_attention"]
    assert [n.shape[1] for n in mixed] == [2, 2, 2, 2]


def test_two_sums_a_layer() -> None:
    """Nothing else crosses but what they need, and the logits' pieces."""
    graph = decoder(SHAPE)
    parallel = parallelise(graph, {"a": 1, "b": 1}, least=0)
    whole = sum(node.op == "add" for node in graph.nodes)
    added = sum(node.op == "add" for node in parallel.graph.nodes) - whole
    assert added == 2 * SHAPE.layers
    assert sum(node.op == "concat" for node in parallel.graph.nodes) == 1


def test_every_weight_is_divided() -> None:
    parallel = parallelise(decoder(replace(SHAPE, hidden=128)), {"a": 1, "b": 1}, least=0)
    by_device = {"a": 0, "b": 0}
    for node in parallel.graph.nodes:
        if node.op == "weight" and node in parallel.devices:
            by_device[parallel.devices[node]] += node.type.nbytes
    assert by_device["a"] == by_device["b"]


def test_what_cannot_be_divided_stays_whole() -> None:
    """Three heads over two devices are two and one; of one head there is nothing to divide."""
    three = replace(SHAPE, width=48, heads=3, kv_heads=3, weights="f32")
    parallel = parallelise(decoder(three), {"a": 1, "b": 1}, least=0)
    mixed = [n.shape[1] for n in parallel.graph.nodes if "attention" in n.op]
    assert mixed == [2, 1, 2, 1]
    compare(decoder(three), parallel)
    one = replace(SHAPE, heads=4, kv_heads=1)
    parallel = parallelise(decoder(one), {"a": 1, "b": 1}, least=0)
    assert [n.shape[1] for n in parallel.graph.nodes if "attention" in n.op] == [4, 4]
    compare(decoder(one), parallel)


def test_small_weights_are_left_alone() -> None:
    graph = decoder(SHAPE)
    assert parallelise(graph, {"a": 1, "b": 1}).graph == graph


def weight(name: str, *shape: int, dtype: str = "f32") -> Node:
    return ops.weight(name=name, dtype=dtype, shape=shape)


def source(*shape: int) -> Node:
    return ops.input(name="x", dtype="f32", shape=shape)


def biased() -> Graph:
    h = ops.matmul(source(3, 8), weight("w", 16, 8), transpose_b=True)
    h = ops.gelu(ops.add(h, ops.cast(weight("b", 16, dtype="f16"), dtype="f32")))
    return Graph.build({"y": ops.matmul(h, weight("v", 16, 8))})


def joined() -> Graph:
    """A softmax over the cut axis needs it whole, and so does a sum of two that are cut apart."""
    h = ops.matmul(source(3, 8), weight("w", 16, 8), transpose_b=True)
    return Graph.build(
        {"y": ops.softmax(h), "z": ops.add(h, ops.transpose(ops.reshape(h, shape=(16, 3))))}
    )


def residual() -> Graph:
    """Partial sums are added up before anything that is not linear sees them."""
    x = source(3, 8)
    h = ops.matmul(ops.matmul(x, weight("w", 16, 8), transpose_b=True), weight("v", 16, 8))
    return Graph.build({"y": ops.relu(ops.add(x, h)), "h": h})


def experts() -> Graph:
    ids = ops.input(name="ids", dtype="i32", shape=(3, 2))
    x = ops.reshape(source(3, 8), shape=(3, 1, 8))
    up = ops.matmul_grouped(x, weight("up", 6, 32, 8), ids)
    return Graph.build({"y": ops.matmul_grouped(ops.silu(up), weight("down", 6, 8, 32), ids)})


def normalised_heads() -> Graph:
    q = ops.reshape(ops.matmul(source(3, 8), weight("w", 16, 8), transpose_b=True), shape=(3, 4, 4))
    q = ops.rms_norm(q, weight("n", 4), eps=1e-5)
    q = ops.permute(q, axes=(1, 0, 2))
    return Graph.build({"y": ops.permute(q, axes=(1, 0, 2))})


@pytest.mark.parametrize("build", [biased, joined, residual, experts, normalised_heads])
@pytest.mark.parametrize("count", [2, 3])
def test_other_graphs(build, count: int) -> None:
    graph = build()
    parallel = parallelise(graph, dict.fromkeys("abc"[:count], 1.0), least=0)
    compare(graph, parallel)
    assert len(set(parallel.devices.values())) == count


def test_units_are_divided_by_shares() -> None:
    groups = Groups()
    group = groups.new(12)
    other = groups.new(8)
    groups.join(group, other)
    assert groups.units(other) == 4
    pieces = groups.pieces(group, {"a": 5.0, "b": 0.1, "c": 2.0})
    assert [(p.device, p.start, p.stop) for p in pieces] == [("a", 0, 3), ("c", 3, 4)]
    assert pieces[1].range(96) == (72, 96)


def test_parts_of_a_tensor_share_its_memory_where_they_can() -> None:
    kind = TensorType(ops.weight(name="w", dtype="q8_0", shape=(4, 64)).dtype, (4, 64))
    values = RNG.standard_normal((4, 64), np.float32)
    tensor = HostTensor(kind, encode(values, kind.dtype))
    rows, columns = tensor.part(0, 1, 3), tensor.part(1, 32, 64)
    assert np.shares_memory(rows.data, tensor.data)
    assert rows.shape == (2, 64)
    np.testing.assert_array_equal(rows.data, encode(values[1:3], kind.dtype))
    np.testing.assert_array_equal(columns.data, encode(values[:, 32:], kind.dtype))
