"""The seam over a PTX interpreter: devices for tests, on machines that have no GPU.

Streams do nothing until somebody waits, as late as CUDA may: who reads too early, changes what a
copy has still to read or frees what a kernel has still to use sees it. Streams wait for each other
by events alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hotplug.testing.ptx import KernelFault, Machine, MemoryFault, Module, PTXError
from hotplug_cuda.runtime import OUT_OF_MEMORY, Direction
from hotplug_cuda.simulated_blas import SimulatedBlas, SimulatedBlasError

__all__ = [
    "MEMORY", "SimulatedDevice", "SimulatedError", "SimulatedEvent", "SimulatedGraph",
    "SimulatedRuntime", "SimulatedStream", "device_at",
]  # fmt: skip

MEMORY = 1 << 30
"""Bytes of a simulated device."""

_INVALID_IMAGE = 218
_ILLEGAL_ADDRESS = 700
_LAUNCH_FAILURE = 719
_CAPTURE_UNSUPPORTED = 900

_GARBAGE = 0xFF  # floats of such bytes are NaN, and integers -1

Work: TypeAlias = Callable[[], None]

# One thread does work at a time, whichever stream it is of: streams of two devices may wait for
# each other, which would be two locks taken in two orders.
_interpreting = threading.RLock()


class SimulatedError(RuntimeError):
    """What CUDA would report.

    Attributes:
        status: cudaError_t.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class SimulatedDevice:
    """A machine, and whether a kernel has broken it."""

    def __init__(self, memory: int) -> None:
        self.machine = Machine(total_bytes=memory)
        self.memory = memory
        self.error: SimulatedError | None = None

    def check(self) -> None:
        """Any call reports what a kernel did before."""
        if self.error is not None:
            raise SimulatedError(self.error.status, str(self.error)) from self.error

    def run(self, name: str, work: Work) -> None:
        """Do a kernel's work, which may break the device."""
        try:
            work()
        except KernelFault as fault:
            status = _ILLEGAL_ADDRESS if isinstance(fault, MemoryFault) else _LAUNCH_FAILURE
            self.error = SimulatedError(status, f"{name}: {fault}")
            raise self.error from fault


class SimulatedStream:
    """Work in order, done when somebody waits for it."""

    def __init__(self, device: SimulatedDevice) -> None:
        self._device = device
        self._work: deque[Work] = deque()
        self._captured: list[Work] | None = None

    def queue(self, work: Work) -> None:
        """Add work, to the graph if one is being captured."""
        self._device.check()
        if self._captured is not None:
            self._captured.append(work)
        else:
            self._work.append(work)

    def queue_outside_graphs(self, work: Work) -> None:
        """Add work that this simulation has in no graph."""
        self._refuse_in_capture()
        self.queue(work)

    def synchronize(self) -> None:
        """Do all work."""
        self._refuse_in_capture()
        self.run_until(lambda: False)

    def run_until(self, done: Callable[[], bool]) -> None:
        """Do work in order as long as there is some and something is not done."""
        with _interpreting:
            while self._work and not done():
                self._work.popleft()()
        self._device.check()

    def wait_event(self, event: SimulatedEvent) -> None:
        """Have later work wait."""
        mark = event.mark
        if mark is not None:
            self.queue_outside_graphs(mark.wait)

    def begin_capture(self) -> None:
        """Collect work."""
        self._refuse_in_capture()
        self._captured = []

    def end_capture(self) -> SimulatedGraph:
        """The work collected."""
        captured, self._captured = self._captured, None
        if captured is None:
            raise SimulatedError(_CAPTURE_UNSUPPORTED, "the stream captures nothing")
        return SimulatedGraph(captured)

    def _refuse_in_capture(self) -> None:
        if self._captured is not None:
            raise SimulatedError(_CAPTURE_UNSUPPORTED, "a stream that is captured does no work")


@dataclass
class _Mark:
    """One recording of an event."""

    stream: SimulatedStream
    reached: bool = False
    at: float = 0.0

    def reach(self) -> None:
        self.reached, self.at = True, time.perf_counter()

    def wait(self) -> None:
        self.stream.run_until(lambda: self.reached)


class SimulatedEvent:
    """A point in a stream; recorded anew, it is another point."""

    def __init__(self) -> None:
        self.mark: _Mark | None = None

    def record(self, stream: SimulatedStream) -> None:
        """The present end of a stream."""
        self.mark = _Mark(stream)
        stream.queue_outside_graphs(self.mark.reach)

    def synchronize(self) -> None:
        """Do the stream's work up to the point."""
        if self.mark is not None:
            self.mark.wait()


class SimulatedGraph:
    """Captured work."""

    def __init__(self, work: list[Work]) -> None:
        self._work = work

    def launch(self, stream: SimulatedStream) -> None:
        """Queue it once more."""
        for work in self._work:
            stream.queue(work)


@dataclass(frozen=True, slots=True)
class _Kernel:
    """A kernel of a loaded module."""

    module: Module
    name: str


