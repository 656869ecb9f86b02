"""What the driver asks of CUDA: a seam under which lies CuPy, or the simulation.

The driver's own work, staging, order, capture, errors, is above the seam and thus runs in tests.
Streams, events and graphs have the methods of CuPy's classes, so that CuPy's fill their place.
"""

from __future__ import annotations

import enum
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

__all__ = [
    "OUT_OF_MEMORY", "STICKY", "Blas", "Direction", "Event", "Graph", "Matrices", "Runtime",
    "Stream",
]  # fmt: skip

OUT_OF_MEMORY = 2
"""cudaErrorMemoryAllocation and CUDA_ERROR_OUT_OF_MEMORY."""

STICKY = frozenset({201, 214, 220, 226, 700, 702, 709, 710, *range(714, 720), 721, 999})
"""Errors after which nothing works any more until the process ends: the context is gone.

Numbers of CUresult, which those of cudaError_t agree with: invalid context, errors of memory and
NVLink that nothing corrects, illegal address, time-out, context destroyed, assertion, what the
hardware stops at (stack, instruction, alignment, address space, program counter, launch), leak of
tensor memory, unknown.
"""


class Direction(enum.IntEnum):
    """Which way bytes are copied, with CUDA's numbers."""

    TO_DEVICE = 1
    TO_HOST = 2
    ON_DEVICE = 3


class Event(Protocol):
    """A point in a stream."""

    def record(self, stream: Any) -> None:
        """Make it the present end of a stream."""

    def synchronize(self) -> None:
        """Wait until all before it is done; at once if it was never recorded."""


class Graph(Protocol):
    """Work that was captured."""

    def launch(self, stream: Any) -> None:
        """Queue all of it."""


class Stream(Protocol):
    """An in-order queue of work."""

    def synchronize(self) -> None:
        """Wait until it is empty."""

    def wait_event(self, event: Any) -> None:
        """Have later work wait for an event, which may be another device's."""

    def begin_capture(self) -> None:
        """Collect what is queued from now on, instead of doing it."""

    def end_capture(self) -> Graph:
        """What was collected."""


@dataclass(frozen=True, slots=True)
class Matrices:
    """Matrices as cuBLAS takes them: column by column.

    Attributes:
        address: of the first.
        leading: elements from a column to the next.
        stride: elements from a matrix to the next.
        transposed: whether what is multiplied is each one's transpose.
    """

    address: int
    leading: int
    stride: int
    transposed: bool


class Blas(Protocol):
    """cuBLAS on one stream."""

    def gemm(
        self,
        dtype: str,
        sizes: tuple[int, int, int],
        a: Matrices,
        b: Matrices,
        c: Matrices,
        batch: int,
    ) -> None:
        """Queue products c = a b of matrices of one dtype, summed up and stored in f32.

        Args:
            dtype: "f32", "f16" or "bf16", of a and b.
            sizes: rows of a, columns of b, columns of a; all of what is multiplied.
            a: left operand.
            b: right operand.
            c: result.
            batch: how many products.
        """


class Runtime(Protocol):
    """One device's calls. Failures are raised as one of `errors`, whose `status` is CUDA's number.

    Attributes:
        errors: exceptions that calls raise.
        version: name and version of what lies beneath, a part of the kernel cache's key.
        products: dtypes that `blas` multiplies fast; none where there is no cuBLAS.
        simulated: whether there is no GPU beneath.
    """

    errors: tuple[type[Exception], ...]
    version: str
    products: frozenset[str]
    simulated: bool

    def current(self) -> AbstractContextManager[Any]:
        """Make the device the thread's for a while; every other call needs that."""

    def memory(self) -> tuple[int, int]:
        """Bytes free, and in all."""

    def allocate(self, nbytes: int, stream: Any) -> int:
        """The address of new memory, usable by what is queued on the stream from now on."""

    def free(self, address: int, stream: Any) -> None:
        """Give memory back after what is queued on the stream."""

    def pinned(self, nbytes: int) -> NDArray[Any]:
        """Bytes of host memory that the device reads and writes by itself."""

    def copy(
        self, target: int, source: int, nbytes: int, direction: Direction, stream: Any
    ) -> None:
        """Queue a copy; host memory must be pinned and stay as it is until the copy is done."""

    def copy_peer(
        self, target: int, source: int, source_device: int, nbytes: int, stream: Any
    ) -> None:
        """Queue a copy from another device to this one."""

    def reach(self, device: int) -> bool:
        """Have copies from another device go without the host; False if the two can't do that."""

    def fill(self, target: int, byte: int, nbytes: int, stream: Any) -> None:
        """Queue one byte into many."""

    def function(self, image: bytes, name: str) -> Any:
        """Load a cubin or PTX, and find a kernel in it."""

    def launch(
        self,
        function: Any,
        grid: tuple[int, int],
        block: int,
        parameters: int,
        stream: Any,
    ) -> None:
        """Queue a kernel. `parameters` is the address of an array of pointers to its arguments."""

    def blas(self, stream: Any) -> Blas:
        """A new cuBLAS on a stream, with all the memory that it needs."""

    def stream(self) -> Stream:
        """A new stream, independent of the default one."""

    def event(self, *, timed: bool = False) -> Event:
        """A new event, and whether it notes when it is reached."""

    def elapsed(self, start: Any, end: Any) -> float:
        """Seconds from one timed event to another, both of which were reached."""
