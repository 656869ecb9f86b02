"""An OpenCL device to compile for; the project's own environment has PoCL."""

from __future__ import annotations

import dataclasses

import pytest

from hotplug.errors import BackendLoadError
from hotplug.gpu.catalog.limits import LOCAL_BYTES
from hotplug_opencl import backend


@pytest.fixture(scope="session")
def found():
    """The first OpenCL device."""
    pytest.importorskip("pyopencl", reason="PyOpenCL is not installed")
    from hotplug_opencl import discovery

    try:
        devices = discovery.find()
    except BackendLoadError as error:
        pytest.skip(str(error))
    assert backend.probe()
    return devices[0]


@pytest.fixture(scope="session")
def driver(found):
    """Refuses kernels that take more local memory than every device has."""
    from hotplug_opencl.driver import OpenCLDriver

    driver = OpenCLDriver(found)
    driver.capabilities = dataclasses.replace(driver.capabilities, local_bytes=LOCAL_BYTES)
    return driver
