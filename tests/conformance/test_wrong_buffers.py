"""The suite finds buffers that break the contract."""

from __future__ import annotations

import pytest
from tests.conformance.planted import FaultyDevice

from hotplug.testing.conformance import Outcome, check_behaviour
from hotplug.testing.reference import HostBuffer, HostMemory


class Memory(HostMemory):
    """Host memory with another kind of buffer."""

    def __init__(self, kind=HostBuffer):
        super().__init__("faulty:0")
        self.kind = kind

    def allocate(self, nbytes):
        super().allocate(nbytes)
        return self.kind(memoryview(bytearray(nbytes)))


class IgnoresOffset(HostBuffer):
    def read(self, offset, target):
        super().read(0, target)


class WritesPastRange(HostBuffer):
    def write(self, offset, source):
        super().write(offset, source)
        end = offset + source.nbytes
        if end < self.nbytes:
            self._data[end] ^= 1


class ClipsRanges(HostBuffer):
    def write(self, offset, source):
        offset = max(0, min(offset, self.nbytes))
        super().write(offset, source.cast("B")[: self.nbytes - offset])

    def read(self, offset, target):
        offset = max(0, min(offset, self.nbytes))
        super().read(offset, target.cast("B")[: self.nbytes - offset])


class UsableWhenFreed(HostBuffer):
    def free(self):
        pass


class FreedOnce(HostBuffer):
    def free(self):
        if self._data is None:
            raise RuntimeError("freed twice")
        super().free()


class WritesLater(HostBuffer):
    pending = None

    def write(self, offset, source):
        self.pending = (offset, source)

    def _range(self, offset, nbytes):
        if self.pending:
            (at, source), self.pending = self.pending, None
            super().write(at, source)
        return super()._range(offset, nbytes)


class Aliases(HostBuffer):
    def copy_from(self, source):
        self._data = source._data


class Dirty(Memory):
    def allocate(self, nbytes):
        buffer = super().allocate(nbytes)
        buffer.write(0, memoryview(b"\x01" * nbytes))
        return buffer


class Copies(Memory):
    def wrap(self, data):
        return HostBuffer(memoryview(bytearray(data)))


class TooMuch(Memory):
    def allocate(self, nbytes):
        return HostBuffer(memoryview(bytearray(min(nbytes, 1 << 20))))


class Elements(HostBuffer):
    def write(self, offset, source):
        super().write(offset, source.cast("B")[: len(source)])


@pytest.mark.parametrize(
    ("memory", "behaviour"),
    [
        (Memory(IgnoresOffset), "buffers_read_and_write_ranges"),
        (Memory(WritesPastRange), "buffers_read_and_write_ranges"),
        (Memory(ClipsRanges), "ranges_outside_a_buffer_are_refused"),
        (Memory(UsableWhenFreed), "freed_buffers_are_refused"),
        (Memory(FreedOnce), "freed_buffers_are_refused"),
        (Memory(WritesLater), "writes_are_finished_when_they_return"),
        (Memory(Aliases), "buffers_copy_from_each_other"),
        (Memory(Elements), "buffers_take_typed_memory"),
        (Dirty(), "new_buffers_are_zero"),
        (Copies(), "wrapped_memory_is_used_as_it_lies"),
        (TooMuch(), "too_large_buffers_are_refused"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_faulty_buffers_are_found(memory, behaviour):
    result = check_behaviour(FaultyDevice(memory=memory), behaviour)

    assert result.outcome is Outcome.FAILED
    assert result.reason
