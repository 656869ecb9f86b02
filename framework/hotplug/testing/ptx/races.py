"""Finds accesses that nothing orders.

Each run of bytes as long as the smallest access of a program has a record of who touched it last:

    epoch (16 bits) | block (22) | thread (10) | site (14) | written (1)

In shared memory accesses of different threads of a block clash unless a barrier is between them:
each barrier begins a new epoch, and records of older ones count as untouched. In global memory
accesses of different blocks of a launch clash, whatever they do; there an epoch is a launch. Two
owners that no thread has stand for "several read it" and "it is used by atomic operations", which
clash with any other write and access, respectively.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hotplug.errors import UsageError
from hotplug.testing.ptx.errors import RaceFault
from hotplug.testing.ptx.memory import Allocation, Site
from hotplug.testing.ptx.shadows import Records
from hotplug.testing.ptx.types import Lanes, Value

if TYPE_CHECKING:
    from hotplug.testing.ptx.batch import Batch

__all__ = ["EPOCHS", "Races"]

_SITE = 1
_THREAD = 15
_BLOCK = 25
_EPOCH = 47
EPOCHS = (1 << 16) - 1
"""Epochs that a record can tell apart."""

_MOST_BLOCKS = (1 << 22) - 2
_MOST_SITES = 1 << 14
_SEVERAL = ((1 << 22) - 1) << _BLOCK
_ATOMIC = (((1 << 22) - 2) << _BLOCK) | 1


class Races:
    """What the threads of a batch touched.

    Args:
        batch: the threads.
        sites: the program's accesses by number.
        epoch: number of the launch.
        program: what is launched.
        shared_bytes: of all blocks of the batch together.

    Raises:
        UsageError: more blocks or accesses than a record can tell apart.
    """

    def __init__(
        self,
        batch: Batch,
        sites: Sequence[Site],
        epoch: int,
        program: str,
        shared_bytes: int,
    ) -> None:
        if batch.geometry.blocks >= _MOST_BLOCKS or len(sites) >= _MOST_SITES:
            raise UsageError("a launch of this size is only run by a machine with races=False")
        self._batch = batch
        self._sites = sites
        self._launch = epoch << _EPOCH
        self._barrier = 1 << _EPOCH
        self._program = program
        self._shared_run = min((site.size for site in sites if site.may_be_shared), default=8)
        self._shared: Records = np.zeros(-(-shared_bytes // self._shared_run), np.int64)
        self.keep()

    def keep(self) -> None:
        """The batch has other threads than before."""
        batch = self._batch
        self._who = (batch.block.astype(np.int64) << _BLOCK) | (batch.thread << _THREAD)

    def barrier(self) -> None:
        """All threads passed a barrier."""
        self._barrier += 1 << _EPOCH
        if self._barrier >> _EPOCH > EPOCHS:
            self._shared[:] = 0
            self._barrier = 1 << _EPOCH

    def touch_global(
        self, site: Site, allocation: Allocation, offset: Value, lanes: Lanes, *, write: bool
    ) -> None:
        """Threads access an allocation.

        Raises:
            RaceFault: another block did too, and one of both writes.
        """
        records, run = allocation.shadow.records(self._launch, self._program, site.size)
        first = offset >> (run.bit_length() - 1)
        for part in range(site.size // run):
            self._touch(site, records, first + part, lanes, self._launch, _BLOCK, write)

    def touch_shared(self, site: Site, at: Value, lanes: Lanes, *, write: bool) -> None:
        """Threads access shared memory.

        Raises:
            RaceFault: another thread did too since the last barrier, and one of both writes.
        """
        run = self._shared_run
        first = at >> (run.bit_length() - 1)
        for part in range(site.size // run):
            self._touch(site, self._shared, first + part, lanes, self._barrier, _THREAD, write)

    def _touch(
        self, site: Site, records: Records, index: Value, lanes: Lanes, floor: int, shift: int,
        write: bool,
    ) -> None:  # fmt: skip
        who = (self._who if lanes is None else self._who[lanes]) | (
            floor | site.number << _SITE | write
        )
        if index.ndim == 0:
            index = np.broadcast_to(index, who.shape)
        if site.atomic:
            self._atomic(site, records, index, who, floor, shift, lanes)
        elif write:
            self._write(site, records, index, who, floor, shift, lanes)
        else:
            self._read(site, records, index, who, floor, shift, lanes)

    def _read(
        self, site: Site, records: Records, index: Value, who: Records, floor: int, shift: int,
        lanes: Lanes,
    ) -> None:  # fmt: skip
        known = records[index]
        fresh = known < floor
        if fresh.all():
            self._first_read(records, index, who, floor, shift)
            return
        several = floor | _SEVERAL
        fine = ((known ^ who) < 1 << shift) | (known == several)
        if fine.all():
            return
        other = ~(fine | fresh)
        if other.any():
            written = other & (known & 1 == 1)
            if written.any():
                self._clash(site, known, written, lanes, "reads")
            records[index[other]] = several
        self._first_read(records, index[fresh], who[fresh], floor, shift)

    @staticmethod
    def _first_read(records: Records, index: Value, who: Records, floor: int, shift: int) -> None:
        records[index] = who
        # Of several that read a run in one go, one remains in its record.
        beaten = (records[index] ^ who) >= 1 << shift
        if beaten.any():
            records[index[beaten]] = floor | _SEVERAL

    def _write(
        self, site: Site, records: Records, index: Value, who: Records, floor: int, shift: int,
        lanes: Lanes,
    ) -> None:  # fmt: skip
        known = records[index]
        other = ((known ^ who) >= 1 << shift) & (known >= floor)
        if other.any():
            self._clash(site, known, other, lanes, "writes")
        records[index] = who
        now = records[index]
        beaten = (now ^ who) >= 1 << shift
        if beaten.any():
            self._clash(site, now, beaten, lanes, "writes")

    def _atomic(
        self, site: Site, records: Records, index: Value, who: Records, floor: int, shift: int,
        lanes: Lanes,
    ) -> None:  # fmt: skip
        known = records[index]
        fine = ((known ^ who) < 1 << shift) | (known < floor) | (known == floor | _ATOMIC)
        if not fine.all():
            self._clash(site, known, ~fine, lanes, "changes atomically")
        records[index] = floor | _ATOMIC

    def _clash(self, site: Site, known: Records, clashing: Value, lanes: Lanes, does: str) -> None:
        position = int(np.argmax(clashing))
        lane = position if lanes is None else int(lanes[position])
        batch = self._batch
        instruction = site.instruction
        what = f"{does} with `{instruction.text}` (line {instruction.line})"
        raise RaceFault(
            f"{batch.geometry.kernel}: {batch.name(lane)} {what} what "
            f"{self._other(int(known[position]))}, with nothing that orders the two"
        )

    def _other(self, record: int) -> str:
        owner = record & (((1 << 22) - 1) << _BLOCK)
        if owner == _SEVERAL:
            return "several other threads read"
        if owner == _ATOMIC & ~1:
            return "atomic operations change"
        block = owner >> _BLOCK
        thread = record >> _THREAD & 1023
        instruction = self._sites[record >> _SITE & 0x3FFF].instruction
        verb = "writes" if record & 1 else "reads"
        who = self._batch.describe(block, thread)
        return f"{who} {verb} with `{instruction.text}` (line {instruction.line})"
