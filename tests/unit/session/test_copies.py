"""The host's copies of states: which rows, when, and how much of them."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug.dtypes import get
from hotplug.session.copies import StateCopies
from hotplug.tensor import TensorType
from hotplug.testing.reference import HostMemory

TYPES = {"k": TensorType(get("f32"), (256, 2)), "v": TensorType(get("f16"), (256, 4))}
ROW = 8 + 8


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("hotplug.session.copies.time", made)
    return made


def copied(copies: StateCopies, seed: int = 0, seconds: float = 0.0) -> dict[str, bytes]:
    """Let copies be taken of random states; returns what these hold."""
    rng = np.random.default_rng(seed)
    held = {}
    for name, form in TYPES.items():
        buffer = HostMemory("far:0").allocate(form.nbytes)
        held[name] = rng.bytes(form.nbytes)
        buffer.write(0, memoryview(held[name]))
        copies.take(name, form, buffer)
    copies.taken(seconds)
    return held


def test_rows_are_copied_once_there_are_many_new_ones() -> None:
    copies = StateCopies(1 << 20)
    copies.wrote(0, 63)
    assert not copies.due(TYPES)
    copies.wrote(63, 64)
    assert copies.due(TYPES)
    held = copied(copies)
    assert copies.rows == 64
    assert not copies.due(TYPES)
    assert bytes(copies.first("k", 64)) == held["k"][: 64 * 8]
    assert bytes(copies.first("v", 3)) == held["v"][: 3 * 8]
    assert copies.first("k", 0).size == 0
    assert (copies.saved("kv"), copies.saved("kvx")) == (64, 0)


def test_only_rows_written_since_are_copied() -> None:
    copies = StateCopies(1 << 20)
    copies.wrote(0, 64)
    copies.due(TYPES)
    before = copied(copies, 1)
    copies.wrote(64, 128)
    assert copies.due(TYPES)
    after = copied(copies, 2)
    assert bytes(copies.first("k", 128)) == before["k"][: 64 * 8] + after["k"][64 * 8 : 128 * 8]


def test_what_is_written_again_is_copied_again() -> None:
    copies = StateCopies(1 << 20)
    copies.wrote(0, 128)
    copies.due(TYPES)
    before = copied(copies, 1)
    copies.wrote(10, 100)
    assert copies.rows == 10
    assert copies.due(TYPES)
    after = copied(copies, 2)
    assert bytes(copies.first("v", 100)) == before["v"][: 10 * 8] + after["v"][10 * 8 : 100 * 8]


@pytest.mark.parametrize(("limit", "rows"), [(100 * ROW, 100), (10 * ROW + 5, 10), (ROW - 1, 0)])
def test_the_first_rows_are_copied_as_far_as_there_is_room(limit: int, rows: int) -> None:
    copies = StateCopies(limit)
    copies.wrote(0, 200)
    assert copies.due(TYPES) == bool(rows)
    copied(copies)
    assert copies.rows == rows
    copies.wrote(200, 256)
    assert not copies.due(TYPES)


def test_copying_takes_a_fiftieth_of_the_time_at_most(clock: Clock) -> None:
    copies = StateCopies(1 << 20)
    copies.wrote(0, 64)
    copies.due(TYPES)
    copied(copies, seconds=0.5)
    copies.wrote(64, 200)
    clock.now = 24.9
    assert not copies.due(TYPES)
    clock.now = 25.1
    assert copies.due(TYPES)


def test_other_states_than_before_are_copied_from_the_start() -> None:
    copies = StateCopies(1 << 20)
    copies.wrote(0, 64)
    copies.due(TYPES)
    copied(copies)
    copies.wrote(64, 65)
    assert not copies.due({"k": TYPES["k"]})
    copies.wrote(65, 128)
    assert copies.due({"k": TYPES["k"]})
    assert copies.rows == 0
    assert not copies.due({})
