"""What is said where there is no OpenCL device, and what of the devices that there are."""

from __future__ import annotations

import sys

import pytest

from hotplug.backend import DeviceInfo, DeviceType
from hotplug.errors import BackendLoadError, DeviceUnavailableError, OutOfDeviceMemoryError
from hotplug_opencl import backend

cl = pytest.importorskip("pyopencl", reason="PyOpenCL is not installed")


def test_without_pyopencl_the_remedy_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyopencl", None)
    with pytest.raises(BackendLoadError, match="PyOpenCL") as caught:
        backend.probe()
    assert caught.value.remedy == "pip install pyopencl"


def failing(code, text=""):
    """A `get_platforms` that raises as the loader does."""
    error = type("LoaderError", (cl.Error,), {"code": code})

    def get_platforms():
        raise error(text)

    return get_platforms


def test_without_a_driver_the_remedy_names_one(monkeypatch):
    monkeypatch.setattr(cl, "get_platforms", failing(-1001))
    with pytest.raises(BackendLoadError, match="no OpenCL driver") as caught:
        backend.probe()
    assert "hotplug-opencl[pocl]" in (caught.value.remedy or "")


def test_a_loader_that_fails_is_quoted(monkeypatch):
    monkeypatch.setattr(cl, "get_platforms", failing(-6, "OUT_OF_HOST_MEMORY"))
    with pytest.raises(BackendLoadError, match="OUT_OF_HOST_MEMORY"):
        backend.probe()


def test_no_platform_is_no_driver(monkeypatch):
    monkeypatch.setattr(cl, "get_platforms", list)
    with pytest.raises(BackendLoadError, match="no OpenCL driver"):
        backend.probe()


@pytest.fixture
def infos():
    try:
        return backend.probe()
    except BackendLoadError as error:
        pytest.skip(str(error))


def test_devices_are_told_of_without_a_context(infos):
    assert [info.index for info in infos] == list(range(len(infos)))
    for info in infos:
        assert info.name
        assert info.driver
        assert info.units
        total = backend.memory(info).total
        assert total is not None
        assert total > 0


def test_a_device_that_is_not_there_is_not_opened(infos):
    missing = DeviceInfo("opencl", len(infos), "none", DeviceType.GPU)
    with pytest.raises(DeviceUnavailableError, match=f"opencl:{len(infos)}"):
        backend.open(missing)


def test_more_than_one_buffer_may_hold_is_refused_with_the_limit(infos):
    with backend.open(infos[0]) as device:
        limit = device.buffers.max_bytes
        assert limit is not None
        with pytest.raises(OutOfDeviceMemoryError, match=str(limit)) as caught:
            device.buffers.allocate(limit + 1)
    assert caught.value.requested == limit + 1
