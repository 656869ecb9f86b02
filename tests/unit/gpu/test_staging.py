"""Large copies go through a small ring, whose pieces are not touched while they travel."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from hotplug.gpu.staging import SLOT_BYTES, SLOTS, Staging

SLOT = 100


class SlowLink:
    """A device that copies nothing before somebody waits, as late as a real one may.

    Attributes:
        memory: the device's.
        pinned_bytes: what was asked for in all.
    """

    def __init__(self, nbytes: int) -> None:
        self.memory = np.zeros(nbytes, np.uint8)
        self.pinned_bytes = 0
        self._queued: list[tuple[np.ndarray, np.ndarray] | None] = []

    def pinned(self, nbytes):
        self.pinned_bytes += nbytes
        return np.zeros(nbytes, np.uint8)

    def send(self, piece, memory, offset, event):
        return self._queue(memory[offset : offset + piece.size], piece, event)

    def fetch(self, memory, offset, piece, event):
        return self._queue(piece, memory[offset : offset + piece.size], event)

    def _queue(self, target, source, event):
        assert event is None or event in self._done
        self._queued.append((target, source))
        return len(self._queued)

    @property
    def _done(self):
        return {number for number, copy in enumerate(self._queued, 1) if copy is None}

    def wait(self, event):
        for number in range(event):  # in order
            if self._queued[number] is not None:
                target, source = self._queued[number]
                target[:] = source
                self._queued[number] = None


def data(size):
    return np.random.default_rng(size).integers(0, 256, size, np.uint8)


@pytest.mark.parametrize("size", [0, 1, SLOT, SLOT + 1, SLOTS * SLOT, 2345])
def test_what_was_written_is_read(size):
    link = SlowLink(size + 7)
    staging = Staging(link, SLOT)
    values = data(size)
    source = values.copy()
    staging.write(link.memory, 7, memoryview(source))
    source[:] = 0  # the caller may change it at once
    for _ in range(2):
        target = np.zeros_like(values)
        staging.read(link.memory, 7, memoryview(target))
        assert np.array_equal(target, values)
    assert link.pinned_bytes <= SLOTS * SLOT


def test_the_ring_is_all_the_memory_that_a_copy_takes():
    link = SlowLink(1 << 22)
    staging = Staging(link, 1 << 16)
    values = data(1 << 22)
    tracemalloc.start()
    try:
        staging.write(link.memory, 0, memoryview(values))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert link.pinned_bytes == SLOTS << 16
    assert peak < 2 * link.pinned_bytes


def test_devices_write_and_read_more_than_their_ring_holds(each):
    values = data(SLOTS * SLOT_BYTES + 12345)
    target = np.zeros_like(values)
    buffer = each.buffers.allocate(values.size)
    buffer.write(0, memoryview(values))
    buffer.read(0, memoryview(target))
    assert np.array_equal(target, values)
    buffer.write(SLOT_BYTES - 1, memoryview(values[:3]))
    buffer.read(SLOT_BYTES - 2, memoryview(target[:5]))
    assert [*target[:5]] == [values[SLOT_BYTES - 2], *values[:3], values[SLOT_BYTES + 2]]
