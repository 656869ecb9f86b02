"""The shared engine's driver over CUDA: one stream, pinned staging, captured graphs."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from hotplug.backend import DeviceInfo, MemoryInfo
from hotplug.errors import (
    DeviceLostError,
    DeviceUnavailableError,
    ExecutionError,
    HotplugError,
    OutOfDeviceMemoryError,
)
from hotplug.gpu.driver import Argument, BoundLaunch, Capabilities, Driver, Gemm, Memory
from hotplug.gpu.staging import Staging
from hotplug.settings import settings
from hotplug_cuda import nvrtc
from hotplug_cuda.discovery import Found
from hotplug_cuda.launches import Captured, KernelLaunch, ProductLaunch, Program
from hotplug_cuda.nvrtc import Compiler
from hotplug_cuda.peers import Peers
from hotplug_cuda.runtime import OUT_OF_MEMORY, STICKY, Blas, Direction, Graph, Runtime

__all__ = ["CUDADriver"]

_log = logging.getLogger(__name__)

_MOST_GROUPS_Y = 65535
_OPTIONS = ("--disable-warnings",)


class _Block:
    """Device memory, given back when nobody holds it any more."""

    __slots__ = ("_driver", "address")

    def __init__(self, driver: CUDADriver, address: int) -> None:
        self._driver = driver
        self.address = address

    def release(self) -> None:
        address, self.address = self.address, 0
        if address:
            self._driver.release(address)

    def __del__(self) -> None:
        if sys.is_finalizing():  # the end of the process frees all
            return
        with contextlib.suppress(HotplugError):  # a device that is gone has taken it along
            self.release()


class Link:
    """Staging's copies: queued on one stream, each event used again and again."""

    def __init__(self, runtime: Runtime, stream: Any) -> None:
        self._runtime = runtime
        self._stream = stream

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        """Where a system pins no more, memory as it is: CUDA then copies it once more itself."""
        try:
            return self._runtime.pinned(nbytes)
        except self._runtime.errors as error:
            _log.warning("copies are slow, since the host gives no pinned memory: %s", error)
            return np.empty(nbytes, np.uint8)

    def send(self, piece: NDArray[np.uint8], memory: Memory, offset: int, event: Any) -> Any:
        """Queue a copy to the device."""
        return self._copy(
            memory.address + offset, piece.ctypes.data, piece.size, Direction.TO_DEVICE, event
        )

    def fetch(self, memory: Memory, offset: int, piece: NDArray[np.uint8], event: Any) -> Any:
        """Queue a copy to the host."""
        return self._copy(
            piece.ctypes.data, memory.address + offset, piece.size, Direction.TO_HOST, event
        )

    def _copy(self, target: int, source: int, nbytes: int, direction: Direction, event: Any) -> Any:
        event = event or self._runtime.event()
        self._runtime.copy(target, source, nbytes, direction, self._stream)
        event.record(self._stream)
        return event

    def wait(self, event: Any) -> None:
        """Return when a copy is done."""
        event.synchronize()


