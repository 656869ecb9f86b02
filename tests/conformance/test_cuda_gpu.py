"""The CUDA backend passes the suite on a real GPU, where there is one."""

from __future__ import annotations

import os

import pytest

from hotplug.errors import BackendLoadError
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
