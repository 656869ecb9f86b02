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


@pytest.mark.parametrize(("length", "k"), [(600, 5), (1025, 40), (5000, 256), (30_000, 40)])
def test_the_first_of_long_rows(each, length, k):
    x = ops.input(name="x", dtype="f32", shape=(2, length))
    launches, found, expected = run(each, ops.top_k(x, k=k), values((2, length)))
    assert np.array_equal(found, expected)
    assert launches == {600: 1, 1025: 2, 5000: 3, 30_000: 3}[length]


@pytest.mark.parametrize(
    ("dtype", "length", "descending"),
    [("f32", 1025, False), ("f16", 5000, True), ("i32", 9000, False)],
)
def test_long_rows_are_sorted_by_merging(each, dtype, length, descending):
    x = ops.input(name="x", dtype=dtype, shape=(2, length))
    data = values((2, length), nan=dtype != "i32")
    launches, found, expected = run(each, ops.argsort(x, descending=descending), data)
    assert np.array_equal(found, expected)
    assert launches == {1025: 2, 5000: 4, 9000: 5}[length]


def test_many_of_long_rows_are_chosen_by_merging(device):
    x = ops.input(name="x", dtype="f32", shape=(3, 20_000))
    _, found, expected = run(device, ops.top_k(x, k=1500), values((3, 20_000)))
    assert np.array_equal(found, expected)


def test_memory_for_sorting_is_bounded(device):
    x = ops.input(name="x", dtype="f32", shape=(1 << 16, 1 << 14))
    assert "in one piece" in device.supports(ops.argsort(x)).reason
