"""The reference device passes the suite, and the suite covers the op table."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug.dtypes import DTYPES, Kind
from hotplug.ops import OPS
from hotplug.testing.conformance import all_cases, case_groups, check_backend, coverage
from hotplug.testing.conformance.pytest_suite import BackendTests
from hotplug.testing.reference import ReferenceBackend
from hotplug.verify import verify

FLOATS = {"f64", "f32", "f16", "bf16"}
NUMBERS = FLOATS | {"i8", "i16", "i32", "i64"}
PLAIN = NUMBERS | {"bool"}
QUANTISED_DTYPES = {name for name, dtype in DTYPES.items() if dtype.quantised}

ARITHMETIC = {"add", "sub", "mul", "div", "maximum", "minimum", "pow"}
COMPARISONS = {"equal", "not_equal", "less", "less_equal", "greater", "greater_equal"}
REDUCTIONS = {"sum", "prod", "max", "min", "argmax", "argmin", "argsort", "top_k", "cumsum"}
MOVES = {
    "where", "concat", "repeat", "pad", "pad_reflect", "roll", "diag", "fill", "arange", "im2col",
}  # fmt: skip
QUANTISED = {
    "input", "weight", "state", "reshape", "permute", "transpose", "slice", "take", "cast",
    "contiguous",
}  # fmt: skip
PRODUCTS = {"matmul", "matmul_grouped", "scaled_dot_product_attention"}


def wanted_dtypes(op: str) -> set[str]:
    """What an op's rule admits."""
    if op in QUANTISED:
        return PLAIN | QUANTISED_DTYPES
    if op in PRODUCTS:
        return FLOATS | QUANTISED_DTYPES
    if op == "scatter_rows":
        return PLAIN | {"q4_0", "q8_0", "iq4_nl", "mxfp4"}
    if op.startswith("logical"):
        return {"bool"}
    if op in MOVES | {"count_equal"}:
        return PLAIN
    if op in ARITHMETIC | COMPARISONS | REDUCTIONS | {"add_rows_by_id"}:
        return NUMBERS
    return FLOATS


class TestReference(BackendTests):
    backend = ReferenceBackend()


@pytest.mark.parametrize("op", OPS)
def test_every_op_has_cases_of_all_its_dtypes(op):
    assert wanted_dtypes(op) <= coverage()[op]


def test_every_op_has_a_group_of_cases():
    assert OPS.keys() <= case_groups(slow=False).keys()


def test_case_names_are_unique():
    names = [case.name for case in all_cases()]

    assert len(names) == len(set(names))


def test_every_case_keeps_the_rules_of_graphs():
    for case in all_cases():
        verify(case.graph)


def test_data_is_for_leaves_that_exist():
    # Data of a group may serve fewer leaves in some of its cases, but never none.
    for case in all_cases():
        leaves = {node.name for node in case.graph.nodes if node.is_leaf}

        assert not case.data or leaves & case.data.keys() or "mask" in case.data, case.name


def test_values_are_the_same_every_time():
    case = next(case for case in all_cases() if case.name == "program/input, weight and value")
    node = case.graph.inputs["x"]

    np.testing.assert_array_equal(case.leaf(node).data, case.leaf(node).data)
    assert not np.array_equal(case.leaf(node, 0).data, case.leaf(node, 1).data)


@pytest.mark.parametrize("dtype", sorted(QUANTISED_DTYPES))
def test_weights_of_every_readable_dtype_are_of_common_size(dtype):
    case = next(c for c in all_cases() if c.name == f"weight/{dtype}/as output")
    tensor = case.leaf(case.graph.weights["x"])

    assert tensor.dtype == DTYPES[dtype]
    assert tensor.dtype.kind is Kind.QUANTISED


def test_report_counts_and_names_devices():
    report = check_backend(ReferenceBackend())

    assert report.ok
    assert not report.skipped
    assert str(report).startswith("reference:0: ")
    assert "0 failed" in str(report)
