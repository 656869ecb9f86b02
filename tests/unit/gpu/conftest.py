"""An OpenCL device to run kernels on; the project's own environment has PoCL."""

from __future__ import annotations

import dataclasses

import pytest

from hotplug.errors import BackendLoadError
from hotplug_opencl import backend


def _found():
    pytest.importorskip("pyopencl", reason="PyOpenCL is not installed")
    from hotplug_opencl.discovery import find

    try:
        return find()[0]
    except BackendLoadError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def device():
    with backend.open(_found().info) as device:
        yield device


def _opencl(*, is_cpu):
    from hotplug_opencl import driver

    found = _found()
    capabilities = dataclasses.replace(driver._capabilities(found), is_cpu=is_cpu, int8=not is_cpu)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "_capabilities", lambda _: capabilities)
        return backend.open(found.info)


def _simulated():
    cuda = pytest.importorskip("hotplug_cuda", reason="hotplug-cuda is not installed").backend
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOTPLUG_CUDA_SIMULATE", "1")
        try:
            return cuda.open(cuda.probe()[0])
        except BackendLoadError as error:
            pytest.skip(str(error))


@pytest.fixture(scope="module")
def gpu():
    """A device with the geometry of a GPU."""
    with _opencl(is_cpu=False) as device:
        yield device


@pytest.fixture(scope="module", params=["processor", "GPU", "CUDA"])
def each(request):
    """A device with the geometry of a processor, one with that of a GPU, and a simulated GPU."""
    cuda = request.param == "CUDA"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOTPLUG_AUTOTUNE", "off")  # which kernel is chosen is left to no clock
        made = _simulated() if cuda else _opencl(is_cpu=request.param == "processor")
    with made as device:
        yield device
