"""The host's copies of states that live where memory may be lost.

States that are caches of rows, as keys and values are, grow by a few rows at each run. Only rows
written since are copied, and not at every run: the host waits for the device each time. The first
rows are copied until the bound is reached, since what is copied need not be computed again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from hotplug.backend import Buffer
from hotplug.tensor import TensorType

__all__ = ["StateCopies"]

_EVERY = 64
"""Rows after which they are copied: half as many, on average, have to be computed again."""

_SHARE = 0.02
"""Share of the time that copying may take: less often where a device is far away."""


class StateCopies:
    """Copies of the first rows of states.

    Args:
        limit: bytes that they may take together.

    Attributes:
        rows: how many rows of every state are copied.
        written: how many rows the states hold; 0 if no run has said so.
    """

    def __init__(self, limit: int) -> None:
        self.rows = 0
        self._limit = limit
        self.written = 0
        self._not_before = 0.0  # by time.monotonic
        self._copies: dict[str, npt.NDArray[np.uint8]] = {}
        self._row_bytes: dict[str, int] = {}

    def wrote(self, start: int, stop: int) -> None:
        """A run has written rows from `start` to before `stop`."""
        self.rewind(start)
        self.written = stop

    def rewind(self, rows: int) -> None:
        """Rows from the given one on are not what they were when they were copied."""
        self.rows = min(self.rows, rows)

    def due(self, types: Mapping[str, TensorType]) -> bool:
        """Whether it is time to copy the states of these types, which are all there are."""
        if self.written - self.rows < _EVERY or not types:
            return False
        if time.monotonic() < self._not_before:
            return False
        self._expect(types)
        return self.rows < self._target

    def _expect(self, types: Mapping[str, TensorType]) -> None:
        row_bytes = {name: _row_bytes(type_) for name, type_ in types.items()}
        if row_bytes != self._row_bytes:
            self._copies.clear()
            self._row_bytes, self.rows = row_bytes, 0

    @property
    def _target(self) -> int:
        """Rows that are to be copied by now."""
        return min(self.written, self._limit // max(1, sum(self._row_bytes.values())))

    def take(self, name: str, type: TensorType, buffer: Buffer) -> None:  # noqa: A002
        """Copy a state's rows that are due."""
        if name not in self._copies:  # the system commits memory as it is written to
            self._copies[name] = np.empty(type.nbytes, np.uint8)
        size = self._row_bytes[name]
        start, stop = self.rows * size, self._target * size
        buffer.read(start, self._copies[name][start:stop].data)

    def taken(self, seconds: float) -> None:
        """All states' rows that were due have been copied, which took so long."""
        self.rows = self._target
        self._not_before = time.monotonic() + seconds / _SHARE

    def saved(self, names: Iterable[str]) -> int:
        """How many rows of all of some states are copied."""
        return self.rows if all(name in self._copies for name in names) else 0

    def first(self, name: str, rows: int) -> npt.NDArray[np.uint8]:
        """The bytes of a state's first rows, of which no more are copied."""
        if not rows:
            return np.empty(0, np.uint8)
        return self._copies[name][: rows * self._row_bytes[name]].copy()


def _row_bytes(type: TensorType) -> int:  # noqa: A002
    return type.nbytes // type.shape[0] if type.shape and type.shape[0] else type.nbytes
