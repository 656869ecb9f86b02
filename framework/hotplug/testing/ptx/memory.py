"""Memory of a simulated device, and what a batch of threads sees of each state space.

Addresses of device memory are never used twice, and between two allocations nothing lies, so that
an address past the end of one, or of one that is gone, is never valid.
"""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hotplug.errors import OutOfDeviceMemoryError, UsageError
from hotplug.testing.ptx.errors import MemoryFault
from hotplug.testing.ptx.shadows import Shadow
from hotplug.testing.ptx.syntax import Instruction
from hotplug.testing.ptx.types import Lanes, Value

__all__ = ["Allocation", "DeviceMemory", "Site", "Space", "as_bytes", "within"]

ALIGNMENT = 512
"""Bytes that addresses of allocations are multiples of, as those of drivers are."""

GUARD = 1 << 16
"""Bytes of nothing between two allocations."""

RANGE = 1 << 44
"""Addresses of a device: each has its own, above what generic addresses of other spaces use, so
that no address of one is valid on another."""

_devices = itertools.count()

Bytes = npt.NDArray[np.uint8]


class Allocation:
    """A run of device memory.

    Args:
        address: of its first byte.
        nbytes: its length.
    """

    def __init__(self, address: int, nbytes: int) -> None:
        self.address = address
        self.nbytes = nbytes
        # Typed views need whole elements; what is past nbytes is never addressed.
        self._padded = np.zeros(-(-nbytes // 8) * 8, np.uint8)
        self._views: dict[np.dtype[Any], npt.NDArray[Any]] = {}
        self.shadow = Shadow(nbytes)

    @property
    def data(self) -> Bytes:
        """Its bytes."""
        return self._padded[: self.nbytes]

    def view(self, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Its bytes as elements of a type."""
        found = self._views.get(dtype)
        if found is None:
            found = self._views[dtype] = self._padded.view(dtype)
        return found


@dataclass(slots=True)
class Site:
    """An instruction that accesses memory.

    Attributes:
        instruction: what it is.
        number: its number in the program.
        dtype: of an element.
        alignment: what addresses must be multiples of; a vector's first element has all its bytes.
        atomic: whether it reads and writes in one.
    """

    instruction: Instruction
    number: int
    dtype: np.dtype[Any]
    alignment: int
    atomic: bool = False
    size: int = 0
    shift: int = 0

    may_be_shared: bool = False

    def __post_init__(self) -> None:
        self.size = self.dtype.itemsize
        self.shift = self.size.bit_length() - 1
        elsewhere = ("global", "const", "local", "param")
        self.may_be_shared = not any(space in elsewhere for space in self.instruction.modifiers)


class Space(Protocol):
    """A state space as threads of a batch see it. `address` has a value per thread, or is one."""

    def load(self, site: Site, address: Value, lanes: Lanes) -> Value:
        """Values at addresses, of the site's type."""

    def store(self, site: Site, address: Value, value: Value, lanes: Lanes) -> None:
        """Put values at addresses."""


class DeviceMemory:
    """All allocations of a device.

    Args:
        total_bytes: how much there is.
    """

    def __init__(self, total_bytes: int) -> None:
        self.free_bytes = total_bytes
        self._next = RANGE * (1 + next(_devices) % (1 << 18))
        self._addresses: list[int] = []
        self._allocations: list[Allocation] = []

    def allocate(self, nbytes: int) -> int:
        """A new allocation's address; its contents are zeros.

        Raises:
            OutOfDeviceMemoryError: there is not as much.
            UsageError: a negative length.
        """
        if nbytes < 0:
            raise UsageError(f"cannot allocate {nbytes} bytes")
        if nbytes > self.free_bytes:
            raise OutOfDeviceMemoryError(
                f"{nbytes} bytes of simulated memory were asked for, {self.free_bytes} are free",
                requested=nbytes,
                free=self.free_bytes,
            )
        allocation = Allocation(self._next, nbytes)
        self._next += -(-(nbytes + GUARD) // ALIGNMENT) * ALIGNMENT
        self._addresses.append(allocation.address)
        self._allocations.append(allocation)
        self.free_bytes -= nbytes
        return allocation.address

    def free(self, address: int) -> None:
        """Give an allocation back.

        Raises:
            UsageError: none begins at the address.
        """
        index = bisect.bisect_left(self._addresses, address)
        if index == len(self._addresses) or self._addresses[index] != address:
            raise UsageError(f"no allocation begins at {address:#x}")
        del self._addresses[index]
        self.free_bytes += self._allocations.pop(index).nbytes

    def forget_shadows(self) -> None:
        """Drop what is known of accesses."""
        for allocation in self._allocations:
            allocation.shadow = Shadow(allocation.nbytes)

    def find(self, address: int, nbytes: int) -> Allocation | None:
        """The allocation that holds a range of addresses."""
        index = bisect.bisect_right(self._addresses, address) - 1
        if index < 0:
            return None
        allocation = self._allocations[index]
        return allocation if address + nbytes <= allocation.address + allocation.nbytes else None

    def bytes_at(self, address: int, nbytes: int) -> Bytes:
        """The bytes of a range of addresses, to read and write.

        Raises:
            MemoryFault: it is not within one allocation.
        """
        allocation = self.find(address, nbytes)
        if allocation is None:
            message = f"no allocation holds {nbytes} bytes at {address:#x}: {self.nearest(address)}"
            raise MemoryFault(message, address=address)
        start = address - allocation.address
        return allocation.data[start : start + nbytes]

    def nearest(self, address: int) -> str:
        """Words for where an address is, seen from the nearest allocation."""
        if not self._allocations:
            return "there are no allocations"
        index = max(bisect.bisect_right(self._addresses, address) - 1, 0)
        near = self._allocations[index : index + 2]
        best = min(near, key=lambda item: _distance(item, address))
        end = best.address + best.nbytes
        if address < best.address:
            where = f"{best.address - address} bytes before"
        elif address >= end:
            where = f"{address - end} bytes past the end of"
        else:
            where = f"at byte {address - best.address} of"
        return f"{where} the allocation of {best.nbytes} bytes at {best.address:#x}"


def _distance(allocation: Allocation, address: int) -> int:
    end = allocation.address + allocation.nbytes
    return max(allocation.address - address, address - end + 1, 0)


def as_bytes(buffer: Any) -> Bytes:
    """The bytes of whatever offers a buffer, without a copy."""
    if isinstance(buffer, np.ndarray):
        return np.ascontiguousarray(buffer).reshape(-1).view(np.uint8)
    return np.frombuffer(buffer, np.uint8)


def within(offsets: Value, nbytes: int, site: Site) -> bool:
    """Whether a site's accesses at these offsets lie within so many bytes, and are aligned.

    One comparison serves both ends: a negative offset is a large unsigned number.
    """
    if offsets.ndim == 0:
        at = int(offsets)
        return 0 <= at <= nbytes - site.size and not at & (site.alignment - 1)
    if not offsets.size:
        return True
    if nbytes < site.size or np.maximum.reduce(offsets.view(np.uint64)) > nbytes - site.size:
        return False
    return not np.bitwise_or.reduce(offsets) & (site.alignment - 1)
