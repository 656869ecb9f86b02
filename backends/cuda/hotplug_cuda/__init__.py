"""The CUDA backend of hotplug. It registers and looks for CuPy; it drives no device yet."""

from __future__ import annotations

from hotplug_cuda.backend import CUDABackend

__all__ = ["backend"]

backend = CUDABackend()
