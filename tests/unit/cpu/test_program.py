"""Stretches of a program: where threads must wait, where they need not, and who shares memory."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug_cpu.program import Address, Program, Step, Store


def step(reads, writes, own=None):
    arguments = tuple(Address(store) for store in (*reads, *writes))
    return Step("add", arguments, tuple(writes), (), own or {})


def waits(*steps):
    """Whether threads wait after each step but the last, in the order in which they are run."""
    program = Program([*steps])
    program.place_stores()
    assert program.steps == [*steps]
    return [step.barrier for step in steps[:-1]]


A, B, C = range(3)


@pytest.mark.parametrize(
    ("first", "second", "wait"),
    [
        (([A], [B]), ([A], [C]), False),  # both read it
        (([A], [B]), ([B], [C]), True),  # written, then read
        (([A], [B]), ([C], [A]), True),  # read, then written
        (([A], [C]), ([B], [C]), True),  # written twice
    ],
)
def test_threads_wait_between_steps_of_which_one_writes_what_the_other_touches(first, second, wait):
    stores = [Store(64) for _ in range(3)]
    steps = [step(*([stores[n] for n in part] for part in parts)) for parts in (first, second)]
    assert waits(*steps) == [wait]


@pytest.mark.parametrize(("ways", "wait"), [((32, 32), False), ((32, 4), True), ((32, None), True)])
def test_they_need_not_where_each_reads_only_what_it_wrote_itself(ways, wait):
    x, y, z = (Store(64) for _ in range(3))
    made, used = ({y: way} if way else {} for way in ways)
    assert waits(step([x], [y], made), step([y], [z], used)) == [wait]


def test_what_is_shared_in_one_way_is_read_in_another_by_later_steps():
    x, y, z, w = (Store(64) for _ in range(4))
    steps = step([x], [y], {y: 32}), step([y], [z], {y: 32}), step([y], [w])
    assert waits(*steps) == [False, True]


def test_steps_that_depend_on_nothing_are_run_in_the_first_stretch():
    x, y, z, w, v = (Store(64) for _ in range(5))
    late, early = step([y], [z]), step([w], [v])
    program = Program([step([x], [y]), late, early])
    program.place_stores()
    assert program.steps[1:] == [early, late]
    assert [step.barrier for step in program.steps] == [False, True, False]


def test_no_two_stores_of_one_stretch_share_memory():
    """A thread may be done with its part of one when another has not begun with the other."""
    random = np.random.default_rng(0)
    for _ in range(50):
        stores = [Store(int(random.integers(1, 500))) for _ in range(12)]
        steps = []
        for target in range(1, 12):
            sources = random.integers(target, size=2)
            steps.append(step([stores[n] for n in {*sources.tolist()}], [stores[target]]))
        program = Program(steps)
        program.place_stores()
        for number, one in enumerate(stores):
            assert one.offset + one.nbytes <= program.arena_bytes
            for other in stores[:number]:
                apart = one.offset >= other.offset + other.nbytes
                apart |= other.offset >= one.offset + one.nbytes
                assert apart or one.first > other.last or other.first > one.last
        stretch = 0
        for item in program.steps:
            assert all(store.first <= stretch <= store.last for store in item.stores)
            stretch += item.barrier
