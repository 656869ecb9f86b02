"""The seam over CuPy: each call is one of CuPy's, and nothing is decided here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cupy
import numpy as np
from cupy.cuda import driver, function, runtime
from numpy.typing import NDArray

from hotplug_cuda import cupy_blas, libcuda
from hotplug_cuda.runtime import Blas, Direction, Event, Stream

__all__ = ["CupyRuntime"]

_COMPUTE_CAPABILITY_MAJOR = 75
_ALREADY_ENABLED = 704


class CupyRuntime:
    """One GPU."""

    errors: tuple[type[Exception], ...] = (
        runtime.CUDARuntimeError, driver.CUDADriverError, *cupy_blas.ERRORS,
    )  # fmt: skip

    simulated = False

    def __init__(self, index: int) -> None:
        self._index = index
        self.version = f"cupy {cupy.__version__} of CUDA {runtime.runtimeGetVersion()}"
        # Drivers of Windows and of shared virtual GPUs may lack pools.
        pools = runtime.cudaDevAttrMemoryPoolsSupported
        self._pooled = bool(runtime.deviceGetAttribute(pools, index))
        self._major = runtime.deviceGetAttribute(_COMPUTE_CAPABILITY_MAJOR, index)
        self.products = cupy_blas.products(self._major)
        previous = driver.ctxGetCurrent()
        runtime.setDevice(index)
        self._context = driver.ctxGetCurrent()
        driver.ctxSetCurrent(previous)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the device's context the thread's, and give back the one that it had.

        Changing the device instead, as CuPy's does, would create a context on device 0, which is
        the one that a thread has before it says anything.
        """
        previous = driver.ctxGetCurrent()
        driver.ctxSetCurrent(self._context)
        try:
            yield
        finally:
            driver.ctxSetCurrent(previous)

    def memory(self) -> tuple[int, int]:
        """Asks the device."""
        free, total = runtime.memGetInfo()
        return int(free), int(total)

    def allocate(self, nbytes: int, stream: Any) -> int:
        """From the pool that CUDA keeps for the device, in the stream's order."""
        if self._pooled:
            return int(runtime.mallocAsync(nbytes, stream.ptr))
        return int(runtime.malloc(nbytes))

    def free(self, address: int, stream: Any) -> None:
        """Back to the pool; without one, CUDA waits for the device first."""
        if self._pooled:
            runtime.freeAsync(address, stream.ptr)
        else:
            runtime.free(address)

    def pinned(self, nbytes: int) -> NDArray[Any]:
        """Host memory that is given back when nobody holds the array."""
        return np.frombuffer(cupy.cuda.alloc_pinned_memory(nbytes), np.uint8, nbytes)

    def copy(
        self, target: int, source: int, nbytes: int, direction: Direction, stream: Any
    ) -> None:
        """Queue a copy."""
        runtime.memcpyAsync(target, source, nbytes, int(direction), stream.ptr)

    def copy_peer(
        self, target: int, source: int, source_device: int, nbytes: int, stream: Any
    ) -> None:
        """Queue a copy; CUDA goes through the host where the devices do not reach each other."""
        runtime.memcpyPeerAsync(target, self._index, source, source_device, nbytes, stream.ptr)

    def reach(self, device: int) -> bool:
        """Access to the other's memory, of pools and else; CUDA grants the two apart."""
        if not runtime.deviceCanAccessPeer(self._index, device):
            return False
        try:
            runtime.deviceEnablePeerAccess(device)
        except runtime.CUDARuntimeError as error:
            if error.status != _ALREADY_ENABLED:
                raise
        if self._pooled:
            try:
                libcuda.open_pool(libcuda.load(), device, self._index)
            except libcuda.LibcudaError:
                return False  # copies still arrive, by way of the host
        return True

    def fill(self, target: int, byte: int, nbytes: int, stream: Any) -> None:
        """Queue a fill."""
        runtime.memsetAsync(target, byte, nbytes, stream.ptr)

    def function(self, image: bytes, name: str) -> Any:
        """A function, which holds its module."""
        module = function.Module()
        module.load(image)
        return module.get_function(name)

    def launch(
        self,
        function: Any,
        grid: tuple[int, int],
        block: int,
        parameters: int,
        stream: Any,
    ) -> None:
        """The driver's launch: CuPy's call of a function converts all arguments each time."""
        driver.launchKernel(
            function.ptr, grid[0], grid[1], 1, block, 1, 1, 0, stream.ptr, parameters, 0
        )

    def blas(self, stream: Any) -> Blas:
        """One handle for each stream."""
        return cupy_blas.CupyBlas(stream.ptr, self._major)

    def stream(self) -> Stream:
        """One that does not wait for the default stream."""
        return cupy.cuda.Stream(non_blocking=True)  # type: ignore[no-any-return]

    def event(self, *, timed: bool = False) -> Event:
        """One without a time is faster."""
        return cupy.cuda.Event(disable_timing=not timed)  # type: ignore[no-any-return]

    def elapsed(self, start: Any, end: Any) -> float:
        """CuPy tells milliseconds."""
        return 1e-3 * float(cupy.cuda.get_elapsed_time(start, end))
