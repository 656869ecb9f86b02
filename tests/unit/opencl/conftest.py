"""Drivers, platforms and devices that are not here."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hotplug.errors import BackendLoadError


@pytest.fixture
def cl():
    return pytest.importorskip("pyopencl", reason="PyOpenCL is not installed")


@pytest.fixture
def platforms(cl, monkeypatch):
    """Has the loader give what it is called with."""

    def show(*given):
        monkeypatch.setattr(cl, "get_platforms", lambda: list(given))

    return show


@pytest.fixture
def failing(cl):
    """Makes an error of PyOpenCL with a code."""

    def make(code, text=""):
        return type("DriverError", (cl.RuntimeError,), {"code": code})(text)

    return make


def platform(*devices, name="Test Platform", error=None):
    """A platform of PyOpenCL."""

    def get_devices():
        if error is not None:
            raise error
        return list(devices)

    return SimpleNamespace(name=name, version="OpenCL 3.0", get_devices=get_devices)


def device(**facts):
    """A GPU of PyOpenCL that has whatever is needed, but for some facts."""
    known = {
        "name": "Test GPU", "vendor": "Test", "type": 4, "version": "OpenCL 3.0 test",
        "available": 1, "compiler_available": 1, "endian_little": 1, "extensions": "",
        "global_mem_size": 1 << 30, "max_mem_alloc_size": 1 << 28, "max_compute_units": 8,
        "opencl_c_version": "OpenCL C 1.2 ", "driver_version": "1.0", "host_unified_memory": 0,
        "parent_device": None, "int_ptr": 0,
    }  # fmt: skip
    return SimpleNamespace(**known | facts)


@pytest.fixture
def found():
    """The devices that are here."""
    pytest.importorskip("pyopencl", reason="PyOpenCL is not installed")
    from hotplug_opencl import discovery

    try:
        return discovery.find()
    except BackendLoadError as error:
        pytest.skip(str(error))
