"""Plans of compiled kernels against the NumPy executable and the oracle."""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np
import pytest

from hotplug import ops
from hotplug.backend import Partition
from hotplug.errors import ExecutionError, GraphError
from hotplug.graph import Graph
from hotplug.testing.graphs import DecoderShape, decoder
from hotplug.testing.oracle import evaluate
from hotplug.verify import verify
from hotplug_cpu.buffers import HostBufferType
from hotplug_cpu.interpreter import NumpyExecutable
from hotplug_cpu.plan import PlanExecutable
from hotplug_cpu.tensor_view import convert

MEMORY = HostBufferType()


def leaf(node, random):
    if node.dtype.name in {"i32", "i64"}:
        return np.arange(2, 2 + node.type.size).astype(node.dtype.numpy).reshape(node.shape)
    return (random.standard_normal(node.shape) / np.sqrt(node.shape[-1])).astype(np.float32)


def leaves_of(graph, seed=1):
    random = np.random.default_rng(seed)
    return {node.name: leaf(node, random) for node in graph.nodes if node.is_leaf}


def buffers_for(graph, leaves):
    buffers = {}
    for node in graph.nodes:
        if node.is_leaf:
            buffers[node.name] = MEMORY.allocate(node.type.nbytes)
            data = np.ascontiguousarray(convert(leaves[node.name], node.dtype))
            buffers[node.name].write(0, data.data)
    for name, node in graph.outputs:
        buffers[f"output:{name}"] = MEMORY.allocate(node.type.nbytes)
    return buffers


def results(graph, executable, leaves, runs=1):
    buffers = buffers_for(graph, leaves)
    for _ in range(runs):
        executable.run(buffers)
    named = [(f"output:{name}", node) for name, node in graph.outputs] + list(graph.updates)
    return {name: buffers[name].as_array(node.type).copy() for name, node in named}


def planned(graph, threads=2):
    return PlanExecutable(Partition(graph, threads=threads), MEMORY, 1)


def assert_agrees(graph, threads=2, runs=1, **bounds):
    leaves = leaves_of(graph)
    found = results(graph, planned(graph, threads), leaves, runs)
    expected = results(graph, NumpyExecutable(Partition(graph), MEMORY), leaves, runs)
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], **bounds, err_msg=name)


def small(**changes):
    sizes = {"layers": 2, "width": 64, "hidden": 128, "heads": 4, "kv_heads": 2, "head": 16}
    return DecoderShape(**{**sizes, "vocabulary": 96, "context": 40, **changes})


@pytest.mark.parametrize("tokens", [1, 3, 7])
@pytest.mark.parametrize("weights", ["q4_1", "q8_0"])
def test_a_decoder_gives_what_numpy_gives_but_for_rounded_activations(tokens, weights):
    assert_agrees(decoder(small(tokens=tokens, weights=weights)), runs=2, rtol=0, atol=0.06)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_number_of_threads_does_not_matter(threads):
    graph = decoder(small(weights="q4_1"))
    leaves = leaves_of(graph)
    found = results(graph, planned(graph, threads), leaves)
    expected = results(graph, planned(graph, 1), leaves)
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=0, atol=2e-3)


def test_a_plan_of_few_operations_runs_in_its_caller_alone(monkeypatch):
    graph = decoder(small())
    leaves = leaves_of(graph)
    expected = results(graph, planned(graph, 3), leaves, runs=2)
    monkeypatch.setattr("hotplug_cpu.plan.FEW", 1 << 40)
    monkeypatch.delattr("hotplug_cpu.threads.Team.run")
    found = results(graph, planned(graph, 3), leaves, runs=2)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def weight(name, *shape, dtype="q4_0"):
    return ops.weight(name=name, dtype=dtype, shape=shape)


def value(name, *shape, dtype="f32"):
    return ops.input(name=name, dtype=dtype, shape=shape)


def product(x, w, precision="exact"):
    return ops.matmul(x, w, transpose_b=True, precision=precision)


def kernels(graph):
    return [line.partition(":")[0] for line in planned(graph).explain()]


@pytest.mark.parametrize("dtype", ["q4_0", "q5_1", "iq4_nl", "f16", "bf16", "f32"])
@pytest.mark.parametrize("tokens", [1, 9])
def test_exact_products(dtype, tokens):
    x = value("x", tokens, 256)
    y = ops.add(product(x, weight("w", 40, 256, dtype=dtype)), value("b", 40))
    assert_agrees(Graph.build({"y": y}), rtol=0, atol=1e-5)


def test_what_is_added_is_added_by_the_product():
    x, residual = value("x", 2, 64), value("r", 2, 32)
    graph = Graph.build({"y": ops.add(residual, product(x, weight("w", 32, 64)))})
    assert kernels(graph) == ["matvec_q4_0_f32"]
    assert_agrees(graph, rtol=0, atol=1e-5)


