"""Staging's side of OpenCL: host memory that the driver allocates, and copies that are queued."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyopencl as cl
from numpy.typing import NDArray

from hotplug.gpu.driver import Memory

__all__ = ["Link"]


class Link:
    """See `hotplug.gpu.staging.Link`.

    What CL_MEM_ALLOC_HOST_PTR gives is pinned wherever a driver has such memory; it stays mapped.
    """

    def __init__(self, context: cl.Context, queue: cl.CommandQueue) -> None:
        self._context = context
        self._queue = queue

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        """A mapped buffer."""
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.ALLOC_HOST_PTR
        buffer = cl.Buffer(self._context, flags, nbytes)
        both = cl.map_flags.READ | cl.map_flags.WRITE
        mapped: NDArray[np.uint8]
        mapped, _ = cl.enqueue_map_buffer(self._queue, buffer, both, 0, (nbytes,), np.uint8)
        return mapped

    def send(self, piece: NDArray[np.uint8], memory: Memory, offset: int, event: Any) -> Any:
        """Queue a copy to the device, and have it begin."""
        del event  # OpenCL makes a new one each time
        sent = cl.enqueue_copy(self._queue, memory, piece, dst_offset=offset, is_blocking=False)
        self._queue.flush()
        return sent

    def fetch(self, memory: Memory, offset: int, piece: NDArray[np.uint8], event: Any) -> Any:
        """Queue a copy to the host, and have it begin."""
        del event
        sent = cl.enqueue_copy(self._queue, piece, memory, src_offset=offset, is_blocking=False)
        self._queue.flush()
        return sent

    def wait(self, event: Any) -> None:
        """Return when a copy is done."""
        event.wait()
