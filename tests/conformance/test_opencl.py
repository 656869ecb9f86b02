"""The OpenCL backend passes the suite on PoCL and on Intel's runtime, which run kernels on the
processor; the latter where it is installed (make check-intel).

A new machine compiles every kernel, which is most of the time; ops with many of them are marked
slow. The programs among the cases, decoders and caches, use most of these ops all the same.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import pytest

from hotplug.testing.conformance.pytest_suite import BackendTests, _check_group
from hotplug.testing.conformance.suite import case_groups
from hotplug_opencl import backend

MANY_KERNELS = frozenset({
    "add_rows_by_id", "argmax", "argsort", "cast", "count_equal", "cumsum", "matmul",
    "matmul_grouped", "scaled_dot_product_attention", "scatter_rows", "softmax", "take", "argmin",
    "top_k", "conv", "conv_transpose", "gated_delta_rule", "gated_linear_attention",
    "solve_triangular", "wkv6", "wkv7",
})  # fmt: skip


def groups():
    return [
        pytest.param(group, marks=[pytest.mark.slow] if group in MANY_KERNELS else [])
        for group in case_groups(slow=False)
    ]


class TestOpenCL(BackendTests):
    """The first device of another driver than Intel's, which has tests of its own."""

    backend = backend
    intel: ClassVar[bool] = False

    @pytest.fixture(scope="class")
    @classmethod
    def device(cls, opencl_devices):
        with backend.open(opencl_devices(intel=cls.intel)) as device:
            yield device

    @pytest.mark.timeout(1800)
    @pytest.mark.parametrize("group", groups())
    def test_op(self, device, group, record_property):
        _check_group(device, group, record_property, slow=False)


class TestIntel(TestOpenCL):
    intel = True


@pytest.mark.slow
class TestGeometryOfGPUs(BackendTests):
    """Work-groups of many items, with barriers and local memory, as GPUs are given them."""

    @pytest.fixture(scope="class")
    @classmethod
    def device(cls):
        from hotplug.errors import BackendLoadError
        from hotplug.gpu.device import GPUDevice
        from hotplug_opencl.discovery import find
        from hotplug_opencl.driver import OpenCLDriver

        try:
            found = find()[0]
        except BackendLoadError as error:
            pytest.skip(str(error))
        driver = OpenCLDriver(found)
        driver.capabilities = dataclasses.replace(driver.capabilities, is_cpu=False, int8=True)
        with GPUDevice(found.info, driver, backend.memory(found.info)) as device:
            yield device

    @pytest.mark.timeout(3600)
    @pytest.mark.parametrize("group", case_groups(slow=False))
    def test_op(self, device, group, record_property):
        _check_group(device, group, record_property, slow=False)

    @pytest.mark.skip(reason="the processor's geometry shows more shapes and dtypes")
    @pytest.mark.parametrize("group", [])
    def test_op_exhaustively(self, device, group, record_property):
        pass