def test_a_product_that_others_use_too_stays():
    p = product(value("x", 2, 64), weight("w", 32, 64))
    graph = Graph.build({"y": ops.add(p, value("r", 2, 32)), "z": ops.scale(p, factor=2.0)})
    assert kernels(graph) == ["matvec_q4_0_f32", "add", "numpy"]
    assert_agrees(graph, rtol=0, atol=1e-5)


def test_two_products_added():
    x = value("x", 1, 64)
    graph = Graph.build(
        {"y": ops.add(product(x, weight("v", 32, 64)), product(x, weight("w", 32, 64)))}
    )
    assert kernels(graph) == ["matvec_q4_0_f32", "matvec_q4_0_f32"]
    assert_agrees(graph, rtol=0, atol=1e-5)


def test_products_share_the_bytes_of_a_norm():
    normed = ops.rms_norm(value("x", 1, 64), value("n", 64), eps=1e-5)
    pair = [product(normed, weight(name, 32, 64), "default") for name in ("v", "w")]
    graph = Graph.build({"y": ops.swiglu(*pair)})
    assert kernels(graph) == ["rms_norm_quantise", "matvec_q4_0", "matvec_q4_0", "swiglu"]
    assert_agrees(graph, rtol=0, atol=0.02)


def test_a_norm_that_is_a_result_is_computed_besides():
    normed = ops.rms_norm(value("x", 1, 64), eps=1e-5)
    graph = Graph.build({"y": product(normed, weight("w", 32, 64), "default"), "n": normed})
    assert kernels(graph) == ["rms_norm", "quantise", "matvec_q4_0"]
    assert_agrees(graph, rtol=0, atol=0.05)


def test_a_layer_of_a_decode_step_is_sixteen_steps_after_seven_of_which_threads_wait():
    """Norms and gates give bytes, keys are turned on their way to the cache, products add."""
    one, two = (planned(decoder(small(layers=layers))).explain() for layers in (1, 2))
    steps = [Counter(line.partition(":")[0] for line in lines) for lines in (one, two)]
    waits = [sum(line.endswith("then wait)") for line in lines) for lines in (one, two)]
    assert waits[1] - waits[0] == 7
    assert steps[1] - steps[0] == {
        "rms_norm_quantise": 2,
        "matvec_q4_1": 7,
        "rope": 2,
        "scatter_rows": 1,
        "attention_split_f16": 1,
        "attention_combine": 1,
        "quantise": 1,
        "swiglu_quantise": 1,
    }


def test_operands_of_odd_layouts():
    x = ops.transpose(value("x", 64, 3))
    graph = Graph.build(
        {
            "y": product(x, weight("w", 32, 64)),
            "z": product(ops.rms_norm(x), weight("v", 32, 64), "default"),
            "r": ops.rope(
                ops.transpose(value("h", 16, 2, 3), axis0=0, axis1=2), value("p", 3, dtype="i32")
            ),
        }
    )
    assert_agrees(graph, rtol=0, atol=0.05)


def test_a_rotation_goes_straight_into_a_cache():
    state = ops.state(name="s", dtype="f16", shape=(20, 2, 16))
    p = value("p", 3, dtype="i32")
    turned = ops.rope(value("x", 3, 2, 16), p)
    cache = ops.scatter_rows(state, p, turned)
    graph = Graph.build({"y": ops.cast(cache, dtype="f32")}, {"s": cache})
    assert kernels(graph) == ["rope_table", "rope", "numpy"]
    assert_agrees(graph, rtol=0, atol=2e-3)


def test_a_cache_whose_old_value_is_needed_is_copied():
    state = ops.state(name="s", dtype="f32", shape=(8, 16))
    old = ops.scale(state, factor=2.0)
    rows, p = value("x", 3, 16), value("p", 3, dtype="i32")
    new = ops.scatter_rows(state, p, rows)
    other = ops.scatter_rows(ops.contiguous(state), p, ops.scale(rows, factor=3.0))
    graph = Graph.ordered(
        Graph.build({"old": old, "other": other, "new": new}).nodes,
        {"old": old, "other": other},
        {"s": new},
    )
    assert_agrees(graph, runs=2, rtol=1e-6)


def test_buffers_may_change_between_runs():
    graph = Graph.build({"y": ops.add(value("x", 8), value("z", 8))})
    executable = planned(graph)
    for seed in (1, 2):
        leaves = leaves_of(graph, seed)
        found = results(graph, executable, leaves)
        np.testing.assert_array_equal(found["output:y"], leaves["x"] + leaves["z"])


