"""Threads of some blocks of a launch that are run side by side: their registers and memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from hotplug.testing.ptx.errors import MemoryFault, UninitialisedFault
from hotplug.testing.ptx.memory import DeviceMemory, Site
from hotplug.testing.ptx.races import Races
from hotplug.testing.ptx.spaces import (
    GenericSpace,
    GlobalSpace,
    LocalSpace,
    ParamSpace,
    SharedSpace,
)
from hotplug.testing.ptx.types import Lanes, Value

__all__ = ["WARP", "Batch", "Geometry"]

WARP = 32
"""Threads of a warp."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes of a launch.

    Attributes:
        kernel: its name.
        grid: blocks along x, y, z.
        block: threads of a block along x, y, z.
        shared_bytes: shared memory of a block.
        local_bytes: local memory of a thread.
        arguments: bytes of all arguments at their places.
    """

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int
    local_bytes: int
    arguments: bytes

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.block[0] * self.block[1] * self.block[2]

    @property
    def blocks(self) -> int:
        """Blocks of the launch."""
        return self.grid[0] * self.grid[1] * self.grid[2]


class Batch:
    """What generated code calls `m`.

    Args:
        geometry: of the launch.
        first_block: number of the first block of this batch, x fastest.
        blocks: how many.
        memory: of the device.
        symbols: addresses of the module's variables in device memory.
        registers: values of those that may be read before they are written.
        sites: the program's accesses to memory, by number.
        epoch: number of the launch, by which races are found; 0 to look for none.
        uninitialised: whether reading shared memory that nothing wrote is an error.
    """

    def __init__(
        self,
        geometry: Geometry,
        first_block: int,
        blocks: int,
        memory: DeviceMemory,
        symbols: dict[str, np.int64],
        registers: Mapping[str, Value],
        sites: Sequence[Site],
        epoch: int,
        *,
        uninitialised: bool,
    ) -> None:
        self.geometry = geometry
        self.symbols = symbols
        self.uninitialised = uninitialised
        self.size = blocks * geometry.threads
        self.every = np.arange(self.size)
        self.block = first_block + self.every // geometry.threads
        self.thread = self.every % geometry.threads
        self.alive = np.ones(self.size, bool)
        self.is_whole = True
        self._registers: dict[str, Value] = dict(registers)
        self._special: dict[str, Value] = {}
        self.shared = SharedSpace(self, blocks, geometry.shared_bytes)
        self._shared_base = (self.block - first_block) * self.shared.stride
        self.local = LocalSpace(self, self.size, geometry.local_bytes)
        self.global_ = GlobalSpace(self, memory)
        self.param = ParamSpace(self, geometry.arguments)
        self.generic = GenericSpace(
            {
                "global": self.global_,
                "shared": self.shared,
                "local": self.local,
                "param": self.param,
            }
        )
        self.races: Races | None = None
        if epoch:
            self.races = Races(self, sites, epoch, geometry.kernel, self.shared.data.size)

    # Registers.

    def get(self, lanes: Lanes, names: tuple[str, ...]) -> list[Value]:
        """Values of registers."""
        registers = self._registers
        if lanes is None:
            return [registers[name] for name in names]
        found = []
        for name in names:
            value = registers[name]
            found.append(value[lanes] if value.ndim else value)
        return found

    def put(self, lanes: Lanes, pairs: Iterable[tuple[str, Value]]) -> None:
        """Give registers values."""
        if lanes is None:
            self._registers.update(pairs)
            return
        registers = self._registers
        for name, value in pairs:
            old = registers.get(name)
            if value.ndim == 0 and (old is None or (old.ndim == 0 and old == value)):
                registers[name] = value
                continue
            if old is None:
                old = np.zeros(self.size, value.dtype)
            elif old.ndim == 0:
                old = np.full(self.size, old)
            old[lanes] = value
            registers[name] = old

    def keep(self, lanes: npt.NDArray[np.intp], names: Iterable[str]) -> None:
        """Go on with some of the threads, of whose registers only some are still read."""
        values = {name: self._registers[name] for name in names}
        self._registers = {
            name: value[lanes] if value.ndim else value for name, value in values.items()
        }
        self.is_whole = False
        self.size = len(lanes)
        self.every = self.every[: self.size]
        self.block = self.block[lanes]
        self.thread = self.thread[lanes]
        self.alive = self.alive[lanes]
        self._shared_base = self._shared_base[lanes]
        self._special = {}
        self.local.keep(lanes)
        if self.races is not None:
            self.races.keep()

    def special(self, name: str, lanes: Lanes) -> Value:
        """A special register (PTX ISA, "Special registers"), as a signed 32-bit value."""
        value = self._special.get(name)
        if value is None:
            value = self._special[name] = self._special_value(name)
        return value if lanes is None or value.ndim == 0 else value[lanes]

    def _special_value(self, name: str) -> Value:
        stem, _, axis = name.partition(".")
        if axis:
            return self._position(stem, "xyz".index(axis))
        lane = self.thread % WARP
        if stem == "laneid":
            return lane.astype(np.int32)
        if stem == "warpid":
            return (self.thread // WARP).astype(np.int32)
        if stem == "nwarpid":
            return np.int32(-(-self.geometry.threads // WARP))
        if stem.startswith("lanemask_"):
            return _lane_mask(stem[9:], lane)
        return np.int32(0)

    def _position(self, name: str, axis: int) -> Value:
        sizes = self.geometry.grid if "ctaid" in name else self.geometry.block
        if name[0] == "n":
            return np.int32(sizes[axis])
        number = self.block if name == "ctaid" else self.thread
        if axis > 0:
            number = number // sizes[0]
        if axis > 1:
            number = number // sizes[1]
        return (number if axis == 2 else number % sizes[axis]).astype(np.int32)

    def shared_base(self, lanes: Lanes) -> npt.NDArray[np.intp]:
        """Where each thread's shared memory begins."""
        return self._shared_base if lanes is None else self._shared_base[lanes]

    # Faults.

    def name(self, lane: int) -> str:
        """Words for a thread."""
        return self.describe(int(self.block[lane]), int(self.thread[lane]))

    def describe(self, block: int, thread: int) -> str:
        """Words for a thread by its numbers."""
        x, y, _ = self.geometry.grid
        bx, by, _ = self.geometry.block
        block_at = (block % x, block // x % y, block // (x * y))
        thread_at = (thread % bx, thread // bx % by, thread // (bx * by))
        return f"thread {thread_at} of block {block_at}"

    def _where(self, site: Site, index: int, lanes: Lanes) -> str:
        lane = index if lanes is None else int(lanes[index])
        instruction = site.instruction
        who = self.name(lane)
        return f"`{instruction.text}` (line {instruction.line}) of {self.geometry.kernel}, {who}"

    def outside(self, site: Site, address: int, index: int, lanes: Lanes, where: str) -> NoReturn:
        """An access to what is not there.

        Raises:
            MemoryFault: always.
        """
        at = f"{self._where(site, index, lanes)}: no {site.size} bytes at address {address:#x}"
        message = f"{at}: {where}"
        raise MemoryFault(message, address=address)

    def misaligned(self, site: Site, address: int, index: int, lanes: Lanes) -> NoReturn:
        """An access at an address that its size does not divide.

        Raises:
            MemoryFault: always.
        """
        message = (
            f"{self._where(site, index, lanes)}: address {address:#x} is no multiple of "
            f"{site.alignment}"
        )
        raise MemoryFault(message, address=address)

    def uninitialised_read(self, site: Site, address: int, index: int, lanes: Lanes) -> NoReturn:
        """A read of shared memory that nothing wrote.

        Raises:
            UninitialisedFault: always.
        """
        raise UninitialisedFault(
            f"{self._where(site, index, lanes)}: nothing has written shared memory at {address:#x}"
        )


def _lane_mask(relation: str, lane: Any) -> Value:
    bit = np.uint64(1) << lane.astype(np.uint64)
    masks = {
        "eq": bit,
        "lt": bit - np.uint64(1),
        "le": (bit << np.uint64(1)) - np.uint64(1),
        "gt": ~((bit << np.uint64(1)) - np.uint64(1)),
        "ge": ~(bit - np.uint64(1)),
    }
    return masks[relation].astype(np.uint32).view(np.int32)
