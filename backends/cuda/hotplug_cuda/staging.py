"""Bytes between the host and a device, through a ring of pinned memory.

A device reads and writes pinned memory by itself, so that the next piece of a large copy is put
there while the last one travels, and a write need not wait for work that was queued before it.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hotplug_cuda.runtime import Direction, Event, Runtime

__all__ = ["Staging"]

_SLOTS = 4
_SLOT_BYTES = 4 << 20  # large enough for full speed, small enough to begin soon


@dataclass(slots=True)
class _Slot:
    """A piece of pinned memory, and when the device is done with it."""

    memory: NDArray[Any]
    address: int
    event: Event


class Staging:
    """Copies to and from a device in the order of one stream. Safe to use from several threads.

    Args:
        runtime: the device's calls; the device is the thread's when methods are called.
        stream: where copies are queued.
        slot_bytes: size of one piece.
    """

    def __init__(self, runtime: Runtime, stream: Any, slot_bytes: int = _SLOT_BYTES) -> None:
        self._runtime = runtime
        self._stream = stream
        self._slot_bytes = slot_bytes
        self._ring: deque[_Slot] = deque()
        self._lock = threading.Lock()

    def upload(self, target: int, source: memoryview) -> None:
        """Copy to the device; returns when the source may be changed."""
        data = np.frombuffer(source, np.uint8)
        with self._lock:
            for at in range(0, data.size, self._slot_bytes):
                piece = data[at : at + self._slot_bytes]
                slot = self._next_slot()
                slot.event.synchronize()
                slot.memory[: piece.size] = piece
                self._queue(slot, target + at, slot.address, piece.size, Direction.TO_DEVICE)

    def download(self, source: int, target: memoryview) -> None:
        """Copy to the host; returns when done."""
        data = np.frombuffer(target, np.uint8)
        queued: deque[tuple[_Slot, NDArray[Any]]] = deque()
        with self._lock:
            for at in range(0, data.size, self._slot_bytes):
                piece = data[at : at + self._slot_bytes]
                if len(queued) == _SLOTS:
                    _fill(*queued.popleft())
                slot = self._next_slot()
                self._queue(slot, slot.address, source + at, piece.size, Direction.TO_HOST)
                queued.append((slot, piece))
            for slot, piece in queued:
                _fill(slot, piece)

    def _next_slot(self) -> _Slot:
        if len(self._ring) < _SLOTS:
            memory = self._runtime.pinned(self._slot_bytes)
            self._ring.append(_Slot(memory, memory.ctypes.data, self._runtime.event()))
        else:
            self._ring.rotate(-1)
        return self._ring[-1]

    def _queue(
        self, slot: _Slot, target: int, source: int, nbytes: int, direction: Direction
    ) -> None:
        self._runtime.copy(target, source, nbytes, direction, self._stream)
        slot.event.record(self._stream)


def _fill(slot: _Slot, target: NDArray[Any]) -> None:
    """Wait for a piece, and hand it over."""
    slot.event.synchronize()
    target[:] = slot.memory[: target.size]
