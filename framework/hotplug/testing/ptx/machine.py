"""A simulated device: memory, and launches on it."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from hotplug.errors import UsageError
from hotplug.testing.ptx.batch import Batch, Geometry
from hotplug.testing.ptx.memory import DeviceMemory, as_bytes
from hotplug.testing.ptx.module import Module
from hotplug.testing.ptx.program import Program
from hotplug.testing.ptx.races import EPOCHS
from hotplug.testing.ptx.schedule import run

__all__ = ["LANES", "Machine"]

LANES = 16384
"""About how many threads are run side by side: enough that Python's share is small, few enough that
their registers stay in a processor's cache."""

MAX_THREADS = 1024
"""Threads of a block, at most (CUDA C++ programming guide, "Compute capabilities")."""


class Machine:
    """A device with its memory. Not safe to use from several threads at once.

    Args:
        total_bytes: device memory.
        races: whether accesses that nothing orders are errors.
        uninitialised: whether reading shared memory that nothing wrote is one.
    """

    def __init__(
        self, total_bytes: int = 1 << 32, *, races: bool = True, uninitialised: bool = False
    ) -> None:
        self._memory = DeviceMemory(total_bytes)
        self._races = races
        self._epoch = 0
        self._uninitialised = uninitialised
        self._symbols: weakref.WeakKeyDictionary[Module, dict[str, np.int64]] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def free_bytes(self) -> int:
        """Device memory that is not allocated."""
        return self._memory.free_bytes

    def allocate(self, nbytes: int) -> int:
        """New device memory, zeros at first; returns its address.

        Raises:
            OutOfDeviceMemoryError: there is not as much.
        """
        return self._memory.allocate(nbytes)

    def free(self, address: int) -> None:
        """Give memory back.

        Raises:
            UsageError: no allocation begins there.
        """
        self._memory.free(address)

    def write(self, address: int, buffer: Any) -> None:
        """Copy bytes to device memory.

        Raises:
            MemoryFault: not all of it is within one allocation.
        """
        source = as_bytes(buffer)
        self._memory.bytes_at(address, source.size)[:] = source

    def read(self, address: int, nbytes: int) -> bytes:
        """Copy bytes of device memory.

        Raises:
            MemoryFault: not all of it is within one allocation.
        """
        return self._memory.bytes_at(address, nbytes).tobytes()

    def copy(self, source: int, target: int, nbytes: int) -> None:
        """Copy within device memory.

        Raises:
            MemoryFault: not all of both is within one allocation each.
        """
        self._memory.bytes_at(target, nbytes)[:] = self._memory.bytes_at(source, nbytes)

    def fill(self, address: int, byte: int, nbytes: int) -> None:
        """Set bytes of device memory to one value.

        Raises:
            MemoryFault: not all of it is within one allocation.
        """
        self._memory.bytes_at(address, nbytes)[:] = byte

    def launch(
        self,
        module: Module,
        name: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[bytes],
        shared_bytes: int = 0,
    ) -> None:
        """Run a kernel to its end.

        Args:
            module: what holds it.
            name: its name.
            grid: blocks along x, y, z.
            block: threads of a block along x, y, z.
            arguments: the bytes of each parameter.
            shared_bytes: shared memory besides what the kernel declares.

        Raises:
            UsageError: no such kernel, or a geometry or arguments that do not fit it.
            KernelFault: an access to memory that is none, a race, a barrier that not all reach.
        """
        program = module.program(name)
        geometry = Geometry(
            name,
            _extent(grid, "grid"),
            _extent(block, "block"),
            program.shared_bytes + shared_bytes,
            program.local_bytes,
            _packed(program, arguments),
        )
        if geometry.threads > MAX_THREADS:
            raise UsageError(f"a block has at most {MAX_THREADS} threads, not {geometry.threads}")
        self._run(program, geometry, self._addresses(module))

    def _run(self, program: Program, geometry: Geometry, symbols: dict[str, np.int64]) -> None:
        epoch = self._next_epoch() if self._races else 0
        at_once = max(LANES // geometry.threads, 1)
        with np.errstate(all="ignore"):
            for first in range(0, geometry.blocks, at_once):
                batch = Batch(
                    geometry,
                    first,
                    min(at_once, geometry.blocks - first),
                    self._memory,
                    symbols,
                    program.undefined,
                    program.sites,
                    epoch,
                    uninitialised=self._uninitialised,
                )
                run(batch, program.steps)

    def _next_epoch(self) -> int:
        """A number for a launch; records of earlier ones with the same number are dropped."""
        self._epoch += 1
        if self._epoch > EPOCHS:
            self._memory.forget_shadows()
            self._epoch = 1
        return self._epoch

    def _addresses(self, module: Module) -> dict[str, np.int64]:
        """Where a module's variables lie; they are put there at its first launch."""
        known = self._symbols.get(module)
        if known is None:
            known = {}
            for variable in module.variables:
                address = self.allocate(variable.size)
                if variable.data is not None:
                    self.write(address, variable.data)
                known[variable.name] = np.int64(address)
            self._symbols[module] = known
            weakref.finalize(module, _free_all, self._memory, [int(at) for at in known.values()])
        return known


def _free_all(memory: DeviceMemory, addresses: list[int]) -> None:
    for address in addresses:
        memory.free(address)


def _extent(given: Sequence[int], what: str) -> tuple[int, int, int]:
    x, y, z = given
    if min(x, y, z) < 1:
        raise UsageError(f"a {what} of {x} x {y} x {z}")
    return x, y, z


def _packed(program: Program, arguments: Sequence[bytes]) -> bytes:
    """All arguments at their places.

    Raises:
        UsageError: they are not as many, or not as long, as the parameters.
    """
    sizes = [size for size, _ in program.parameters]
    given = [len(argument) for argument in arguments]
    if sizes != given:
        raise UsageError(f"{program.name} takes arguments of {sizes} bytes, not {given}")
    packed = bytearray(program.offsets[-1] + sizes[-1] if sizes else 0)
    for at, argument in zip(program.offsets, arguments, strict=True):
        packed[at : at + len(argument)] = argument
    return bytes(packed)
