"""Host memory as the contract's buffers.

A buffer is one flat array of bytes. NumPy counts references to it, so that arrays made from a
buffer stay valid after `free`; only the buffer itself may not be used any more.
"""

from __future__ import annotations

import mmap
import sys
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import psutil

from hotplug.backend import Buffer, BufferType
from hotplug.errors import OutOfDeviceMemoryError, UsageError
from hotplug.tensor import TensorType
from hotplug_cpu.tensor_view import AnyArray, storage_dtype, storage_shape

__all__ = ["ALIGNMENT", "HostBuffer", "HostBufferType"]

Bytes: TypeAlias = npt.NDArray[np.uint8]

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector register."""

_LARGE = 1 << 20

_WRAP_ALIGNMENT = 8
"""Bytes: the largest plain element. Memory less aligned than that has to be copied."""


class HostBufferType(BufferType):
    """Memory that the CPU reads and writes; new memory lies at multiples of `ALIGNMENT`.

    Args:
        device: id of the device, for error messages.
    """

    alignment = ALIGNMENT
    is_host = True

    def __init__(self, device: str = "cpu:0") -> None:
        self.device = device

    def allocate(self, nbytes: int) -> HostBuffer:
        """Zeros, of which the system commits a page when it is first touched.

        Raises:
            UsageError: nbytes is negative.
            OutOfDeviceMemoryError: the address space or the system's commit limit is used up.
        """
        if nbytes < 0:
            raise UsageError(f"cannot allocate {nbytes} bytes")
        try:
            whole = _zeros(nbytes + ALIGNMENT)
        except (MemoryError, ValueError, OverflowError, OSError) as error:
            # ValueError and OverflowError: more bytes than can be counted.
            free = int(psutil.virtual_memory().available)
            raise OutOfDeviceMemoryError(
                f"the system refused {nbytes} bytes; {free} are free",
                device=self.device,
                requested=nbytes,
                free=free,
            ) from error
        start = -_address(whole) % ALIGNMENT
        return HostBuffer(np.ndarray(nbytes, np.uint8, buffer=whole, offset=start))

    def wrap(self, data: memoryview) -> HostBuffer | None:
        """Memory used as it lies; None if it is not contiguous or its elements are not aligned."""
        if not data.c_contiguous:
            return None
        array = _flat(data)
        if _address(array) % _WRAP_ALIGNMENT and array.size:
            return None
        return HostBuffer(array)


class HostBuffer(Buffer):
    """Bytes in host memory.

    Args:
        array: flat uint8 array; a read-only one makes a buffer that may only be read.
    """

    def __init__(self, array: Bytes) -> None:
        self.nbytes = array.nbytes
        self._array: Bytes | None = array

    @property
    def array(self) -> Bytes:
        """The bytes.

        Raises:
            UsageError: the buffer was freed.
        """
        if self._array is None:
            raise UsageError("the buffer was freed")
        return self._array

    @property
    def address(self) -> int:
        """Where the first byte lies."""
        return _address(self.array)

    @property
    def read_only(self) -> bool:
        """Whether `write` is refused."""
        return not self.array.flags.writeable

    def as_array(self, type: TensorType, offset: int = 0) -> AnyArray:  # noqa: A002
        """A contiguous tensor in this buffer, as an array over the same memory.

        NumPy arrays speak DLPack, so that other frameworks take the result without a copy.

        Args:
            type: dtype and shape of the tensor.
            offset: byte at which it starts.

        Returns:
            The tensor in its NumPy dtype. bf16 comes as uint16, quantised tensors as uint8 with
            the bytes of a row's blocks along the last axis.

        Raises:
            UsageError: it does not lie within the buffer, or the buffer was freed.
        """
        data = self._range(offset, type.nbytes)
        return data.view(storage_dtype(type.dtype)).reshape(storage_shape(type))

    def read(self, offset: int, target: memoryview) -> None:
        """Fill `target`, which must be contiguous and writable.

        Raises:
            UsageError: the range does not lie within the buffer, or the target is not fit for it.
        """
        if target.readonly or not target.c_contiguous:
            raise UsageError("the target of a read must be contiguous and writable")
        np.copyto(_flat(target), self._range(offset, target.nbytes))

    def write(self, offset: int, source: memoryview) -> None:
        """Copy a contiguous `source` into the buffer.

        Raises:
            UsageError: the range does not lie within the buffer, or the buffer is read-only.
        """
        if self.read_only:
            raise UsageError("the buffer lies over read-only memory and cannot be written")
        if not source.c_contiguous:
            raise UsageError("the source of a write must be contiguous")
        np.copyto(self._range(offset, source.nbytes), _flat(source))

    def free(self) -> None:
        """Let go of the memory; a second call does nothing."""
        self._array = None

    def host(self) -> memoryview:
        """The bytes; read-only if the buffer is.

        Raises:
            UsageError: the buffer was freed.
        """
        return self.array.data

    def _range(self, offset: int, nbytes: int) -> Bytes:
        array = self.array
        if not 0 <= offset <= offset + nbytes <= self.nbytes:
            raise UsageError(
                f"bytes {offset} to {offset + nbytes} do not lie within a buffer of {self.nbytes}"
            )
        return array[offset : offset + nbytes]


def _zeros(nbytes: int) -> Bytes:
    """Memory straight from the system where it is large.

    For large arrays NumPy asks for huge pages: a cache would commit 2 MB with its first row.
    """
    if nbytes < _LARGE:
        return np.zeros(nbytes, np.uint8)
    if sys.platform == "win32":
        return np.frombuffer(mmap.mmap(-1, nbytes), np.uint8)
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return np.frombuffer(mmap.mmap(-1, nbytes, flags=private), np.uint8)


def _address(array: Bytes) -> int:
    # Not `array.ctypes.data`, which makes up an address for an empty array.
    return int(array.__array_interface__["data"][0])


def _flat(data: memoryview) -> Bytes:
    """All bytes of a contiguous view, whatever its shape and format."""
    if not data.nbytes:
        return np.empty(0, np.uint8)
    return np.frombuffer(data, np.uint8)
