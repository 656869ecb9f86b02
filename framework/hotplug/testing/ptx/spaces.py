"""What threads of a batch see of each state space (PTX ISA, "State spaces")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hotplug.testing.ptx.memory import Allocation, DeviceMemory, Site, Space, within
from hotplug.testing.ptx.types import Lanes, Value

if TYPE_CHECKING:
    from hotplug.testing.ptx.batch import Batch

__all__ = ["WINDOWS", "GenericSpace", "GlobalSpace", "LocalSpace", "ParamSpace", "SharedSpace"]

WINDOWS = {"shared": 1 << 40, "local": 1 << 41, "param": 1 << 42}
"""Where generic addresses of the spaces begin; those above are of device memory."""


class GlobalSpace:
    """Device memory.

    Args:
        batch: the threads.
        memory: of the device.
    """

    def __init__(self, batch: Batch, memory: DeviceMemory) -> None:
        self._batch = batch
        self._memory = memory
        # By site, where it last went; most stay in one allocation.
        self._last: dict[int, Allocation] = {}

    def load(self, site: Site, address: Value, lanes: Lanes) -> Value:
        """Values at addresses."""
        offset, allocation = self._locate(site, address, lanes)
        if allocation is None:
            return self._each_allocation(site, address, lanes, None)
        if self._batch.races is not None:
            self._batch.races.touch_global(site, allocation, offset, lanes, write=False)
        return allocation.view(site.dtype)[offset >> site.shift]

    def store(self, site: Site, address: Value, value: Value, lanes: Lanes) -> None:
        """Put values at addresses."""
        offset, allocation = self._locate(site, address, lanes)
        if allocation is None:
            self._each_allocation(site, address, lanes, value)
            return
        if self._batch.races is not None:
            self._batch.races.touch_global(site, allocation, offset, lanes, write=True)
        if offset.ndim == 0 and value.ndim:
            value = value[-1]  # one address for all: the last thread's stays
        allocation.view(site.dtype)[offset >> site.shift] = value

    def _locate(self, site: Site, address: Value, lanes: Lanes) -> tuple[Value, Allocation | None]:
        """Offsets into the one allocation that holds all addresses, or None if none does."""
        allocation = self._last.get(site.number)
        if allocation is not None:
            offset = address - allocation.address
            if within(offset, allocation.nbytes, site):
                return offset, allocation
        first = int(address if address.ndim == 0 else address[0])
        allocation = self._memory.find(first, site.size)
        if allocation is None:
            self._explain(site, np.atleast_1d(address), lanes)
            raise AssertionError
        offset = address - allocation.address
        if within(offset, allocation.nbytes, site):
            self._last[site.number] = allocation
            return offset, allocation
        self._explain(site, np.atleast_1d(address), lanes)
        return address, None

    def _explain(self, site: Site, address: npt.NDArray[np.int64], lanes: Lanes) -> None:
        """Raise for the first address that is wrong, if there is one."""
        for index, at in enumerate(address.tolist()):
            if at % site.alignment:
                self._batch.misaligned(site, at, index, lanes)
            if self._memory.find(at, site.size) is None:
                self._batch.outside(site, at, index, lanes, self._memory.nearest(at))

    def _each_allocation(
        self, site: Site, address: npt.NDArray[np.int64], lanes: Lanes, value: Value | None
    ) -> Value:
        """An access whose threads go to several allocations."""
        left = np.ones(address.shape, bool)
        result = np.zeros(address.shape, site.dtype)
        while left.any():
            first = int(address[np.argmax(left)])
            allocation = self._memory.find(first, site.size)
            assert allocation is not None
            offset = address - allocation.address
            here = left & (offset >= 0) & (offset < allocation.nbytes)
            chosen = np.flatnonzero(here) if lanes is None else lanes[here]
            if value is None:
                result[here] = self.load(site, address[here], chosen)
            else:
                part = value[here] if np.ndim(value) else value
                self.store(site, address[here], part, chosen)
            left &= ~here
        return result


class SharedSpace:
    """Memory of each block of threads.

    Args:
        batch: the threads.
        blocks: how many blocks they are of.
        nbytes: of a block.
    """

    def __init__(self, batch: Batch, blocks: int, nbytes: int) -> None:
        self._batch = batch
        self.nbytes = nbytes
        self.stride = -(-nbytes // 16) * 16
        self.data = np.zeros(blocks * self.stride, np.uint8)
        self.written = np.zeros(blocks * self.stride if batch.uninitialised else 0, bool)

    def load(self, site: Site, address: Value, lanes: Lanes) -> Value:
        """Values at addresses of each thread's own block."""
        at = self._locate(site, address, lanes)
        if self._batch.races is not None:
            self._batch.races.touch_shared(site, at, lanes, write=False)
        if self.written.size:
            self._check_written(site, address, at, lanes)
        return self.data.view(site.dtype)[at >> site.shift]

    def store(self, site: Site, address: Value, value: Value, lanes: Lanes) -> None:
        """Put values at addresses of each thread's own block."""
        at = self._locate(site, address, lanes)
        if self._batch.races is not None:
            self._batch.races.touch_shared(site, at, lanes, write=True)
        if self.written.size:
            for byte in range(site.dtype.itemsize):
                self.written[at + byte] = True
        self.data.view(site.dtype)[at >> site.shift] = value

    def _locate(self, site: Site, address: Value, lanes: Lanes) -> Value:
        if not within(address, self.nbytes, site):
            what = "the block's shared memory has"
            _refuse(self._batch, site, address, lanes, self.nbytes, what)
        return address + self._batch.shared_base(lanes)

    def _check_written(self, site: Site, address: Value, at: Value, lanes: Lanes) -> None:
        known = self.written[at]
        for byte in range(1, site.dtype.itemsize):
            known = known & self.written[at + byte]
        if not known.all():
            index = int(np.argmin(known))
            self._batch.uninitialised_read(
                site, int(np.broadcast_to(address, at.shape)[index]), index, lanes
            )


