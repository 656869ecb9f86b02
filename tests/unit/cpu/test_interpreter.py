"""Graphs run by NumPy kernels: memory, states, bindings, errors."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np
import pytest

from hotplug import ops
from hotplug.backend import Buffer, Partition
from hotplug.errors import (
    ExecutionError,
    HotplugError,
    OutOfDeviceMemoryError,
    UnsupportedOpError,
    UsageError,
)
from hotplug.graph import Graph
from hotplug.layout import Layout
from hotplug.node import Node
from hotplug.testing.graphs import DecoderShape, decoder
from hotplug.testing.oracle import evaluate
from hotplug.testing.reference import HostMemory
from hotplug_cpu.buffers import HostBuffer, HostBufferType
from hotplug_cpu.interpreter import NumpyExecutable
from hotplug_cpu.tensor_view import AnyArray, TensorView


class Bench:
    """An executable with buffers for all that its graph names."""

    def __init__(self, graph: Graph) -> None:
        memory = HostBufferType()
        self.graph = graph
        self.executable = NumpyExecutable(Partition(graph), memory)
        self.buffers: dict[str, HostBuffer] = {
            node.name: memory.allocate(node.type.nbytes) for node in graph.nodes if node.is_leaf
        }
        for name, node in graph.outputs:
            self.buffers[f"output:{name}"] = memory.allocate(node.type.nbytes)

    def __call__(self, **leaves: AnyArray) -> dict[str, AnyArray]:
        """Outputs by name, after writing the given leaves and running."""
        for name, values in leaves.items():
            self.write(name, values)
        self.executable.run(self.buffers)
        return {
            name: self.buffers[f"output:{name}"].as_array(node.type).copy()
            for name, node in self.graph.outputs
        }

    def write(self, name: str, values: AnyArray) -> None:
        node = next(n for n in self.graph.nodes if n.is_leaf and n.name == name)
        stored = TensorView.from_array(np.asarray(values), node.dtype).array
        self.buffers[name].write(0, np.ascontiguousarray(stored).data)

    def state(self, name: str) -> AnyArray:
        return self.buffers[name].as_array(self.graph.states[name].type).copy()


def vector(name: str, length: int = 4) -> Node:
    return ops.input(name=name, dtype="f32", shape=(length,))


def floats(*values: float) -> AnyArray:
    return np.array(values, np.float32)


def test_views_are_read_through_their_layouts() -> None:
    x = ops.input(name="x", dtype="f32", shape=(4, 6))
    turned = ops.transpose(ops.slice(x, starts=(0, 1), stops=(4, 6), steps=(2, 2)))
    joined = ops.reshape(turned, shape=(6,))  # takes a copy
    bench = Bench(Graph.build({"sum": ops.add(turned, turned), "flat": ops.neg(joined)}))
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    expected = values[::2, 1:6:2].T
    found = bench(x=values)
    np.testing.assert_array_equal(found["sum"], 2 * expected)
    np.testing.assert_array_equal(found["flat"], -expected.reshape(-1))


def test_an_output_may_be_a_leaf_a_view_or_another_output() -> None:
    x = ops.input(name="x", dtype="f32", shape=(2, 3))
    y = ops.neg(x)
    bench = Bench(Graph.build({"x": x, "t": ops.transpose(x), "y": y, "again": y}))
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = bench(x=values)
    np.testing.assert_array_equal(found["x"], values)
    np.testing.assert_array_equal(found["t"], values.T)
    np.testing.assert_array_equal(found["y"], -values)
    np.testing.assert_array_equal(found["again"], -values)


def test_states_are_updated_where_they_lie_and_stay() -> None:
    cache = ops.state(name="cache", dtype="f16", shape=(4, 2))
    row = ops.input(name="row", dtype="i32", shape=(1,))
    new = ops.input(name="new", dtype="f32", shape=(1, 2))
    after = ops.scatter_rows(cache, row, new)
    bench = Bench(Graph.build({"all": ops.cast(after, dtype="f32")}, {"cache": after}))
    assert bench.executable.arena_bytes == 0
    bench(row=np.array([2]), new=np.array([[1.5, 2]]))
    found = bench(row=np.array([0]), new=np.array([[3, 4]]))
    expected = [[3, 4], [0, 0], [1.5, 2], [0, 0]]
    assert found["all"].tolist() == expected
    assert bench.state("cache").tolist() == expected


def test_states_computed_elsewhere_are_written_last() -> None:
    a = ops.state(name="a", dtype="f32", shape=(2,))
    b = ops.state(name="b", dtype="f32", shape=(2,))
    x = vector("x", 2)
    graph = Graph.build({"old": a}, {"a": ops.add(a, x), "b": ops.add(b, a)})
    bench = Bench(graph)
    assert bench(x=floats(1, 2))["old"].tolist() == [0, 0]
    assert bench(x=floats(1, 2))["old"].tolist() == [1, 2]
    assert bench.state("a").tolist() == [2, 4]
    assert bench.state("b").tolist() == [1, 2]


def test_an_update_of_a_value_that_is_needed_later_works_on_a_copy() -> None:
    table, rows = vector("t", 6), ops.input(name="r", dtype="f32", shape=(1, 2))
    index = ops.input(name="i", dtype="i32", shape=(1,))
    square = ops.reshape(table, shape=(3, 2))
    bench = Bench(Graph.build({"new": ops.scatter_rows(square, index, rows), "old": table}))
    found = bench(t=floats(0, 1, 2, 3, 4, 5), i=np.array([1]), r=np.array([[8, 9]]))
    assert found["new"].tolist() == [[0, 1], [8, 9], [4, 5]]
    assert found["old"].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_decoder_gives_what_the_oracle_gives_and_keeps_its_cache() -> None:
    shape = DecoderShape(2, 64, 96, 4, 2, 16, 80, context=8, tokens=3, weights="q8_0")
    graph = decoder(shape)
    bench = Bench(graph)
    rng = np.random.default_rng(1)
    for name, node in graph.weights.items():
        bench.write(name, rng.standard_normal(node.shape).astype(np.float32))
    states: dict[str, AnyArray] = {}
    for start in (0, 3):
        place = np.arange(start, start + 3)
        inputs = {"tokens": rng.integers(0, 80, 3), "positions": place, "rows": place}
        weights = {
            name: TensorView.over(
                bench.buffers[name].array, node.dtype, Layout.contiguous(node.shape)
            ).float32()
            for name, node in graph.weights.items()
        }
        expected = evaluate(graph, {**inputs, **weights, **states})
        found = bench(**inputs)["logits"]
        largest = np.abs(expected["logits"]).max()
        np.testing.assert_allclose(found, expected["logits"], atol=2e-3 * largest)
        states = {name: bench.state(name) for name in graph.states}


def test_other_buffers_may_be_bound_at_any_run() -> None:
    bench = Bench(Graph.build({"y": ops.neg(vector("x"))}))
    assert bench(x=floats(1, 2, 3, 4))["y"].tolist() == [-1, -2, -3, -4]
    other = HostBufferType().allocate(16)
    other.write(0, floats(5, 6, 7, 8).data)
    bench.buffers["x"] = other
    assert bench()["y"].tolist() == [-5, -6, -7, -8]
    other.write(0, floats(9, 9, 9, 9).data)
    assert bench()["y"].tolist() == [-9, -9, -9, -9]


def test_buffers_of_another_backend_s_host_memory_will_do() -> None:
    bench = Bench(Graph.build({"y": ops.neg(vector("x"))}))
    foreign: dict[str, Buffer] = {
        name: HostMemory("other:0").allocate(16) for name in ("x", "output:y")
    }
    foreign["x"].write(0, floats(1, 2, 3, 4).data)
    bench.executable.run(foreign)
    found = np.empty(4, np.float32)
    foreign["output:y"].read(0, found.data)
    assert found.tolist() == [-1, -2, -3, -4]


def test_infinities_and_nan_are_results() -> None:
    bench = Bench(Graph.build({"y": ops.log(vector("x"))}))
    found = bench(x=floats(0, -1, np.inf, 1))["y"]
    np.testing.assert_array_equal(found, floats(-np.inf, np.nan, np.inf, 0))


@pytest.mark.parametrize("missing", ["x", "output:y"])
def test_a_missing_buffer_is_named(missing: str) -> None:
    bench = Bench(Graph.build({"y": ops.neg(vector("x"))}))
    rest: Mapping[str, Buffer] = {n: b for n, b in bench.buffers.items() if n != missing}
    with pytest.raises(ExecutionError, match=missing):
        bench.executable.run(rest)


def test_a_buffer_that_is_too_small_is_refused() -> None:
    bench = Bench(Graph.build({"y": ops.neg(vector("x"))}))
    bench.buffers["x"] = HostBufferType().allocate(12)
    with pytest.raises(ExecutionError, match="12 bytes instead of 16"):
        bench()


def test_a_read_only_buffer_is_refused_where_it_is_written_and_taken_where_not() -> None:
    bench = Bench(Graph.build({"y": ops.neg(vector("x"))}))
    fixed = HostBufferType().wrap(memoryview(floats(1, 2, 3, 4).tobytes()))
    assert fixed is not None
    bench.executable.run({**bench.buffers, "x": fixed})
    assert bench.buffers["output:y"].array.view(np.float32).tolist() == [-1, -2, -3, -4]
    with pytest.raises(ExecutionError, match="read-only"):
        bench.executable.run({**bench.buffers, "output:y": fixed})


def test_a_kernel_that_fails_names_its_op_and_spoils_nothing() -> None:
    x = ops.input(name="x", dtype="f32", shape=(2, 32))
    bench = Bench(Graph.build({"y": ops.cast(x, dtype="q8_0")}))
    with pytest.raises(ExecutionError, match="NaN") as caught:
        bench(x=np.full((2, 32), np.nan))
    assert caught.value.op == "cast"
    assert caught.value.device == "cpu:0"
    bench(x=np.ones((2, 32)))


def test_a_dtype_without_encoder_is_refused_when_compiling() -> None:
    x = ops.input(name="x", dtype="f32", shape=(1, 256))
    graph = Graph.build({"y": ops.cast(x, dtype="iq1_s")})
    with pytest.raises(UnsupportedOpError, match="iq1_s") as caught:
        NumpyExecutable(Partition(graph), HostBufferType())
    assert caught.value.op == "cast"


def test_an_arena_that_does_not_fit_is_an_error_of_memory() -> None:
    huge = ops.fill(value=1.0, dtype="f32", shape=(1 << 40, 1 << 20))
    graph = Graph.build({"y": ops.sum(ops.sum(huge))})
    with pytest.raises(OutOfDeviceMemoryError):
        NumpyExecutable(Partition(graph), HostBufferType())


def test_a_freed_executable_cannot_run() -> None:
    bench = Bench(Graph.build({"y": ops.neg(vector("x"))}))
    bench()
    bench.executable.free()
    bench.executable.free()
    with pytest.raises(UsageError):
        bench()


def test_explain_tells_of_every_step() -> None:
    x = ops.input(name="x", dtype="f32", shape=(2, 3))
    s = ops.state(name="s", dtype="f32", shape=(2, 3))
    y = ops.exp(ops.neg(x))
    graph = Graph.build({"t": ops.transpose(y), "y": y}, {"s": ops.add(s, y)})
    lines = Bench(graph).executable.explain()
    assert len(lines) == 5
    assert lines[1].endswith("in place")
    assert any("output t" in line for line in lines)
    assert any("state s" in line for line in lines)


def test_runs_from_several_threads_take_turns() -> None:
    x = ops.input(name="x", dtype="f32", shape=(64, 64))
    y = x
    for _ in range(20):
        y = ops.add(ops.exp(ops.neg(y)), y)
    graph = Graph.build({"y": y})
    bench = Bench(graph)
    expected = bench(x=np.ones((64, 64)))["y"]
    errors: list[HotplugError | AssertionError] = []

    def work() -> None:
        own = {**bench.buffers, "output:y": HostBufferType().allocate(y.type.nbytes)}
        try:
            for _ in range(5):
                bench.executable.run(own)
                np.testing.assert_array_equal(own["output:y"].as_array(y.type), expected)
        except (HotplugError, AssertionError) as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
