"""The CPU backend of hotplug: compiled SIMD kernels, and NumPy for every op.

Modules, in the order in which a graph meets them:

    registration    the backend object that the registry finds
    host            name, threads and memory of this machine
    device          the contract's device
    buffers         host memory
    bindings        the buffers that a run needs
    lowering        graph -> program; `patterns`, `products`, `rotation` and `mixing` are its rules
    program         steps, the order in which threads wait least, the arena
    plan            a program as rows of addresses, and its run
    threads         teams of threads that walk plans
    catalog         names and arguments of the compiled kernels
    kernels/        their source
    jit/            how they are compiled, kept and loaded
    tensor_view     a tensor in host memory, as the NumPy kernels see it
    numpy_kernels/  every op with NumPy
    interpreter     a graph run through them alone, one node after the other
"""

from __future__ import annotations

from hotplug_cpu.registration import CPUBackend

__all__ = ["backend"]

backend = CPUBackend()
