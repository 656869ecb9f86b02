"""The OpenCL backend of hotplug. A thin driver under `hotplug.gpu`."""

from __future__ import annotations

from hotplug_opencl.backend import OpenCLBackend

__all__ = ["backend"]

backend = OpenCLBackend()
