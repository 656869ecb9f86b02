"""The OpenCL backend of hotplug. It registers and looks for PyOpenCL; it drives no device yet."""

from __future__ import annotations

from hotplug_opencl.backend import OpenCLBackend

__all__ = ["backend"]

backend = OpenCLBackend()
