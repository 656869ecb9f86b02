"""The CUDA backend passes the suite on a simulated device, which interprets NVRTC's PTX.

Driver, streams, staging and captured graphs are those of a real device; what lies below calls of
CuPy is not. Ops with many kernels, or with much to interpret, are marked slow.
"""

from __future__ import annotations

import pytest

from hotplug.testing.conformance.cases.operands import QUANTS
from hotplug.testing.conformance.check import Outcome, check
from hotplug.testing.conformance.pytest_suite import BackendTests, _check_group
from hotplug.testing.conformance.suite import case_groups
from hotplug_cuda import backend

LONG = frozenset({
    "argmax", "argsort", "cast", "conv", "conv_transpose", "cumsum", "decoder", "gated_delta_rule",
    "gated_linear_attention", "interpolate", "matmul", "matmul_grouped", "rms_norm",
    "scaled_dot_product_attention", "scatter_rows", "selective_scan", "softmax",
    "solve_triangular", "sum", "take", "wkv6",
})  # fmt: skip


def groups():
    return [
        pytest.param(group, marks=[pytest.mark.slow] if group in LONG else [])
        for group in case_groups(slow=False)
    ]


@pytest.fixture(scope="module", autouse=True)
def simulation(two_simulated_gpus):
    """For all tests here."""


class TestCUDA(BackendTests):
    backend = backend

    @pytest.mark.timeout(900)
    @pytest.mark.parametrize("group", groups())
    def test_op(self, device, group, record_property):
        _check_group(device, group, record_property, slow=False)

    @pytest.mark.parametrize("group", sorted(LONG))
    def test_some_cases(self, device, group):
        for case in case_groups(slow=False)[group][::30]:
            result = check(device, case)
            assert result.outcome is not Outcome.FAILED, result

    @pytest.mark.parametrize("dtype", QUANTS)
    def test_quantised(self, device, dtype):
        """Decoded to the bit, and multiplied."""
        wanted = {f"take/{dtype}/rows by i32", f"matmul_grouped/f32 {dtype}/exact"}
        for group in ("take", "matmul_grouped"):
            cases = [case for case in case_groups(slow=False)[group] if case.name in wanted]
            assert len(cases) == 1
            result = check(device, cases[0])
            assert result.outcome is Outcome.PASSED, result

    @pytest.mark.slow
    @pytest.mark.timeout(1200)
    @pytest.mark.parametrize("group", case_groups(slow=True))
    def test_op_exhaustively(self, device, group, record_property):
        _check_group(device, group, record_property, slow=True)


class TestSecondDevice(BackendTests):
    """What the contract says of buffers and executables, beside the first device."""

    backend = backend
    index = 1

    @pytest.mark.parametrize("group", ["add", "program", "cache"])
    def test_op(self, device, group, record_property):
        _check_group(device, group, record_property, slow=False)

    @pytest.mark.skip(reason="the first device shows it")
    @pytest.mark.parametrize("group", [])
    def test_op_exhaustively(self, device, group, record_property):
        pass
