"""Traces tell each step's part of what a plan took; no test looks at how long that was."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug import ops
from hotplug.backend import Partition
from hotplug.errors import UsageError
from hotplug.graph import Graph
from hotplug.testing.graphs import DecoderShape, decoder
from hotplug_cpu.buffers import HostBufferType
from hotplug_cpu.catalog import KERNELS
from hotplug_cpu.plan import PlanExecutable

MEMORY = HostBufferType()


def bound(graph):
    """Buffers of a graph: counting ids, and bytes that are finite numbers in every type."""
    random = np.random.default_rng(0)
    buffers = {n.name: MEMORY.allocate(n.type.nbytes) for n in graph.nodes if n.is_leaf}
    for node in filter(lambda n: n.is_leaf, graph.nodes):
        ids = np.arange(node.type.size, dtype=np.int32).view(np.uint8)
        data = random.integers(16, 60, node.type.nbytes, np.uint8)
        buffers[node.name].write(0, (ids if node.dtype.name == "i32" else data).data)
    return buffers | {f"output:{n}": MEMORY.allocate(v.type.nbytes) for n, v in graph.outputs}


@pytest.fixture(params=[1, 5])
def small(request):
    shape = DecoderShape(
        layers=2, width=64, hidden=128, heads=4, kv_heads=2, head=16, vocabulary=96, context=40,
        tokens=request.param,
    )  # fmt: skip
    return decoder(shape)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_trace_has_all_steps_in_order_and_they_sum_to_the_whole(small, threads):
    executable = PlanExecutable(Partition(small, threads=threads), MEMORY, 1)
    executable.run(bound(small))
    found = executable.trace(runs=9)
    kernels = [line.partition(":")[0] for line in executable.explain()]
    assert [item.step.kernel for item in found.steps] == kernels
    total = sum(item.seconds + item.waiting for item in found.steps)
    assert total == pytest.approx(found.seconds)
    assert all(item.seconds > 0 for item in found.steps)
    assert all(item.waiting == 0 for item in found.steps[:-1] if not item.step.barrier)


def test_tracing_computes_what_running_does(small):
    executable = PlanExecutable(Partition(small, threads=2), MEMORY, 1)
    buffers = bound(small)
    executable.run(buffers)
    assert np.abs(buffers["output:logits"].array.view(np.float32)).max() > 0
    before = {name: buffer.array.copy() for name, buffer in buffers.items()}
    executable.trace(runs=3)
    for name, values in before.items():
        np.testing.assert_array_equal(buffers[name].array, values, err_msg=name)


def test_what_was_not_run_cannot_be_traced(small):
    executable = PlanExecutable(Partition(small, threads=2), MEMORY, 1)
    with pytest.raises(UsageError, match="was run"):
        executable.trace(runs=1)


def test_numpy_steps_cannot_be_traced():
    x = ops.input(name="x", dtype="f32", shape=(3,))
    graph = Graph.build({"y": ops.sin(x)})
    executable = PlanExecutable(Partition(graph, threads=1), MEMORY, 1)
    executable.run(bound(graph))
    with pytest.raises(UsageError, match="all of it compiled"):
        executable.trace(runs=1)


@pytest.mark.parametrize(("name", "kind"), [("peak_f32", np.float32), ("peak_i8", np.uint8)])
def test_yardsticks_do_all_their_products(run_kernel, name, kind):
    lanes = 8 if kind is np.float32 else 32
    x, out = np.ones(2 * 7 * lanes, kind), np.zeros(16, np.float32)
    run_kernel(name, threads=2, x=x, steps=2, times=5, out=out)
    per_element = 12 * 2 * 5 * lanes // 8
    np.testing.assert_array_equal(out, per_element)


@pytest.mark.parametrize("threads", [1, 3])
def test_what_bandwidth_is_measured_with_reads_all_of_it(run_kernel, threads):
    memory, sums = np.arange(64 * 37, dtype=np.float32), np.zeros(threads, np.float32)
    run_kernel("read", threads=threads, at=memory, nbytes=memory.nbytes, out=sums)
    assert sums.sum(dtype=np.float64) == pytest.approx(memory.sum(dtype=np.float64), rel=1e-6)


def test_yardsticks_are_in_the_catalog():
    assert {"peak_f32", "peak_i8", "stamp", "read"} <= set(KERNELS)