class LocalSpace:
    """Memory of each thread.

    It lies in slots of 8 bytes, each of which holds all threads' side by side, so that an access
    that all make at the same address is a slice.

    Args:
        batch: the threads.
        threads: how many.
        nbytes: of a thread.
    """

    def __init__(self, batch: Batch, threads: int, nbytes: int) -> None:
        self._batch = batch
        self.nbytes = nbytes
        self._slots = np.zeros((-(-nbytes // 8), threads, 8), np.uint8)

    def keep(self, lanes: npt.NDArray[np.intp]) -> None:
        """Go on with some of the threads."""
        self._slots = np.ascontiguousarray(self._slots[:, lanes])

    def load(self, site: Site, address: Value, lanes: Lanes) -> Value:
        """Values at addresses of each thread's own memory."""
        view, index = self._locate(site, address, lanes)
        found = view[index]
        return found.copy() if lanes is None else found

    def store(self, site: Site, address: Value, value: Value, lanes: Lanes) -> None:
        """Put values at addresses of each thread's own memory."""
        view, index = self._locate(site, address, lanes)
        view[index] = value

    def _locate(self, site: Site, address: Value, lanes: Lanes) -> tuple[Any, Any]:
        if not within(address, self.nbytes, site):
            what = "the thread's local memory has"
            _refuse(self._batch, site, address, lanes, self.nbytes, what)
        view = self._slots.view(site.dtype)
        part = (address & 7) >> site.shift
        if address.ndim == 0:
            return view, (int(address) >> 3, slice(None) if lanes is None else lanes, int(part))
        return view, (address >> 3, self._batch.every if lanes is None else lanes, part)


def _refuse(batch: Batch, site: Site, address: Value, lanes: Lanes, nbytes: int, what: str) -> None:
    """Raise for the first address that is not within so many bytes, or misaligned."""
    for index, at in enumerate(np.atleast_1d(address).tolist()):
        if at % site.alignment:
            batch.misaligned(site, at, index, lanes)
        if not 0 <= at <= nbytes - site.size:
            batch.outside(site, at, index, lanes, f"{what} {nbytes} bytes")


class ParamSpace:
    """A launch's arguments, the same for all threads.

    Args:
        batch: the threads.
        data: the arguments' bytes.
    """

    def __init__(self, batch: Batch, data: bytes) -> None:
        self._batch = batch
        self.nbytes = len(data)
        self._data = np.frombuffer(data.ljust(-(-len(data) // 8) * 8, b"\0"), np.uint8)

    def load(self, site: Site, address: Value, lanes: Lanes) -> Value:
        """Values of arguments."""
        if not within(address, self.nbytes, site):
            _refuse(self._batch, site, address, lanes, self.nbytes, "the arguments have")
        return self._data.view(site.dtype)[address >> site.shift]

    def store(self, site: Site, address: Value, value: Value, lanes: Lanes) -> None:
        """Arguments are never written."""
        del value
        at = int(np.atleast_1d(address)[0])
        self._batch.outside(site, at, 0, lanes, "arguments cannot be written")


class GenericSpace:
    """Addresses that tell their space by themselves (PTX ISA, "Generic addressing").

    Args:
        spaces: by name.
    """

    def __init__(self, spaces: dict[str, Space]) -> None:
        self._spaces = spaces

    def load(self, site: Site, address: Value, lanes: Lanes) -> Value:
        """Values at addresses of any space."""
        parts = self._parts(address, lanes)
        if len(parts) == 1:
            name, _, base, chosen = parts[0]
            return self._spaces[name].load(site, address - base, chosen)
        result = np.zeros(address.shape, site.dtype)
        for name, here, base, chosen in parts:
            result[here] = self._spaces[name].load(site, address[here] - base, chosen)
        return result

    def store(self, site: Site, address: Value, value: Value, lanes: Lanes) -> None:
        """Put values at addresses of any space."""
        parts = self._parts(address, lanes)
        if len(parts) == 1:
            name, _, base, chosen = parts[0]
            self._spaces[name].store(site, address - base, value, chosen)
            return
        for name, here, base, chosen in parts:
            part = value[here] if np.ndim(value) else value
            self._spaces[name].store(site, address[here] - base, part, chosen)

    def _parts(self, address: Value, lanes: Lanes) -> list[tuple[str, Any, int, Lanes]]:
        """(space, which threads, where its addresses begin, their lanes) of an access."""
        kinds = address >> 40
        first = int(kinds if kinds.ndim == 0 else kinds[0])
        if kinds.ndim == 0 or bool((kinds == first).all()):
            name = _space(first)
            return [(name, None, WINDOWS.get(name, 0), lanes)]
        parts: list[tuple[str, Any, int, Lanes]] = []
        of = np.array([_space(int(kind)) for kind in kinds])
        for name in np.unique(of).tolist():
            here = of == name
            chosen = np.flatnonzero(here) if lanes is None else lanes[here]
            parts.append((name, here, WINDOWS.get(name, 0), chosen))
        return parts


def _space(kind: int) -> str:
    for name, base in WINDOWS.items():
        if kind == base >> 40:
            return name
    return "global"