@functools.lru_cache(maxsize=512)
def _parsed(image: bytes) -> Module:
    """A module; all devices of a process share one that is loaded again."""
    return Module.parse(image.decode())


_devices: dict[int, SimulatedDevice] = {}
_creating = threading.Lock()


def device_at(index: int) -> SimulatedDevice:
    """A device of this process; a broken one is replaced when it is opened again."""
    with _creating:
        if index not in _devices or _devices[index].error is not None:
            _devices[index] = SimulatedDevice(MEMORY)
        return _devices[index]


class SimulatedRuntime:
    """One device's calls."""

    errors: tuple[type[Exception], ...] = (SimulatedError, SimulatedBlasError)
    version = "PTX interpreter"
    products = frozenset({"f32", "f16", "bf16"})
    simulated = True

    def __init__(self, index: int) -> None:
        self._device = device_at(index)

    def current(self) -> AbstractContextManager[Any]:
        """Nothing: a simulated device is no thread's."""
        return contextlib.nullcontext()

    def memory(self) -> tuple[int, int]:
        """Bytes free, and in all."""
        self._device.check()
        return self._device.machine.free_bytes, self._device.memory

    def allocate(self, nbytes: int, stream: SimulatedStream) -> int:
        """Memory that is there at once, and full of what is no number."""
        del stream
        self._device.check()
        machine = self._device.machine
        with _interpreting:
            if nbytes > machine.free_bytes:
                raise SimulatedError(OUT_OF_MEMORY, "out of memory")
            address = machine.allocate(nbytes)
            machine.fill(address, _GARBAGE, nbytes)
            return address

    def free(self, address: int, stream: SimulatedStream) -> None:
        """Queue the end of an allocation."""
        stream.queue_outside_graphs(lambda: self._device.machine.free(address))

    def pinned(self, nbytes: int) -> NDArray[Any]:
        """Host memory like any other."""
        return np.zeros(nbytes, np.uint8)

    def copy(
        self, target: int, source: int, nbytes: int, direction: Direction, stream: SimulatedStream
    ) -> None:
        """Queue a copy."""
        machine = self._device.machine
        copies: dict[Direction, Work] = {
            Direction.TO_DEVICE: lambda: machine.write(target, ctypes.string_at(source, nbytes)),
            Direction.TO_HOST: lambda: _to_host(target, machine.read(source, nbytes)),
            Direction.ON_DEVICE: lambda: machine.copy(source, target, nbytes),
        }
        stream.queue(copies[direction])

    def copy_peer(
        self, target: int, source: int, source_device: int, nbytes: int, stream: SimulatedStream
    ) -> None:
        """Queue a copy from another machine."""
        machine, origin = self._device.machine, device_at(source_device).machine
        stream.queue(lambda: machine.write(target, origin.read(source, nbytes)))

    def reach(self, device: int) -> bool:
        """All of them reach each other."""
        return device in _devices

    def blas(self, stream: SimulatedStream) -> SimulatedBlas:
        """NumPy's products."""
        device = self._device
        return SimulatedBlas(
            device.machine, lambda work: stream.queue(lambda: device.run("cuBLAS", work))
        )

    def fill(self, target: int, byte: int, nbytes: int, stream: SimulatedStream) -> None:
        """Queue a fill."""
        stream.queue(lambda: self._device.machine.fill(target, byte, nbytes))

    def function(self, image: bytes, name: str) -> _Kernel:
        """Parse PTX; there is no other image here."""
        self._device.check()
        try:
            module = _parsed(image)
        except (PTXError, UnicodeDecodeError) as error:
            raise SimulatedError(_INVALID_IMAGE, f"no PTX that is known: {error}") from error
        if name not in module.kernels:
            raise SimulatedError(_INVALID_IMAGE, f"the program has no kernel {name}")
        return _Kernel(module, name)

    def launch(
        self,
        function: _Kernel,
        grid: tuple[int, int],
        block: int,
        parameters: int,
        stream: SimulatedStream,
    ) -> None:
        """Read the arguments, as CUDA does, and queue the kernel."""
        sizes = [size for size, _ in function.module.parameters(function.name)]
        pointers = ctypes.cast(parameters, ctypes.POINTER(ctypes.c_void_p))
        arguments = [
            ctypes.string_at(pointers[index] or 0, size) for index, size in enumerate(sizes)
        ]
        machine = self._device.machine

        def interpret() -> None:
            machine.launch(function.module, function.name, (*grid, 1), (block, 1, 1), arguments)

        stream.queue(lambda: self._device.run(function.name, interpret))

    def stream(self) -> SimulatedStream:
        """A new stream."""
        self._device.check()
        return SimulatedStream(self._device)

    def event(self, *, timed: bool = False) -> SimulatedEvent:
        """A new event; all note the time."""
        del timed
        self._device.check()
        return SimulatedEvent()

    def elapsed(self, start: SimulatedEvent, end: SimulatedEvent) -> float:
        """By the host's clock."""
        assert start.mark is not None
        assert end.mark is not None
        return end.mark.at - start.mark.at


def _to_host(address: int, data: bytes) -> None:
    ctypes.memmove(address, data, len(data))
