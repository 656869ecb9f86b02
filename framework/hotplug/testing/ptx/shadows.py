"""Where the records of accesses to an allocation are kept; races.py tells what they mean."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Records", "Shadow"]

Records = npt.NDArray[np.int64]


class Shadow:
    """A record for each run of an allocation's bytes.

    Runs are as long as the smallest access of a launch. That is found out during the first launch
    of a program, whose records are then split, and remembered for the next ones. Records of earlier
    launches need no clearing: they tell which launch they are of.

    Args:
        nbytes: of the allocation.
    """

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes
        self._by_run: dict[int, Records] = {}
        self._known: dict[str, int] = {}
        self._epoch = 0
        self._run = 8

    def records(self, epoch: int, program: str, size: int) -> tuple[Records, int]:
        """The records, and the bytes of a run.

        Args:
            epoch: of the launch.
            program: what is launched.
            size: bytes of an access, which is one run or several.
        """
        if epoch != self._epoch:
            self._epoch = epoch
            self._run = min(self._known.get(program, 8), size)
        elif size < self._run:
            coarse = self._of(self._run)
            fine = self._of(size)
            fine[:] = np.repeat(coarse, self._run // size)[: len(fine)]
            self._run = size
        self._known[program] = self._run
        return self._of(self._run), self._run

    def _of(self, run: int) -> Records:
        found = self._by_run.get(run)
        if found is None:
            # One record for the last run, even if it is not whole.
            count = -(-(-(-self._nbytes // 8) * 8) // run)
            found = self._by_run[run] = np.zeros(count, np.int64)
        return found
