"""Finds accesses that nothing orders.

Each run of bytes as long as the smallest access of a program has a record of who touched it last:

    epoch (16 bits) | block (22) | thread (10) | site (14) | written (1)

In shared memory accesses of different threads of a block clash unless a barrier is between them: each
barrier begins a new epoch, and records of older ones count as untouched. In global memory accesses of
different blocks of a launch clash, whatever they do; an epoch is a launch. A run that several have
read belongs to nobody, which is marked by an owner that no thread has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hotplug.testing.ptx.memory import Allocation, Site
from hotplug.testing.ptx.types import Lanes, Value

if TYPE_CHECKING:
    from hotplug.testing.ptx.batch import Batch

__all__ = ["Races"]
Records = npt.NDArray[np.int64]


class Races:
    """Placeholder until the records are kept."""

    def begin(self, batch: Batch) -> None:
        """Threads that are run from now on."""

    def read_global(self, site: Site, allocation: Allocation, offset: Value, lanes: Lanes) -> None:
        """Threads read device memory."""

    def write_global(self, site: Site, allocation: Allocation, offset: Value, lanes: Lanes) -> None:
        """Threads write device memory."""

    def read_shared(self, site: Site, at: Value, lanes: Lanes) -> None:
        """Threads read shared memory."""

    def write_shared(self, site: Site, at: Value, lanes: Lanes) -> None:
        """Threads write shared memory."""

    def launch(self, granules: dict[str, int]) -> None:
        """A launch begins."""

    def barrier(self) -> None:
        """All threads passed a barrier."""
