"""The shared engine's driver over PyOpenCL."""

from __future__ import annotations

import contextlib
import os
import re
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
from hotplug.gpu.sources import quote
from hotplug.gpu.staging import Staging
from hotplug_opencl.discovery import Found
from hotplug_opencl.pinned import Link

__all__ = ["OpenCLDriver"]


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
        # Clang under PoCL counts its warnings on standard error, whoever's that is.
        self._options = [_standard(found.device), "-w"]
        self._lost_codes = _LOST.union(*(quirk.lost for quirk in found.quirks))
        self._lost = ""
        self._process = os.getpid()
        try:
            self._context = cl.Context([self._device])
            self._queue = cl.CommandQueue(self._context)
        except cl.Error as error:
            raise DeviceUnavailableError(
                f"{self._id} gives no context: {error}", device=self._id
            ) from error
        self.capabilities = _capabilities(found)
        link = Link(self._context, self._queue)
        self._staging = None if self.capabilities.is_cpu else Staging(link)

    def compile(self, kernel: str, source: str) -> Program:
        """Build a program; what the compiler remarks on one that it takes is not passed on."""
        program = cl.Program(self._context, source)
        with self._compiling(kernel, source):
            program.build(options=self._options, cache_dir=False)
        too_large = self._too_large(program, kernel)
        if too_large:
            raise self._refusal(kernel, source, too_large)
        return program

    def link(self, kernel: str, sources: Sequence[str]) -> Program:
        """Compile each text, and link what comes of them."""
        compiled = [cl.Program(self._context, source) for source in sources]
        for program, source in zip(compiled, sources, strict=True):
            with self._compiling(kernel, source, program):
                program.compile(options=self._options)
        with self._compiling(kernel, sources[-1]):
            return cl.link_program(self._context, compiled)

    @contextmanager
    def _compiling(
        self, kernel: str, source: str, program: cl.Program | None = None
    ) -> Iterator[None]:
        """Errors as hotplug names them; a program's log is asked for where PyOpenCL does not."""
        self._check()
        try:
            with _building, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except cl.Error as error:
            if getattr(error, "code", 0) not in _REFUSED:
                raise self._typed(error, 0) from error
            log = _log_of(error)
            if program is not None:
                log = program.get_build_info(self._device, cl.program_build_info.LOG).strip()
            raise self._refusal(kernel, source, _first_error(source, log), log) from error

    def _refusal(
        self, kernel: str, source: str, why: str, log: str | None = None
    ) -> KernelCompileError:
        text = f"the compiler of {self._id} refused kernel {kernel}: {why}"
        return KernelCompileError(text, kernel=kernel, source=source, log=log)

    def _too_large(self, program: Program, name: str) -> str:
        """Why the device cannot run a kernel that its compiler took; empty if it can."""
        facts = cl.kernel_work_group_info
        with self._errors():
            kernel = cl.Kernel(program, name)
            items = kernel.get_work_group_info(facts.COMPILE_WORK_GROUP_SIZE, self._device)[0]
            most = kernel.get_work_group_info(facts.WORK_GROUP_SIZE, self._device)
            local = kernel.get_work_group_info(facts.LOCAL_MEM_SIZE, self._device)
        if items > most:
            return f"it needs {items} work-items in a group, of which the device runs {most}"
        if local > self.capabilities.local_bytes:
            there = self.capabilities.local_bytes
            return f"it needs {local} bytes of local memory, of which the device has {there}"
        return ""

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

    def wrap(self, data: memoryview) -> Memory | None:
        """A buffer object over it; a processor has no other memory than the host."""
        address = np.frombuffer(data, np.uint8).ctypes.data
        if not self.capabilities.is_cpu or address % _WIDEST_LOAD:
            return None
        flags = cl.mem_flags.READ_ONLY | cl.mem_flags.USE_HOST_PTR
        with self._errors(data.nbytes):
            return cl.Buffer(self._context, flags, hostbuf=data)

    def free(self, memory: Memory) -> None:
        """Release it; the driver keeps it until queued work is done."""
        with contextlib.suppress(DeviceLostError), self._errors():
            memory.release()

    def zero(self, memory: Memory, nbytes: int) -> None:
        """Queue a fill."""
        with self._errors(nbytes):
            cl.enqueue_fill_buffer(self._queue, memory, np.uint8(0), 0, nbytes)

    def read(self, memory: Memory, offset: int, target: memoryview) -> None:
        """Copy through pinned memory; a processor has no other memory than the host."""
        with self._errors():
            if self._staging is not None:
                self._staging.read(memory, offset, target)
                return
            cl.enqueue_copy(self._queue, target, memory, src_offset=offset, is_blocking=True)

    def write(self, memory: Memory, offset: int, source: memoryview) -> None:
        """Copy to pinned memory, from where the device fetches it."""
        with self._errors():
            if self._staging is not None:
                self._staging.write(memory, offset, source)
                return
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

    def timed(self, launches: Sequence[BoundLaunch]) -> list[float]:
        """Times as the driver's profiling events tell them, on a queue of its own."""
        with self._errors():
            self._queue.finish()
            timing = cl.command_queue_properties.PROFILING_ENABLE
            queue = cl.CommandQueue(self._context, properties=timing)
            enqueue = cl.enqueue_nd_range_kernel
            events = [enqueue(queue, kernel, total, group) for kernel, total, group in launches]
            queue.finish()
            return [1e-9 * (event.profile.end - event.profile.start) for event in events]

    def synchronise(self) -> None:
        """Wait for the queue."""
        with self._errors():
            self._queue.finish()

    def close(self) -> None:
        """Finish what is queued; context and queue go when nobody holds them."""
        with contextlib.suppress(DeviceLostError), self._errors():
            self._queue.finish()

    @contextmanager
    def _errors(self, requested: int = 0) -> Iterator[None]:
        self._check()
        try:
            yield
        except (cl.Error, MemoryError) as error:
            raise self._typed(error, requested) from error

    def _check(self) -> None:
        """Raise where nothing can be asked of the device any more, or would never be done."""
        if os.getpid() != self._process:
            raise ExecutionError(
                f"{self._id} was opened before this process was forked off; its driver's threads "
                "are not here",
                device=self._id,
                remedy="start processes by 'spawn', or open devices in the child alone",
            )
        if self._lost:
            raise DeviceLostError(self._lost, device=self._id)

    def _typed(self, error: Exception, requested: int) -> HotplugError:
        """An error as hotplug names it.

        Resources that lack while memory is asked for are memory. At other times it may also be
        that a kernel has brought the device down, which only using it shows.
        """
        code = getattr(error, "code", _OUT_OF_HOST_MEMORY)
        lost = code in self._lost_codes and not (code == _OUT_OF_RESOURCES and requested)
        if lost or (code == _OUT_OF_RESOURCES and not requested and not self._works()):
            self._lost = f"{self._id} is gone: {error}"
            return DeviceLostError(self._lost, device=self._id)
        if code in _NO_ROOM:
            what = f"has no room for {requested} bytes" if requested else "ran out of memory"
            return OutOfDeviceMemoryError(
                f"{self._id} {what}: {error}", device=self._id, requested=requested
            )
        return ExecutionError(f"{self._id} failed: {error}", device=self._id)

    def _works(self) -> bool:
        """Whether the device still does the least thing that can be asked of it."""
        try:
            probe = cl.Buffer(self._context, cl.mem_flags.READ_WRITE, _PROBE_BYTES)
            cl.enqueue_fill_buffer(self._queue, probe, np.uint8(0), 0, _PROBE_BYTES)
            self._queue.finish()
        except (cl.Error, MemoryError):
            return False
        return True


