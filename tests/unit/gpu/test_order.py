"""Largest elements of rows that take several launches."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug import ops
from hotplug.backend import Partition
from hotplug.dtypes import get
from hotplug.graph import Graph
from hotplug.quants import encode
from hotplug.testing.oracle import evaluate

LENGTHS = [1, 1024, 1025, 5000]


def values(shape, *, nan=True):
    """Small whole numbers, so that many are equal."""
    random = np.random.default_rng(len(shape))
    data = random.integers(-40, 40, shape).astype(np.float32)
    if nan:
        data[0, data.shape[1] // 2] = np.nan
    return data


def run(device, node, data):
    graph = Graph.build({"y": node})
    leaf = graph.inputs["x"]
    executable = device.compile(Partition(graph))
    bindings = {name: device.buffers.allocate(n) for name, n in executable.required.items()}
    bindings["x"].write(0, encode(data, leaf.dtype).data)
    executable.run(bindings)
    found = np.empty(node.shape, np.int32)
    bindings["output:y"].read(0, found.data)
    expected = evaluate(graph, {"x": data})["y"]
    return len(executable.explain()), found, np.asarray(expected, np.int64)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", ["f32", "f16", "i32"])
def test_argmax_of_long_rows(each, length, dtype):
    x = ops.input(name="x", dtype=dtype, shape=(2, length))
    data = values((2, length), nan=get(dtype).name != "i32")
    launches, found, expected = run(each, ops.argmax(x, axis=-1), data)
    assert launches == (1 if length <= 1024 else 2)
    assert np.array_equal(found, expected)


def test_argmin_of_long_columns(each):
    x = ops.input(name="x", dtype="f32", shape=(3000, 3))
    _, found, expected = run(each, ops.argmin(x, axis=0), values((3000, 3)))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("each", ["GPU", "CUDA"], indirect=True)
@pytest.mark.parametrize(("length", "k"), [(600, 5), (1025, 40), (5000, 256), (30_000, 40)])
def test_the_first_of_long_rows(each, length, k):
    x = ops.input(name="x", dtype="f32", shape=(2, length))
    launches, found, expected = run(each, ops.top_k(x, k=k), values((2, length)))
    assert np.array_equal(found, expected)
    assert launches == {600: 1, 1025: 2, 5000: 3, 30_000: 3}[length]


def test_processors_do_not_sort_long_rows(device):
    x = ops.input(name="x", dtype="f32", shape=(2, 9000))
    assert "not sorted" in device.supports(ops.top_k(x, k=3)).reason
    assert device.supports(ops.argmax(x, axis=-1))
