"""The CUDA backend of hotplug. A thin driver under `hotplug.gpu`."""

from __future__ import annotations

from hotplug_cuda.backend import CUDABackend

__all__ = ["backend"]

backend = CUDABackend()
