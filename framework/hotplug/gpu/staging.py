"""Bytes between the host and a device, through a ring of pinned memory.

A device reads and writes pinned memory by itself, so that the next piece of a large copy is put
there, from a file maybe, while the last one travels, and a write need not wait for work that was
queued before it. However much is copied, the ring is all the memory that it takes.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hotplug.gpu.driver import Memory

__all__ = ["SLOTS", "SLOT_BYTES", "Link", "Staging"]

SLOTS = 4
SLOT_BYTES = 4 << 20  # large enough for full speed, small enough to begin soon


class Link(Protocol):
    """What a driver offers for staging: pinned memory, and copies that are only queued.

    A copy's event is whatever `wait` understands. The event of the last copy of the same piece is
    given along, done with, for drivers that use it again.
    """

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        """Bytes of host memory that the device reads and writes by itself."""

    def send(self, piece: NDArray[np.uint8], memory: Memory, offset: int, event: Any) -> Any:
        """Queue a copy of pinned bytes to device memory; returns its event."""

    def fetch(self, memory: Memory, offset: int, piece: NDArray[np.uint8], event: Any) -> Any:
        """Queue a copy of device memory to pinned bytes; returns its event."""

    def wait(self, event: Any) -> None:
        """Return when a copy is done."""


@dataclass(slots=True)
class _Slot:
    """A piece of pinned memory, and when the device is done with it; None if it has none."""

    memory: NDArray[np.uint8]
    event: Any = None


class Staging:
    """Copies to and from a device in the order in which it does its work. Safe to use from threads.

    Args:
        link: the driver's side.
        slot_bytes: size of one piece.
    """

    def __init__(self, link: Link, slot_bytes: int = SLOT_BYTES) -> None:
        self._link = link
        self._slot_bytes = slot_bytes
        self._ring: deque[_Slot] = deque()
        self._lock = threading.Lock()

    def write(self, memory: Memory, offset: int, source: memoryview) -> None:
        """Copy to the device; returns when the source may be changed."""
        data = np.frombuffer(source, np.uint8)
        with self._lock:
            for at in range(0, data.size, self._slot_bytes):
                piece = data[at : at + self._slot_bytes]
                slot = self._next_slot()
                self._wait(slot)
                slot.memory[: piece.size] = piece
                slot.event = self._link.send(
                    slot.memory[: piece.size], memory, offset + at, slot.event
                )

    def read(self, memory: Memory, offset: int, target: memoryview) -> None:
        """Copy to the host; returns when done."""
        data = np.frombuffer(target, np.uint8)
        queued: deque[tuple[_Slot, NDArray[np.uint8]]] = deque()
        with self._lock:
            for at in range(0, data.size, self._slot_bytes):
                piece = data[at : at + self._slot_bytes]
                if len(queued) == SLOTS:
                    self._fill(*queued.popleft())
                slot = self._next_slot()
                self._wait(slot)
                slot.event = self._link.fetch(
                    memory, offset + at, slot.memory[: piece.size], slot.event
                )
                queued.append((slot, piece))
            for slot, piece in queued:
                self._fill(slot, piece)

    def _next_slot(self) -> _Slot:
        if len(self._ring) < SLOTS:
            self._ring.append(_Slot(self._link.pinned(self._slot_bytes)))
        else:
            self._ring.rotate(-1)
        return self._ring[-1]

    def _wait(self, slot: _Slot) -> None:
        if slot.event is not None:
            self._link.wait(slot.event)

    def _fill(self, slot: _Slot, target: NDArray[np.uint8]) -> None:
        """Wait for a piece, and hand it over."""
        self._wait(slot)
        target[:] = slot.memory[: target.size]
