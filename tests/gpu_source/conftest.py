"""An OpenCL device to compile for; the project's own environment has PoCL."""

from __future__ import annotations

import pytest

from hotplug.errors import BackendLoadError
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
    from hotplug_opencl.driver import OpenCLDriver

    return OpenCLDriver(found)
