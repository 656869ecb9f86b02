"""What a vendor's package must offer: compile, allocate, copy, launch, wait.

A driver serves one opened device. Handles of memory and of programs are the vendor's objects, which
nothing here looks into. Work is queued in order; reading waits for it.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from hotplug.backend import MemoryInfo

__all__ = [
    "Argument", "BoundLaunch", "Capabilities", "Driver", "Gemm", "Memory", "Operand", "Program",
]  # fmt: skip

Memory: TypeAlias = Any
"""The vendor's handle of a block of device memory."""

Program: TypeAlias = Any
"""The vendor's handle of a compiled program, which holds one kernel."""

BoundLaunch: TypeAlias = Any
"""The vendor's handle of a kernel with its arguments and its geometry, ready to be queued."""

Argument: TypeAlias = "Memory | bytes"
"""Memory, or the bytes of a number or struct as the kernel declares it."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a device can do, as far as kernels and their geometry depend on it.

    Attributes:
        dialect: name of its page of macros.
        identity: device, driver and compiler with their versions: binaries serve no other.
        is_cpu: whether work-items are run by the loops of a processor.
        f64: whether it computes in float64.
        alignment: bytes to which allocations are aligned.
        max_items: the largest work-group.
        local_bytes: local memory of a work-group.
        max_buffer: bytes of the largest allocation.
        int8: whether an instruction multiplies four signed bytes and adds them up.
        products: dtypes whose matrices a library of the vendor's multiplies, see `Driver.gemm`.
        simulated: whether how long something takes means nothing.
        threads: of a processor whose compiler links programs, for which small launches are joined
            (`series`); else 0.
    """

    dialect: str
    identity: str
    is_cpu: bool
    f64: bool
    alignment: int
    max_items: int
    local_bytes: int
    max_buffer: int
    int8: bool = False
    products: frozenset[str] = frozenset()
    simulated: bool = False
    threads: int = 0


@dataclass(frozen=True, slots=True)
class Operand:
    """Where the matrices of an operand of a `Gemm` lie.

    Attributes:
        at: bytes from the start of its memory to the first element.
        row: elements from a row to the next, or from a column to the next if it is transposed.
        transposed: whether columns rather than rows are contiguous.
        batch: elements from a matrix to the next; 0 if all products have the same.
    """

    at: int
    row: int
    transposed: bool = False
    batch: int = 0


@dataclass(frozen=True, slots=True)
class Gemm:
    """Products y = a b of matrices of one dtype, summed up and stored in f32.

    Attributes:
        dtype: of a and of b.
        rows: of a and of y.
        columns: of b and of y.
        depth: columns of a, rows of b.
        a: rows x depth.
        b: depth x columns.
        y: rows x columns, not transposed.
        batch: how many products.
    """

    dtype: str
    rows: int
    columns: int
    depth: int
    a: Operand
    b: Operand
    y: Operand
    batch: int = 1

    def __str__(self) -> str:
        size = f"{self.rows} x {self.depth} x {self.columns}"
        return f"library product of {self.dtype}, {f'{self.batch} times ' * (self.batch > 1)}{size}"


class Driver(abc.ABC):
    """An opened device. Safe to use from several threads.

    Every method raises `DeviceLostError` if the device is gone and `ExecutionError` for what else
    goes wrong on it.
    """

    capabilities: Capabilities

    @abc.abstractmethod
    def compile(self, kernel: str, source: str) -> Program:
        """Compile a program.

        Raises:
            KernelCompileError: the compiler refused it; holds source and log.
        """

    def link(self, kernel: str, sources: Sequence[str]) -> Program:
        """(optional) Compile a program of several texts; asked where there are `threads` alone.

        Raises:
            KernelCompileError: as for `compile`.
        """
        raise NotImplementedError

    @abc.abstractmethod
    def binary(self, program: Program) -> bytes:
        """What `load` makes the same program from."""

    @abc.abstractmethod
    def load(self, kernel: str, binary: bytes) -> Program | None:
        """A program from its binary; None if the device does not take it."""

    @abc.abstractmethod
    def allocate(self, nbytes: int) -> Memory:
        """New memory of at least one byte, its contents undefined.

        Raises:
            OutOfDeviceMemoryError: there is not enough.
        """

    def wrap(self, data: memoryview) -> Memory | None:
        """(optional) Host memory that kernels only read, as it lies; None where that is not better.

        Who asks keeps it alive.
        """
        del data
        return None

    @abc.abstractmethod
    def free(self, memory: Memory) -> None:
        """Give memory back; queued work that uses it is still done."""

    @abc.abstractmethod
    def zero(self, memory: Memory, nbytes: int) -> None:
        """Queue zeros into the first bytes."""

    @abc.abstractmethod
    def read(self, memory: Memory, offset: int, target: memoryview) -> None:
        """Copy to the host; returns when done, and all work queued before is done too."""

    @abc.abstractmethod
    def write(self, memory: Memory, offset: int, source: memoryview) -> None:
        """Copy from the host; returns when the source may be changed."""

    @abc.abstractmethod
    def copy(self, source: Memory, target: Memory, nbytes: int) -> None:
        """Queue a copy of the first bytes of one block to another."""

    @abc.abstractmethod
    def bind(
        self,
        kernel: str,
        program: Program,
        groups: tuple[int, int],
        items: int,
        arguments: Sequence[Argument],
    ) -> BoundLaunch:
        """A kernel made ready to be queued many times.

        Args:
            kernel: the kernel's name.
            program: what holds it.
            groups: work-groups along x and y.
            items: work-items in a group.
            arguments: in the kernel's order.
        """

    def gemm(self, product: Gemm, a: Memory, b: Memory, y: Memory) -> BoundLaunch:
        """(optional) Products made ready to be queued; asked for `Capabilities.products` alone."""
        raise NotImplementedError

    @abc.abstractmethod
    def launch(self, launches: Sequence[BoundLaunch]) -> None:
        """Queue launches in order."""

    def capture(self, launches: Sequence[BoundLaunch]) -> Sequence[BoundLaunch]:
        """(optional) The same work in a form that is queued faster, for launches that repeat."""
        return launches

    def timed(self, launches: Sequence[BoundLaunch]) -> list[float]:
        """(optional) Do launches in order, and tell the seconds that each took on the device.

        By default the host's clock is read around each, which counts its beginning and end too.
        """
        seconds = []
        for launch in launches:
            self.synchronise()
            began = time.perf_counter()
            self.launch((launch,))
            self.synchronise()
            seconds.append(time.perf_counter() - began)
        return seconds

    def reaches(self, origin: Driver) -> bool:
        """(optional) Whether `copy_peer` brings bytes of that device without the host between."""
        del origin
        return False

    def copy_peer(self, origin: Driver, source: Memory, target: Memory, nbytes: int) -> bool:
        """(optional) Queue a copy of the first bytes from another device's memory.

        Returns:
            Whether it was done; else the bytes have to go through the host.
        """
        del origin, source, target, nbytes
        return False

    def memory(self) -> MemoryInfo | None:
        """(optional) Memory of the device at this moment, where the vendor tells."""
        return None

    @abc.abstractmethod
    def synchronise(self) -> None:
        """Wait until all that was queued is done."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the device."""
