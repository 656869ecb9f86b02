"""Products of many rows in whole and broken tiles, and those of rounded activations."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug import ops
from hotplug.backend import Partition
from hotplug.gpu.driver import Capabilities
from hotplug.graph import Graph
from hotplug.testing.kernels import launches

GPU = Capabilities(
    dialect="opencl", identity="test", is_cpu=False, f64=True, alignment=64, max_items=256,
    local_bytes=32768, max_buffer=2**32,
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
    assert kernels(products_of_one_value("default")) == ["quantise", *["matvec_int8"] * 3]


def test_exact_products_round_nothing():
    assert kernels(products_of_one_value("exact")) == ["matvec"] * 3


def test_many_rows_are_not_rounded():
    assert kernels(products_of_one_value("default", rows=9)) == ["matmul"] * 3


@pytest.mark.parametrize(("depth", "kernel"), [(8192, "matvec_int8"), (1 << 15, "matvec")])
def test_a_processor_rounds_rows_that_fit_its_local_memory(device, depth, kernel):
    found = kernels(products_of_one_value("default", depth), device.buffers.driver.capabilities)
    assert found == [kernel] * 3