def test_the_same_buffers_under_other_names():
    a, b = (ops.input(name=name, dtype="f32", shape=(4,)) for name in "ab")
    graph = Graph.build({"y": ops.sub(a, b)})
    executable = planned(graph)
    buffers = buffers_for(graph, {"a": np.full(4, 5.0), "b": np.full(4, 3.0)})
    executable.run(buffers)
    swapped = {"b": buffers["a"], "a": buffers["b"], "output:y": buffers["output:y"]}
    executable.run(swapped)
    assert list(buffers["output:y"].as_array(graph.outputs[0][1].type)) == [-2.0] * 4


def test_missing_and_small_buffers_are_refused():
    graph = Graph.build({"y": ops.add(value("x", 8), value("z", 8))})
    buffers = buffers_for(graph, leaves_of(graph))
    with pytest.raises(ExecutionError, match="no buffer is bound to 'z'"):
        planned(graph).run({name: item for name, item in buffers.items() if name != "z"})
    with pytest.raises(ExecutionError, match="'z' has 4 bytes instead of 32"):
        planned(graph).run({**buffers, "z": MEMORY.allocate(4)})


class Maker:
    """Random graphs of the ops that have kernels, and of a few that have none."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.rows = int(self.random.integers(1, 8))
        self.nodes = [value(name, self.rows, 64) for name in "xyz"]
        self.state = ops.state(name="s", dtype="f16", shape=(12, 64))
        self.position = value("p", self.rows, dtype="i32")
        self.precision = str(self.random.choice(["exact", "default"]))

    def pick(self):
        return self.nodes[int(self.random.beta(3, 1) * len(self.nodes))]

    def grow(self):
        x, y = self.pick(), self.pick()
        choices = [
            lambda: ops.add(x, y),
            lambda: ops.swiglu(x, y),
            lambda: ops.rms_norm(x, value("n", 64)),
            lambda: product(x, self.matrix(), self.precision),
            lambda: ops.add(y, product(x, self.matrix(), self.precision)),
            lambda: product(ops.rms_norm(x), self.matrix(), self.precision),
            lambda: product(ops.swiglu(x, y), self.matrix(), self.precision),
            lambda: self.turn(x),
            lambda: ops.scale(x, factor=0.5),
            lambda: ops.reshape(ops.transpose(ops.reshape(x, shape=(-1, 16))), shape=x.shape),
            lambda: ops.take(x, self.position),
        ]
        self.nodes.append(choices[int(self.random.integers(len(choices)))]())

    def matrix(self):
        number = int(self.random.integers(3))
        return weight(f"w{number}", 64, 64, dtype=("q4_1", "q8_0", "f16")[number])

    def turn(self, x):
        heads = ops.rope(ops.reshape(x, shape=(self.rows, 4, 16)), self.position)
        return ops.reshape(heads, shape=x.shape)

    def graph(self):
        for _ in range(int(self.random.integers(4, 16))):
            self.grow()
        cache = ops.scatter_rows(self.state, self.position, self.pick())
        outputs = {f"y{i}": self.pick() for i in range(2)}
        outputs["cached"] = ops.cast(cache, dtype="f32")
        return Graph.build(outputs, {"s": cache})


def valid(seed):
    graph = Maker(seed).graph()
    try:
        verify(graph)
    except GraphError:
        return False
    return True


@pytest.mark.parametrize("seed", [seed for seed in range(60) if valid(seed)])
def test_random_graphs(seed):
    maker = Maker(seed)
    graph = maker.graph()
    loose = 0.1 if maker.precision == "default" else 5e-3
    leaves = leaves_of(graph, seed)
    found = results(graph, planned(graph), leaves)
    expected = results(graph, NumpyExecutable(Partition(graph), MEMORY), leaves)
    reference = evaluate(graph, leaves)
    for name, values in found.items():
        size = np.abs(expected[name].astype(np.float64)).max() + 1e-3
        np.testing.assert_allclose(values / size, expected[name] / size, rtol=0, atol=loose)
        assert np.isfinite(
            reference[name.replace("output:", "") if ":" in name else f"state:{name}"]
        ).all()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_in_the_middle_of_a_run_can_run_the_same_plan(in_a_child):
    # Long, as the other thread must not be done with it before the system has made the child.
    x = ops.input(name="x", dtype="f32", shape=(1024, 576))
    w = ops.weight(name="w", dtype="f32", shape=(3072, 576))
    graph = Graph.build({"y": ops.matmul(x, w, transpose_b=True)})
    plan, buffers = planned(graph), buffers_for(graph, leaves_of(graph))
    plan.run(buffers)
    expected = bytes(buffers["output:y"].host())
    done = threading.Event()

    def run():
        while not done.is_set():
            plan.run(buffers)

    def as_before():
        buffers["output:y"].write(0, memoryview(bytes(len(expected))))
        plan.run(buffers)
        return bytes(buffers["output:y"].host()) == expected

    other = threading.Thread(target=run)
    other.start()
    try:
        for _ in range(3):
            assert in_a_child(as_before)
    finally:
        done.set()
        other.join()
