"""Attention over many rows, whose parts are computed apart and put together."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug import ops
from hotplug.backend import Partition
from hotplug.graph import Graph
from hotplug.testing.oracle import evaluate

ROWS = 1024


def graph(**params):
    q = ops.input(name="q", dtype="f32", shape=(1, 4, 32))
    k = ops.input(name="k", dtype="f32", shape=(ROWS, 2, 32))
    v = ops.input(name="v", dtype="f32", shape=(ROWS, 2, 24))
    at = ops.input(name="at", dtype="i32", shape=(1,))
    sinks = ops.input(name="sinks", dtype="f32", shape=(4,))
    y = ops.scaled_dot_product_attention(q, k, v, None, at, sinks, causal=True, **params)
    return Graph.build({"y": y})


def run(device, graph, values):
    executable = device.compile(Partition(graph))
    assert any(line.startswith("combine") for line in executable.explain())
    bindings = {}
    for name, value in values.items():
        bindings[name] = device.buffers.allocate(value.nbytes)
        bindings[name].write(0, value.data)
    result = np.empty((1, 4, 24), np.float32)
    bindings["output:y"] = device.buffers.allocate(result.nbytes)
    executable.run(bindings)
    bindings["output:y"].read(0, result.data)
    return result


@pytest.mark.parametrize("params", [{}, {"window": 300}, {"softcap": 2.0}], ids=str)
@pytest.mark.parametrize("position", [ROWS - 1, 517, 3, 0, -1])
def test_parts_make_the_whole(device, params, position):
    random = np.random.default_rng(position + 1)
    shapes = {"q": (1, 4, 32), "k": (ROWS, 2, 32), "v": (ROWS, 2, 24), "sinks": (4,)}
    values = {
        name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
    }
    values["at"] = np.array([position], np.int32)
    work = graph(**params)
    expected = evaluate(work, values)["y"]
    np.testing.assert_allclose(run(device, work, values), expected, rtol=1e-4, atol=1e-5)
