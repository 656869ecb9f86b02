"""Device memory as the contract's buffers."""

from __future__ import annotations

from hotplug.backend import Buffer, BufferType
from hotplug.errors import OutOfDeviceMemoryError, UsageError
from hotplug.gpu.driver import Driver, Memory

__all__ = ["GPUBuffer", "GPUBufferType"]


class GPUBufferType(BufferType):
    """Memory of one device, which the host reaches by copies."""

    def __init__(self, driver: Driver, device: str) -> None:
        self.driver = driver
        self.device = device
        self.alignment = driver.capabilities.alignment
        self.max_bytes = driver.capabilities.max_buffer

    def allocate(self, nbytes: int) -> GPUBuffer:
        """New memory, zero.

        Raises:
            UsageError: nbytes is negative.
            OutOfDeviceMemoryError: there is not enough, or no single buffer may be so large.
        """
        buffer = self.reserve(nbytes)
        if nbytes:
            self.driver.zero(buffer.memory, nbytes)
        return buffer

    def reserve(self, nbytes: int) -> GPUBuffer:
        """New memory whose contents do not matter.

        Raises:
            UsageError: nbytes is negative.
            OutOfDeviceMemoryError: as for `allocate`.
        """
        if nbytes < 0:
            raise UsageError(f"cannot allocate {nbytes} bytes")
        if self.max_bytes is not None and nbytes > self.max_bytes:
            raise OutOfDeviceMemoryError(
                f"{self.device} gives at most {self.max_bytes} bytes in one piece, asked {nbytes}",
                device=self.device,
                requested=nbytes,
            )
        return GPUBuffer(self.driver, self.driver.allocate(max(1, nbytes)), nbytes)

    def wrap(self, data: memoryview) -> GPUBuffer | None:
        """Host memory that nobody writes, where the device reads it as fast as its own."""
        fits = self.max_bytes is None or data.nbytes <= self.max_bytes
        if not data.readonly or not data.nbytes or not fits:
            return None
        memory = self.driver.wrap(data)
        return None if memory is None else GPUBuffer(self.driver, memory, data.nbytes, data)


class GPUBuffer(Buffer):
    """A block of device memory.

    Attributes:
        alive: False once it has been freed.
    """

    def __init__(
        self, driver: Driver, memory: Memory, nbytes: int, wrapped: memoryview | None = None
    ) -> None:
        self.nbytes = nbytes
        self.alive = True
        self._wrapped = wrapped  # kept alive
        self._driver = driver
        self._memory: Memory | None = memory

    @property
    def memory(self) -> Memory:
        """The driver's handle.

        Raises:
            UsageError: the buffer has been freed.
        """
        if self._memory is None:
            raise UsageError("the buffer has been freed")
        return self._memory

    def belongs_to(self, driver: Driver) -> bool:
        """Whether kernels of that driver may use it."""
        return self._driver is driver

    def read(self, offset: int, target: memoryview) -> None:
        """Fill host memory from the bytes at `offset`, after all work queued before."""
        target = target.cast("B") if target.nbytes else memoryview(b"")
        self._check(offset, target.nbytes)
        if target.nbytes:
            self._driver.read(self.memory, offset, target)

    def write(self, offset: int, source: memoryview) -> None:
        """Put host bytes at `offset`; the source may be changed when this returns."""
        source = source.cast("B") if source.nbytes else memoryview(b"")
        self._check(offset, source.nbytes)
        if self._wrapped is not None:
            raise UsageError("the buffer is memory of the host's that may only be read")
        if source.nbytes:
            self._driver.write(self.memory, offset, source)

    def copy_from(self, source: Buffer) -> None:
        """Copy all bytes of an equally large buffer, by the devices alone where they can."""
        if not isinstance(source, GPUBuffer) or not self._queue_copy(source):
            super().copy_from(source)

    def _queue_copy(self, source: GPUBuffer) -> bool:
        self._check(0, source.nbytes)
        if self._wrapped is not None:
            return False  # which `write` refuses
        if not source.belongs_to(self._driver):
            origin = source._driver
            return self._driver.copy_peer(origin, source.memory, self.memory, source.nbytes)
        self._driver.copy(source.memory, self.memory, source.nbytes)
        return True

    def free(self) -> None:
        """Give the memory back; a second call does nothing."""
        self.alive = False
        memory, self._memory = self._memory, None
        if memory is not None:
            self._driver.free(memory)
        self._wrapped = None

    def _check(self, offset: int, nbytes: int) -> None:
        if self._memory is None:
            raise UsageError("the buffer has been freed")
        if offset < 0 or offset + nbytes > self.nbytes:
            raise UsageError(f"bytes {offset} to {offset + nbytes} of a buffer of {self.nbytes}")
