"""Weights that are in memory and shall be in the cache, too: written once nobody waits for it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

__all__ = ["WriteBehind"]

_MOST_BYTES = 512 << 20
"""That may wait; beyond them a weight is written as it comes."""

_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Waiting:
    digest: str
    data: memoryview
    since: float


class WriteBehind:
    """What waits to be written, and the thread that does it.

    Args:
        write: given hash and bytes.
    """

    def __init__(self, write: Callable[[str, memoryview], object]) -> None:
        self._write = write
        self._waiting: deque[_Waiting] = deque()
        self._held: dict[str, memoryview] = {}
        self._nbytes = 0
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, "hotplug-rpc-behind")

    def has_room(self, nbytes: int) -> bool:
        """Whether so many bytes more may wait."""
        return self._nbytes + nbytes <= _MOST_BYTES

    def add(self, digest: str, data: memoryview) -> None:
        """Write a weight later."""
        with self._lock:
            self._waiting.append(_Waiting(digest, data, time.monotonic()))
            self._held[digest] = data
            self._nbytes += data.nbytes

    def get(self, digest: str) -> memoryview | None:
        """A weight that is not written yet."""
        return self._held.get(digest)

    def flush(self, seconds: float = _SECONDS) -> None:
        """Begin to write what has waited for so long."""
        before = time.monotonic() - seconds
        while self._waiting and self._waiting[0].since <= before:
            self._pool.submit(self._do, self._waiting.popleft())

    def _do(self, item: _Waiting) -> None:
        try:
            self._write(item.digest, item.data)
        finally:
            with self._lock:
                self._nbytes -= item.data.nbytes
                self._held.pop(item.digest, None)

    def close(self) -> None:
        """Write all that waits."""
        self.flush(0.0)
        self._pool.shutdown()
