"""Every geometry that a device may find to be the fastest computes what the first one does."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hotplug import dtypes, ops
from hotplug.backend import Partition
from hotplug.gpu.catalog.table import Lowering, first
from hotplug.gpu.executable import GPUExecutable
from hotplug.gpu.lowering import lower_graph
from hotplug.graph import Graph
from hotplug.testing.conformance.values import normal, tensor
from hotplug.testing.oracle import evaluate

COLUMNS = 70  # tiles of 64 and of 32 columns, and a broken one


def product(weights, rows, precision):
    depth = max(320, 2 * dtypes.get(weights).block)
    x = ops.input(name="x", dtype="f32", shape=(rows, depth))
    w = ops.weight(name="w", dtype=weights, shape=(COLUMNS, depth))
    return Graph.build({"y": ops.matmul(x, w, transpose_b=True, precision=precision)})


def asked(device, graph):
    """What is asked about a graph, and the answers that there are."""
    found = {}

    def note(question, candidates):
        found[question] = candidates
        return first(question, candidates)

    lower_graph(graph, Lowering(device.driver.capabilities, choose=note), "test")
    return found


def computed(device, graph, leaves, question=None, geometry=None):
    def choose(about, candidates):
        return geometry if about == question else first(about, candidates)

    executable = GPUExecutable(Partition(graph), device.buffers, device.programs, choose=choose)
    bindings = {name: device.buffers.allocate(n) for name, n in executable.required.items()}
    for name, leaf in leaves.items():
        bindings[name].write(0, leaf.data.data)
    executable.run(bindings)
    result = np.empty((leaves["x"].type.shape[0], COLUMNS), np.float32)
    bindings["output:y"].read(0, result.data)
    executable.free()
    return result


def compare(device, weights, rows, precision):
    graph = product(weights, rows, precision)
    rng = np.random.default_rng(6)
    leaves = {
        node.name: tensor(rng, node.type, normal(1.0)) for node in graph.nodes if node.is_leaf
    }
    rounds = precision == "default" and dtypes.get(weights).quantised
    plain = computed(device, graph, leaves)
    loose = {"rtol": 0.02, "atol": 0.02 * np.abs(plain).max()}
    tight = {"rtol": 1e-4, "atol": 1e-4 * np.abs(plain).max()}
    np.testing.assert_allclose(plain, evaluate(graph, leaves)["y"], **(loose if rounds else tight))
    tried = 0
    for question, candidates in asked(device, graph).items():
        for geometry in candidates[1:]:
            other = computed(device, graph, leaves, question, geometry)
            # Among tiles of bytes is one that does not round.
            alike = ("INT8" in geometry) == ("INT8" in candidates[0])
            np.testing.assert_allclose(
                other, plain, **(tight if alike else loose), err_msg=f"{question} {geometry}"
            )
            tried += 1
    return tried


@pytest.mark.parametrize(("weights", "rows"), [("f32", 40), ("q4_1", 1)])
def test_all_are_the_same_on_a_gpu(gpu, weights, rows):
    assert compare(gpu, weights, rows, "default") > 1


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize(
    ("weights", "precision"),
    [
        ("f32", "exact"),
        ("f16", "exact"),
        *((weights, how) for weights in ("q4_0", "q4_k", "iq2_xs") for how in ("default", "exact")),
    ],
)
def test_all_are_the_same(each, monkeypatch, weights, precision, rows):
    if each.driver.capabilities.products:  # a library would take many rows
        able = dataclasses.replace(each.driver.capabilities, products=frozenset())
        monkeypatch.setattr(each.driver, "capabilities", able)
    compare(each, weights, rows, precision)
