"""The shared engine's driver over PyOpenCL."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyopencl as cl

from hotplug.errors import (
    DeviceLostError,
    DeviceUnavailableError,
    ExecutionError,
    HotplugError,
    KernelCompileError,
    OutOfDeviceMemoryError,
)
from hotplug.gpu.driver import Argument, BoundLaunch, Capabilities, Driver, Memory, Program
from hotplug_opencl.discovery import Found

__all__ = ["OpenCLDriver"]


_OPTIONS = ["-cl-std=CL1.2"]
_building = threading.Lock()  # PyOpenCL tells of compilers' remarks by warnings, a global matter


class OpenCLDriver(Driver):
    """A context and one in-order queue on a device."""

    def __init__(self, found: Found) -> None:
        """Create them.

        Raises:
            DeviceUnavailableError: the driver refuses.
        """
        self._device = found.device
        self._id = found.info.id
        try:
            self._context = cl.Context([self._device])
            self._queue = cl.CommandQueue(self._context)
        except cl.Error as error:
            raise DeviceUnavailableError(
                f"{self._id} gives no context: {error}", device=self._id
            ) from error
        self.capabilities = _capabilities(found)

    def compile(self, kernel: str, source: str) -> Program:
        """Build a program; what the compiler remarks on one that it takes is not passed on."""
        program = cl.Program(self._context, source)
        try:
            with _building, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return program.build(options=_OPTIONS, cache_dir=False)
        except cl.RuntimeError as error:
            log = str(error)
            raise KernelCompileError(
                f"the compiler of {self._id} refused kernel {kernel}: {_first_error(log)}",
                kernel=kernel,
                source=source,
                log=log,
            ) from error

    def binary(self, program: Program) -> bytes:
        """The device's binary; empty if the driver does not give it."""
        try:
            return bytes(program.get_info(cl.program_info.BINARIES)[0])
        except cl.Error:
            return b""

    def load(self, kernel: str, binary: bytes) -> Program | None:
        """A program from its binary; None if the driver has changed its mind."""
        try:
            with _building, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = cl.Program(self._context, [self._device], [binary]).build()
            cl.Kernel(program, kernel)
        except cl.Error:
            return None
        return program

    def allocate(self, nbytes: int) -> Memory:
        """A buffer object."""
        with self._errors(nbytes):
            return cl.Buffer(self._context, cl.mem_flags.READ_WRITE, nbytes)

    def free(self, memory: Memory) -> None:
        """Release it; the driver keeps it until queued work is done."""
        with self._errors():
            memory.release()

    def zero(self, memory: Memory, nbytes: int) -> None:
        """Queue a fill."""
        with self._errors(nbytes):
            cl.enqueue_fill_buffer(self._queue, memory, np.uint8(0), 0, nbytes)

    def read(self, memory: Memory, offset: int, target: memoryview) -> None:
        """A blocking copy to the host."""
        with self._errors():
            cl.enqueue_copy(self._queue, target, memory, src_offset=offset, is_blocking=True)

    def write(self, memory: Memory, offset: int, source: memoryview) -> None:
        """A blocking copy from the host."""
        with self._errors():
            cl.enqueue_copy(self._queue, memory, source, dst_offset=offset, is_blocking=True)

    def copy(self, source: Memory, target: Memory, nbytes: int) -> None:
        """Queue a copy."""
        if nbytes:
            with self._errors():
                cl.enqueue_copy(self._queue, target, source, byte_count=nbytes)

    def bind(
        self,
        kernel: str,
        program: Program,
        groups: tuple[int, int],
        items: int,
        arguments: Sequence[Argument],
    ) -> BoundLaunch:
        """A kernel object of its own, so that its arguments stay set."""
        with self._errors():
            made = cl.Kernel(program, kernel)
            for index, argument in enumerate(arguments):
                made.set_arg(index, argument)
            return made, (groups[0] * items, groups[1]), (items, 1)

    def launch(self, launches: Sequence[BoundLaunch]) -> None:
        """Queue all, and have the device begin."""
        queue, enqueue = self._queue, cl.enqueue_nd_range_kernel
        with self._errors():
            for kernel, total, group in launches:
                enqueue(queue, kernel, total, group)
            queue.flush()

    def synchronise(self) -> None:
        """Wait for the queue."""
        with self._errors():
            self._queue.finish()

    def close(self) -> None:
        """Finish what is queued; context and queue go when nobody holds them."""
        with self._errors():
            self._queue.finish()

    @contextmanager
    def _errors(self, requested: int = 0) -> Iterator[None]:
        try:
            yield
        except cl.Error as error:
            raise self._typed(error, requested) from error

    def _typed(self, error: Any, requested: int) -> HotplugError:
        code = getattr(error, "code", 0)
        if isinstance(error, cl.MemoryError) or code == _INVALID_BUFFER_SIZE:
            return OutOfDeviceMemoryError(
                f"{self._id} has no room for {requested} bytes"
                if requested
                else f"{self._id} ran out of memory",
                device=self._id,
                requested=requested,
            )
        if code in _LOST:
            return DeviceLostError(f"{self._id} is gone: {error}", device=self._id)
        return ExecutionError(f"{self._id} failed: {error}", device=self._id)


_INVALID_BUFFER_SIZE = -61  # more than the device gives in one piece
_LOST = frozenset({-2, -34, -36})  # device not available, invalid context, invalid queue


def _capabilities(found: Found) -> Capabilities:
    device = found.device
    return Capabilities(
        dialect="opencl",
        identity=f"{found.platform};{device.name};{device.version};{device.driver_version}",
        is_cpu=bool(device.type & cl.device_type.CPU),
        f64=bool(device.double_fp_config),
        alignment=max(64, device.mem_base_addr_align // 8),
        max_items=int(device.max_work_group_size),
        local_bytes=int(device.local_mem_size),
        max_buffer=int(device.max_mem_alloc_size),
    )


def _first_error(log: str) -> str:
    """The first line of a compiler's log that names an error."""
    lines = [line.strip() for line in log.splitlines() if "error" in line.lower()]
    return next(iter(lines), log.strip().partition("\n")[0])
