"""The CPU backend of hotplug: compiled SIMD kernels, and NumPy for every op.

registration    the backend object that the registry finds
host            name, threads and memory of this machine
device          the contract's device
buffers         host memory
tensor_view     a tensor in it, as the NumPy kernels see it
numpy_kernels/  every op with NumPy
interpreter     a graph run through them, one node after the other
catalog         names of the compiled kernels
jit/            how they are compiled, kept and loaded
"""

from __future__ import annotations

from hotplug_cpu.registration import CPUBackend

__all__ = ["backend"]

backend = CPUBackend()