_PROBE_BYTES = 64
_WIDEST_LOAD = 16  # bytes that a kernel loads at once, at a multiple of as many
_OUT_OF_RESOURCES = -5
_OUT_OF_HOST_MEMORY = -6
# An allocation failed; resources or host memory ran out; a buffer is larger than the device gives.
_NO_ROOM = frozenset({-4, _OUT_OF_RESOURCES, _OUT_OF_HOST_MEMORY, -61})
_LOST = frozenset({-2, -34, -36})  # device not available, invalid context, invalid queue
_REFUSED = frozenset({-11, -15, -17})  # building, compiling or linking failed


_DOT_PRODUCTS = "-cl-std=CL3.0"


def _standard(device: Any) -> str:
    """The option for OpenCL C 1.2; or for 3.0, by which alone dot products of bytes are there."""
    dot_products = "cl_khr_integer_dot_product" in device.extensions.split()
    newer = re.search(r"OpenCL C [3-9]\.", device.opencl_c_version) is not None
    return _DOT_PRODUCTS if dot_products and newer else "-cl-std=CL1.2"


def _capabilities(found: Found) -> Capabilities:
    device = found.device
    parts = (found.platform, device.name, device.version, device.driver_version)
    is_cpu = bool(device.type & cl.device_type.CPU)
    return Capabilities(
        dialect="opencl",
        identity=";".join((*parts, _standard(device))),
        is_cpu=is_cpu,
        f64=bool(device.double_fp_config),
        alignment=max(64, device.mem_base_addr_align // 8),
        max_items=int(device.max_work_group_size),
        local_bytes=int(device.local_mem_size),
        max_buffer=int(device.max_mem_alloc_size),
        threads=int(device.max_compute_units) if is_cpu and device.linker_available else 0,
        int8=not is_cpu and _standard(device) == _DOT_PRODUCTS,
    )


def _log_of(error: Any) -> str:
    """What the compiler said, without what PyOpenCL puts around it."""
    _, _, log = str(error).partition("\n\nBuild on ")
    text = log.partition("\n")[2] if log else str(error)
    return re.sub(r"\n\(options: .*\)(\n\(source saved as .*\))?\s*$", "", text).strip()


# "3:48: ", `line 3: `, or where a macro was written in PoCL's "3:48 <Spelling=...>: ".
_POSITION = re.compile(r"(?:(\d+):\d+(?: <Spelling=.*?\d>)?|line (\d+)):\s+")


def _first_error(source: str, log: str) -> str:
    """The first error in a compiler's log, with the line of the source if it names one."""
    complaints = [line.strip() for line in log.splitlines() if "error" in line.lower()]
    if not complaints:
        return log.strip().partition("\n")[0]
    placed = next((line for line in complaints if _POSITION.search(line)), complaints[0])
    position = _POSITION.search(placed)
    if position is None:
        return placed
    what = placed[position.end() :].removeprefix("error: ")
    return f"error in {quote(source, int(position[1] or position[2]))}: {what}"
