"""Simulated devices: NVRTC's PTX, interpreted."""

from __future__ import annotations

import pytest

from hotplug.errors import BackendLoadError
from hotplug_cuda import discovery
from hotplug_cuda.driver import CUDADriver


@pytest.fixture
def found(monkeypatch):
    """Two simulated devices."""
    monkeypatch.setenv("HOTPLUG_CUDA_SIMULATE", "2")
    try:
        return discovery.find()
    except BackendLoadError as error:
        pytest.skip(str(error))


@pytest.fixture
def driver(found):
    return CUDADriver.open(found[0])


@pytest.fixture
def other(found):
    return CUDADriver.open(found[1])