class CUDADriver(Driver):
    """One stream on a device.

    Args:
        info: what `probe` told of the device.
        runtime: its calls.
        compiler: NVRTC.
        target: what to compile for, such as "sm_90".
    """

    def __init__(self, info: DeviceInfo, runtime: Runtime, compiler: Compiler, target: str) -> None:
        """Create the stream.

        Raises:
            DeviceUnavailableError: CUDA refuses.
        """
        self.id = info.id
        self.index = info.index
        self._runtime = runtime
        self._compiler = compiler
        self._target = target
        self._process = os.getpid()
        self._lost = ""
        self._capturing = threading.Lock()
        self._blas: tuple[Blas, Blas] | None = None
        self._peers = Peers(self)
        self._preparing = threading.Lock()
        try:
            with runtime.current():
                self.stream = runtime.stream()
                # What other threads queue meanwhile must not get into a graph.
                self._capture_stream = runtime.stream()
                total = runtime.memory()[1]
        except runtime.errors as error:
            raise DeviceUnavailableError(
                f"{self.id} gives no stream: {error}", device=self.id
            ) from error
        self._staging = Staging(Link(runtime, self.stream))
        self.capabilities = Capabilities(
            dialect="cuda",
            identity=f"{target};{info.driver};nvrtc {compiler.version};{runtime.version}",
            is_cpu=False,
            f64=True,
            alignment=256,
            max_items=1024,
            local_bytes=48 << 10,
            max_buffer=total,
            int8=True,
            products=runtime.products if settings().cuda_cublas else frozenset(),
            simulated=runtime.simulated,
        )

    @classmethod
    def open(cls, found: Found) -> CUDADriver:
        """Open a device.

        Raises:
            DeviceUnavailableError: CUDA refuses.
        """
        compiler = nvrtc.open_compiler(found.majors)
        try:
            runtime = found.runtime()
        except RuntimeError as error:  # as CuPy's errors are
            raise DeviceUnavailableError(
                f"{found.info.id} gives no context: {error}", device=found.info.id
            ) from error
        return cls(found.info, runtime, compiler, found.target(compiler))

    def memory(self) -> MemoryInfo:
        """What is free now."""
        with self._entered():
            free, total = self._runtime.memory()
            return MemoryInfo(total, free)

    def compile(self, kernel: str, source: str) -> Program:
        """Compile by NVRTC, which needs no device."""
        image = self._compiler.compile(kernel, source, self._target, _OPTIONS).image
        with self._entered():
            return Program(image, self._runtime.function(image, kernel))

    def binary(self, program: Program) -> bytes:
        """A cubin; PTX for a device that this NVRTC does not know yet."""
        image: bytes = program.image
        return image

    def load(self, kernel: str, binary: bytes) -> Program | None:
        """A program from its image; None if the device does not take it."""
        try:
            with self._entered():
                return Program(binary, self._runtime.function(binary, kernel))
        except ExecutionError:
            return None

    def allocate(self, nbytes: int) -> Memory:
        """Memory in the stream's order."""
        with self._entered(nbytes):
            return _Block(self, self._runtime.allocate(nbytes, self.stream))

    def free(self, memory: Memory) -> None:
        """Give it back after what is queued; what a lost device had is gone already."""
        with contextlib.suppress(DeviceLostError):
            memory.release()

    def release(self, address: int) -> None:
        """Give an allocation back."""
        with self._entered():
            self._runtime.free(address, self.stream)

    def zero(self, memory: Memory, nbytes: int) -> None:
        """Queue a fill."""
        with self._entered():
            self._runtime.fill(memory.address, 0, nbytes, self.stream)

    def read(self, memory: Memory, offset: int, target: memoryview) -> None:
        """Copy through pinned memory."""
        with self._entered():
            self._staging.read(memory, offset, target)

    def write(self, memory: Memory, offset: int, source: memoryview) -> None:
        """Copy to pinned memory, from where the device fetches it."""
        with self._entered():
            self._staging.write(memory, offset, source)

    def copy(self, source: Memory, target: Memory, nbytes: int) -> None:
        """Queue a copy."""
        if nbytes:
            with self._entered():
                self._runtime.copy(
                    target.address, source.address, nbytes, Direction.ON_DEVICE, self.stream
                )

    def reaches(self, origin: Driver) -> bool:
        """Whether another CUDA device's memory can be read from here, and comes as it is."""
        return isinstance(origin, CUDADriver) and self._peers.are_direct(origin)

    def copy_peer(self, origin: Driver, source: Memory, target: Memory, nbytes: int) -> bool:
        """Queue a copy from another CUDA device; each stream waits for the other by an event."""
        if not isinstance(origin, CUDADriver) or not self._peers.receive_from(origin):
            return False
        self.queue_peer_copy(origin, source, target, nbytes)
        return True

    def queue_peer_copy(
        self, origin: CUDADriver, source: Memory, target: Memory, nbytes: int
    ) -> None:
        """Queue a copy, whether or not it is known that copies arrive."""
        made = origin.mark()
        with self._entered():
            self.stream.wait_event(made)
            self._runtime.copy_peer(
                target.address, source.address, origin.index, nbytes, self.stream
            )
        origin.wait_for(self.mark())

    def reach(self, origin: CUDADriver) -> bool:
        """Have copies from another device go without the host; False if the two can't do that."""
        with self._entered():
            return self._runtime.reach(origin.index)

    def mark(self) -> Any:
        """An event at the present end of the stream."""
        with self._entered():
            event = self._runtime.event()
            event.record(self.stream)
            return event

    def wait_for(self, event: Any) -> None:
        """Have what is queued from now on wait for an event of any device."""
        with self._entered():
            self.stream.wait_event(event)

    def bind(
        self,
        kernel: str,
        program: Program,
        groups: tuple[int, int],
        items: int,
        arguments: Sequence[Argument],
    ) -> BoundLaunch:
        """A launch with its arguments in memory of its own."""
        if groups[1] > _MOST_GROUPS_Y:
            raise ExecutionError(
                f"{kernel} needs {groups[1]} groups along y; CUDA has {_MOST_GROUPS_Y}",
                device=self.id,
            )
        return KernelLaunch(program, groups, items, arguments)

    def launch(self, launches: Sequence[BoundLaunch]) -> None:
        """Queue all."""
        runtime, stream = self._runtime, self.stream
        with self._entered():
            for launch in launches:
                launch.queue(runtime, stream)

    def gemm(self, product: Gemm, a: Memory, b: Memory, y: Memory) -> BoundLaunch:
        """Products by cuBLAS, which is brought up at the first."""
        with self._preparing:
            if self._blas is None:
                # One on each stream: to give one another stream takes its memory away.
                with self._entered():
                    self._blas = (
                        self._runtime.blas(self.stream),
                        self._runtime.blas(self._capture_stream),
                    )
        return ProductLaunch(product, a, b, y, self._blas_on)

    def _blas_on(self, stream: Any) -> Blas:
        assert self._blas is not None, "products are bound before they are queued"
        return self._blas[stream is self._capture_stream]

    def timed(self, launches: Sequence[BoundLaunch]) -> list[float]:
        """Times between events beside the launches."""
        runtime, stream = self._runtime, self.stream
        with self._entered():
            events = [runtime.event(timed=True) for _ in range(len(launches) + 1)]
            events[0].record(stream)
            for launch, event in zip(launches, events[1:], strict=True):
                launch.queue(runtime, stream)
                event.record(stream)
            stream.synchronize()
            return [runtime.elapsed(*pair) for pair in itertools.pairwise(events)]

    def capture(self, launches: Sequence[BoundLaunch]) -> Sequence[BoundLaunch]:
        """The launches as a graph, which the host queues by one call; as they are if CUDA refuses.

        Raises:
            DeviceLostError: the device is gone.
        """
        try:
            with self._capturing, self._entered():
                return (Captured(self._captured(launches), launches),)
        except (ExecutionError, OutOfDeviceMemoryError) as error:
            _log.warning(
                "%d launches stay single, since they make no graph: %s", len(launches), error
            )
            return launches

    def _captured(self, launches: Sequence[BoundLaunch]) -> Graph:
        self._capture_stream.begin_capture()
        try:
            for launch in launches:
                launch.queue(self._runtime, self._capture_stream)
        finally:
            graph = self._capture_stream.end_capture()
        return graph

    def synchronise(self) -> None:
        """Wait for the stream."""
        with self._entered():
            self.stream.synchronize()

    def close(self) -> None:
        """Finish what is queued; stream and memory go when nobody holds them."""
        with contextlib.suppress(DeviceLostError):
            self.synchronise()

    @contextmanager
    def _entered(self, requested: int = 0) -> Iterator[None]:
        """Calls of the runtime; what they raise becomes typed, and the end of a device is kept."""
        if os.getpid() != self._process:
            raise ExecutionError(
                f"{self.id} was opened before this process was forked off; CUDA does not reach it",
                device=self.id,
                remedy="start processes by 'spawn', or open devices in the child alone",
            )
        if self._lost:
            raise DeviceLostError(self._lost, device=self.id)
        try:
            with self._runtime.current():
                yield
        except self._runtime.errors as error:
            self._raise(error, requested)

    def _raise(self, error: Exception, requested: int) -> NoReturn:
        status = getattr(error, "status", None)
        if status in STICKY:
            self._lost = f"{self.id} is gone: {error}"
            raise DeviceLostError(self._lost, device=self.id) from error
        if status == OUT_OF_MEMORY:
            raise self._no_room(requested) from error
        raise ExecutionError(f"{self.id} failed: {error}", device=self.id) from error

    def _no_room(self, requested: int) -> OutOfDeviceMemoryError:
        free = self.memory().free
        return OutOfDeviceMemoryError(
            f"{self.id} has no room for {requested} bytes, {free} are free"
            if requested
            else f"{self.id} ran out of memory",
            device=self.id,
            requested=requested,
            free=free,
        )
