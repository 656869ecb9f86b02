"""Products of many rows in whole and broken tiles, and those of rounded activations."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hotplug import ops
from hotplug.backend import Partition
from hotplug.gpu.driver import Capabilities
from hotplug.graph import Graph
from hotplug.testing.conformance.values import tensor
from hotplug.testing.kernels import launches

GPU = Capabilities(
    dialect="opencl", identity="test", is_cpu=False, f64=True, alignment=64, max_items=256,
    local_bytes=32768, max_buffer=2**32, int8=True,
)  # fmt: skip


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("size", [(129, 257, 31), (9, 70, 64), (256, 128, 96)])
def test_tiles_make_the_whole(device, size, transposed):
    rows, columns, depth = size
    random = np.random.default_rng(1)
    a = random.standard_normal((rows, depth), np.float32)
    b = random.standard_normal((columns, depth) if transposed else (depth, columns), np.float32)
    nodes = [
        ops.input(name=name, dtype="f32", shape=value.shape)
        for name, value in {"a": a, "b": b}.items()
    ]
    graph = Graph.build({"y": ops.matmul(*nodes, transpose_b=transposed)})
    executable = device.compile(Partition(graph))
    bindings = {name: device.buffers.allocate(n) for name, n in executable.required.items()}
    bindings["a"].write(0, a.data)
    bindings["b"].write(0, b.data)
    executable.run(bindings)
    result = np.empty((rows, columns), np.float32)
    bindings["output:y"].read(0, result.data)
    assert any(line.startswith("matmul") for line in executable.explain())
    np.testing.assert_allclose(result, a @ (b.T if transposed else b), rtol=1e-4, atol=1e-4)


def products_of_one_value(precision, depth=64, rows=1):
    x = ops.input(name="x", dtype="f32", shape=(rows, depth))
    weights = [ops.weight(name=name, dtype="q4_0", shape=(8, depth)) for name in "qkv"]
    return Graph.build(
        {w.name: ops.matmul(x, w, transpose_b=True, precision=precision) for w in weights}
    )


def kernels(graph, capabilities=GPU):
    return [launch.variant.file for launch in launches(graph, capabilities)]


def test_a_value_is_rounded_once_for_all_its_products():
    assert kernels(products_of_one_value("default")) == ["quantise", "matvec_int8"]


def test_exact_products_round_nothing():
    assert kernels(products_of_one_value("exact")) == ["matvec"] * 3


@pytest.mark.parametrize(("depth", "found"), [(8192, ["matvec_int8"]), (1 << 15, ["matvec"] * 3)])
def test_a_processor_rounds_rows_that_fit_its_local_memory(device, depth, found):
    graph = products_of_one_value("default", depth)
    assert kernels(graph, device.buffers.driver.capabilities) == found


def test_many_rows_of_bytes_are_multiplied_as_bytes():
    graph = products_of_one_value("default", rows=9)
    assert kernels(graph) == ["quantise", *["matmul_int8"] * 3]
    without = dataclasses.replace(GPU, int8=False)
    assert kernels(graph, without) == ["matmul"] * 3


def test_tiles_of_bytes_give_what_single_rows_give(each):
    """Whole and broken tiles of products, rounded alike by both kernels."""
    rows, columns, depth = 67, 70, 256
    random = np.random.default_rng(2)
    x = ops.input(name="x", dtype="f32", shape=(rows, depth))
    few = ops.slice(x, starts=(rows - 5, 0), stops=(rows, depth))
    w = ops.weight(name="w", dtype="q4_1", shape=(columns, depth))
    graph = Graph.build(
        {"all": ops.matmul(x, w, transpose_b=True), "few": ops.matmul(few, w, transpose_b=True)}
    )
    executable = each.compile(Partition(graph))
    bindings = {name: each.buffers.allocate(n) for name, n in executable.required.items()}
    bindings["x"].write(0, random.standard_normal((rows, depth), np.float32).data)
    bindings["w"].write(0, tensor(random, w.type).data.data)
    executable.run(bindings)
    found = {
        "all": np.empty((rows, columns), np.float32),
        "few": np.empty((5, columns), np.float32),
    }
    for name, value in found.items():
        bindings[f"output:{name}"].read(0, value.data)
    if each.driver.capabilities.int8 and not each.driver.capabilities.products:
        assert any(line.startswith("matmul_int8") for line in executable.explain())
        np.testing.assert_allclose(found["all"][-5:], found["few"], rtol=1e-5, atol=1e-4)
    assert np.abs(found["all"]).max() > 1
    np.testing.assert_allclose(found["all"][-5:], found["few"], rtol=0.02, atol=1)


@pytest.mark.parametrize("rows", [5, 40])
def test_what_is_not_a_number_stays_so(each, rows):
    """In the row whose activations hold it, and in no other."""
    x = ops.input(name="x", dtype="f32", shape=(rows, 256))
    w = ops.weight(name="w", dtype="q4_1", shape=(40, 256))
    graph = Graph.build({"y": ops.matmul(x, w, transpose_b=True)})
    executable = each.compile(Partition(graph))
    bindings = {name: each.buffers.allocate(n) for name, n in executable.required.items()}
    random = np.random.default_rng(3)
    data = random.standard_normal((rows, 256), np.float32)
    data[-1, 40] = np.nan
    bindings["x"].write(0, data.data)
    bindings["w"].write(0, tensor(random, w.type).data.data)
    executable.run(bindings)
    found = np.empty((rows, 40), np.float32)
    bindings["output:y"].read(0, found.data)
    assert np.isnan(found[-1]).all()
    assert np.isfinite(found[:-1]).all()
