"""The CUDA backend passes the suite on a real GPU, where there is one."""

from __future__ import annotations

import os

import pytest

from hotplug import ops
from hotplug.errors import BackendLoadError
from hotplug.testing.conformance.case import single
from hotplug.testing.conformance.check import Outcome, check
from hotplug.testing.conformance.pytest_suite import BackendTests
from hotplug_cuda import backend

if "HOTPLUG_CUDA_SIMULATE" in os.environ:
    pytest.skip("devices are simulated", allow_module_level=True)
try:
    if not backend.probe():
        pytest.skip("there is no NVIDIA GPU", allow_module_level=True)
except BackendLoadError as error:
    pytest.skip(str(error), allow_module_level=True)


class TestGPU(BackendTests):
    backend = backend

    @pytest.mark.parametrize(
        ("left", "right"),
        [("f32", "f32"), ("f16", "f16"), ("bf16", "bf16"), ("f32", "f16"), ("f32", "q4_0")],
    )
    @pytest.mark.parametrize("precision", ["default", "exact"])
    def test_products_of_many_rows(self, device, left, right, precision):
        """By cuBLAS, where it is installed."""
        x = ops.input(name="x", dtype=left, shape=(130, 512))
        w = ops.weight(name="w", dtype=right, shape=(300, 512))
        result = ops.matmul(x, w, transpose_b=True, precision=precision)
        found = check(device, single(f"{left} x {right}", result))
        assert found.outcome is Outcome.PASSED, found


@pytest.mark.skipif(len(backend.probe()) < 2, reason="there is one GPU")
def test_gpus_copy_to_each_other():
    one, two = (backend.open(info) for info in backend.probe()[:2])
    data = bytes(range(256)) * 40_000  # more than staging takes at once
    with one, two:
        source, target = (device.buffers.allocate(len(data)) for device in (one, two))
        source.write(0, memoryview(data))
        target.copy_from(source)
        arrived = bytearray(len(data))
        target.read(0, memoryview(arrived))
    assert arrived == data
