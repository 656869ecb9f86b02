"""What nobody uses on a device at present and the next client may: weights and executables.

A second client with the same model then waits neither for its weights nor for compiling. What is
idle gives way as soon as the room is needed, and ends after a while.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

__all__ = ["Idle"]

_MOST = 4096
"""What all idle things may cost together."""


@dataclass(frozen=True, slots=True)
class _Item:
    thing: Any
    nbytes: int
    free: Callable[[], object]
    until: float
    cost: int


class Idle:
    """Idle things of one device, one of each key. Safe to use from several threads.

    Args:
        seconds: how long a thing may be idle; 0 keeps none.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._items: OrderedDict[Hashable, _Item] = OrderedDict()  # the longest idle first
        self._nbytes = 0
        self._cost = 0
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of the device's memory that idle things take."""
        return self._nbytes

    def __contains__(self, key: Hashable) -> bool:
        return key in self._items

    def put(
        self, key: Hashable, thing: Any, nbytes: int, free: Callable[[], object], cost: int = 1
    ) -> None:
        """Keep a thing that nobody uses, or free it; `cost` is for what it takes of the host."""
        item = _Item(thing, nbytes, free, time.monotonic() + self._seconds, cost)
        with self._lock:
            kept = self._seconds > 0 and key not in self._items
            if kept:
                self._items[key] = item
                self._nbytes += nbytes
                self._cost += cost
        if not kept:
            item.free()
        while self._cost > _MOST and self.drop_oldest():
            pass

    def take(self, key: Hashable) -> Any:
        """The thing of a key, which is no longer idle; None if there is none."""
        item = self._remove(key)
        return None if item is None else item.thing

    def _remove(self, key: Hashable) -> _Item | None:
        with self._lock:
            item = self._items.pop(key, None)
            if item is not None:
                self._nbytes -= item.nbytes
                self._cost -= item.cost
            return item

    def drop_oldest(self) -> bool:
        """Free what has been idle longest; False if nothing is."""
        with self._lock:
            key = next(iter(self._items), None)
        item = None if key is None else self._remove(key)
        if item is not None:
            item.free()
        return key is not None

    def expire(self) -> None:
        """Free what has been idle for too long."""
        now = time.monotonic()
        while True:
            with self._lock:
                oldest = next(iter(self._items.values()), None)
            if oldest is None or oldest.until > now:
                return
            self.drop_oldest()

    def clear(self) -> None:
        """Free all."""
        while self.drop_oldest():
            pass
