"""Rows of a plan for one compiled kernel, the speed of reading, and timing in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from hotplug_cpu import threads as teams
from hotplug_cpu.catalog import ROW_WORDS, kernel
from hotplug_cpu.jit import loader

_READS = 12


def row(name: str, **arguments: object) -> list[int]:
    """A plan's row with a barrier after it: arrays stand for their addresses."""
    assert tuple(arguments) == kernel(name).arguments
    words = [
        value.ctypes.data if isinstance(value, np.ndarray) else int(value)  # type: ignore[call-overload]
        for value in arguments.values()
    ]
    head = [loader.load([name])[name], 1]
    return [*head, *words, *[0] * (ROW_WORDS - len(head) - len(words))]


def fastest(actions: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Seconds of each action, which take turns."""
    best = [float("inf")] * len(actions)
    for _ in range(repeats):
        for index, action in enumerate(actions):
            start = time.perf_counter()
            action()
            best[index] = min(best[index], time.perf_counter() - start)
    return best


class Reader:
    """Reads memory with the backend's compiled kernel `read`, which sums it and does nothing else.

    Args:
        threads: how many read, each its share.
        nbytes: how much, several times what caches hold.
    """

    def __init__(self, threads: int, nbytes: int) -> None:
        self.nbytes = nbytes
        self._team = teams.team(threads)
        self._memory = np.zeros(nbytes, np.uint8)
        self._memory[::4096] = 1  # commits the pages
        self._sums = np.zeros(threads, np.float32)
        words = row("read", at=self._memory, nbytes=nbytes, out=self._sums)
        self._plan = np.array([words], np.int64)

    def read(self) -> None:
        """Read all of it once."""
        self._team.run(self._plan)

    def speed(self) -> float:
        """Bytes per second over a tenth of a second or so, as sustained as what it is held to."""
        began = time.perf_counter()
        for _ in range(_READS):
            self.read()
        return _READS * self.nbytes / (time.perf_counter() - began)
