"""Products of many rows go to cuBLAS, which NumPy stands for on simulated devices."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug import ops
from hotplug.errors import DeviceLostError, ExecutionError
from hotplug.gpu.catalog import library
from hotplug.gpu.catalog.table import LibraryLaunch, Lowering, first
from hotplug.gpu.driver import Gemm, Operand
from hotplug.gpu.lowering import lower_graph
from hotplug.graph import Graph
from hotplug.testing.conformance.case import single
from hotplug.testing.conformance.cases.operands import LAYOUTS
from hotplug.testing.conformance.check import Outcome, check
from hotplug_cuda import backend
from hotplug_cuda.driver import CUDADriver

ROWS, COLUMNS, DEPTH = 37, 70, 64


@pytest.fixture
def device(found):
    with backend.open(found[0].info) as device:
        yield device


@pytest.fixture
def products(monkeypatch):
    """Collects what cuBLAS is asked for."""
    asked = []
    gemm = CUDADriver.gemm

    def noted(driver, product, *memory):
        asked.append(product)
        return gemm(driver, product, *memory)

    monkeypatch.setattr(CUDADriver, "gemm", noted)
    return asked


def leaf(name, dtype, *shape):
    return ops.input(name=name, dtype=dtype, shape=shape)


def agrees_with_the_oracle(device, result):
    found = check(device, single("product", result))
    assert found.outcome is Outcome.PASSED, found


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize(
    ("left", "right", "dtype"),
    [
        ("f32", "f32", "f32"),
        ("f16", "f16", "f16"),
        ("bf16", "bf16", "bf16"),
        ("f32", "f16", "f32"),
        ("f16", "bf16", "f32"),
    ],
)
def test_plain_operands(device, products, left, right, dtype, transposed):
    shape = (COLUMNS, DEPTH) if transposed else (DEPTH, COLUMNS)
    a, b = leaf("a", left, ROWS, DEPTH), leaf("b", right, *shape)
    agrees_with_the_oracle(device, ops.matmul(a, b, transpose_b=transposed))
    assert [(one.dtype, one.rows, one.columns, one.depth) for one in products] == [
        (dtype, ROWS, COLUMNS, DEPTH)
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(device, products, layout):
    a, b = LAYOUTS[layout]("a", "f32", (ROWS, DEPTH)), LAYOUTS[layout]("b", "f32", (DEPTH, COLUMNS))
    agrees_with_the_oracle(device, ops.matmul(a, b))
    assert len(products) == 1


@pytest.mark.parametrize(("precision", "dtype"), [("default", "bf16"), ("exact", "f32")])
@pytest.mark.parametrize("activations", ["f32", "f16"])
def test_quantised_weights_are_decoded_to_panels(
    device, products, monkeypatch, precision, dtype, activations
):
    monkeypatch.setattr(library, "PANEL_BYTES", 1)  # and thus as narrow as panels get
    w = ops.weight(name="w", dtype="q4_0", shape=(140, DEPTH))
    x = leaf("x", activations, ROWS, DEPTH)
    agrees_with_the_oracle(device, ops.matmul(x, w, transpose_b=True, precision=precision))
    assert [(one.dtype, one.columns) for one in products] == [(dtype, 64), (dtype, 64), (dtype, 12)]


def test_a_part_of_the_weights(device, products):
    w = ops.weight(name="w", dtype="q8_0", shape=(2 * COLUMNS, 2 * DEPTH))
    part = ops.slice(w, starts=(3, DEPTH), stops=(3 + COLUMNS, 2 * DEPTH))
    agrees_with_the_oracle(
        device, ops.matmul(leaf("x", "f32", ROWS, DEPTH), part, transpose_b=True)
    )
    assert len(products) == 1


def test_one_matrix_for_a_batch_is_one_product_of_all_rows(device, products):
    a, b = leaf("a", "f32", 3, 20, DEPTH), leaf("b", "f32", DEPTH, COLUMNS)
    agrees_with_the_oracle(device, ops.matmul(a, b))
    assert [(one.batch, one.rows) for one in products] == [(1, 60)]


def test_a_matrix_for_each_of_a_batch(device, products):
    a, b = leaf("a", "f16", 3, ROWS, DEPTH), leaf("b", "f16", 3, COLUMNS, DEPTH)
    agrees_with_the_oracle(device, ops.matmul(a, b, transpose_b=True))
    assert [(one.batch, one.rows) for one in products] == [(3, ROWS)]


SMALL = {
    "few rows": ((31, DEPTH), (DEPTH, COLUMNS)),
    "few columns": ((ROWS, DEPTH), (DEPTH, 63)),
    "little depth": ((ROWS, 63), (63, COLUMNS)),
    "axes that do not join": ((2, 3, ROWS, DEPTH), (2, 1, DEPTH, COLUMNS)),
    "no rows": ((0, DEPTH), (DEPTH, COLUMNS)),
}


@pytest.mark.parametrize("what", SMALL)
def test_others_are_left_to_our_kernel(device, products, what):
    a, b = SMALL[what]
    agrees_with_the_oracle(device, ops.matmul(leaf("a", "f32", *a), leaf("b", "f32", *b)))
    assert products == []


@pytest.mark.parametrize(("rows", "by_rule"), [(9, False), (31, False), (32, True), (255, True)])
def test_trying_may_show_otherwise(driver, rows, by_rule):
    graph = Graph.build(
        {"y": ops.matmul(leaf("a", "f32", rows, DEPTH), leaf("b", "f32", DEPTH, COLUMNS))}
    )

    def by_library(choose):
        lowering = Lowering(driver.capabilities, choose=choose)
        lower_graph(graph, lowering, "test")
        return any(isinstance(one, LibraryLaunch) for one in lowering.launches)

    assert by_library(first) is by_rule
    assert by_library(lambda question, ways: ways[-1]) is not by_rule


def test_a_setting_turns_it_off(found, products, monkeypatch):
    monkeypatch.setenv("HOTPLUG_CUDA_CUBLAS", "off")
    result = ops.matmul(leaf("a", "f32", ROWS, DEPTH), leaf("b", "f32", DEPTH, COLUMNS))
    with backend.open(found[0].info) as device:
        agrees_with_the_oracle(device, result)
    assert products == []


def test_without_bf16_quantised_weights_become_f32(found, products, monkeypatch):
    monkeypatch.setattr("hotplug_cuda.simulation.SimulatedRuntime.products", frozenset({"f32"}))
    w = ops.weight(name="w", dtype="q4_0", shape=(COLUMNS, DEPTH))
    with backend.open(found[0].info) as device:
        agrees_with_the_oracle(
            device, ops.matmul(leaf("x", "f32", ROWS, DEPTH), w, transpose_b=True)
        )
    assert [one.dtype for one in products] == ["f32"]


# The driver's call


@pytest.fixture
def square(driver):
    """A product of two 4 x 4 matrices, and where they lie."""
    values = np.arange(16, dtype=np.float32)
    memory = [driver.allocate(64) for _ in range(3)]
    for part in memory[:2]:
        driver.write(part, 0, memoryview(values).cast("B"))
    return Gemm("f32", 4, 4, 4, Operand(0, 4), Operand(0, 4), Operand(0, 4)), memory


def result_of(driver, memory):
    target = np.empty((4, 4), np.float32)
    driver.read(memory, 0, memoryview(target).cast("B"))
    return target


def test_products_are_captured_with_kernels(driver, square):
    product, memory = square
    launches = driver.capture([driver.gemm(product, *memory)])
    assert len(launches) == 1
    driver.zero(memory[2], 64)
    driver.launch(launches)
    driver.launch(launches)
    values = np.arange(16, dtype=np.float32).reshape(4, 4)
    assert np.array_equal(result_of(driver, memory[2]), values @ values.T)


def test_what_cublas_refuses_is_an_error_of_the_run(driver, square):
    _, memory = square
    overlapping = Gemm("f32", 4, 4, 4, Operand(0, 3), Operand(0, 4), Operand(0, 4))
    with pytest.raises(ExecutionError, match=r"cuda:0 failed.*for 4 rows"):
        driver.launch([driver.gemm(overlapping, *memory)])
    driver.synchronise()


def test_a_product_beyond_its_memory_loses_the_device(driver, square):
    _, memory = square
    wild = Gemm("f32", 400, 4, 4, Operand(0, 4), Operand(0, 4), Operand(0, 4))
    driver.launch([driver.gemm(wild, *memory)])
    with pytest.raises(DeviceLostError, match="cuBLAS"):
        driver.synchronise()
