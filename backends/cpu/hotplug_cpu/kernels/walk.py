"""The loop that runs a plan: all threads of a team walk its rows together.

A plan is rows of `ROW_WORDS` words, see the catalogue; the second word of a row says whether the
threads wait for each other after it. They always do after the last one.

A team's threads share a block of words, see `control`. The leader posts a plan by counting up the
generation; the others wait for that, spinning for a while, then parked by Python. A word per thread
says who is parked: the thread writes 1 there and looks at the generation again; the leader, after
counting up, turns each 1 into 2 and has Python wake that thread. Whoever comes second sees the
other, so that no thread sleeps through a plan.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from hotplug_cpu.catalog import ROW_WORDS
from hotplug_cpu.jit import simd
from hotplug_cpu.kernels.control import (
    ARRIVALS,
    DONE,
    GENERATION,
    GOAL,
    PARKED,
    PLAN,
    ROWS,
    SEEN,
    STOP,
    THREAD_WORDS,
    THREADS,
    WAKE,
    YIELD,
)

__all__ = ["KERNELS"]

_SPINS = 1000  # some 20 us; whoever waits longer gives its processor to others
_IDLE = 3000  # a few milliseconds: longer than a program thinks between two tokens


@simd.inline
def _pass_time(control: int, waited: int) -> None:
    if waited < _SPINS or simd.word(control, YIELD) == 0:
        simd.pause()
    else:
        simd.call_plain(simd.word(control, YIELD))


@simd.inline
def _walk(control: int, thread: int) -> Any:
    """Run the posted plan as one of the team; returns what ARRIVALS is when all have."""
    plan, rows = simd.word(control, PLAN), simd.word(control, ROWS)
    threads, goal = simd.word(control, THREADS), simd.word(control, GOAL)
    arrivals = control + 8 * ARRIVALS
    for index in range(rows):
        row = plan + index * ROW_WORDS * 8
        simd.call_kernel(simd.word(row, 0), row, thread, threads)
        if simd.word(row, 1) != 0 or index == rows - 1:
            goal += threads
            if simd.atomic_add(arrivals, 1) + 1 < goal:
                waited = 0
                while simd.atomic_load(arrivals) < goal:
                    _pass_time(control, waited)
                    waited += 1
    return goal


@njit
def post(control: int, plan: int, rows: int) -> int:
    """Leader: give the team a plan. Returns how many threads have to be woken."""
    simd.store_i64(control + 8 * PLAN, plan)
    simd.store_i64(control + 8 * ROWS, rows)
    simd.atomic_add(control + 8 * GENERATION, 1)
    asleep = 0
    for thread in range(1, simd.word(control, THREADS)):
        parked = control + 8 * (PARKED + thread * THREAD_WORDS)
        if simd.atomic_load(parked) == 1 and simd.atomic_exchange(parked, 2) == 1:
            asleep += 1
    simd.store_i64(control + 8 * WAKE, asleep)
    return asleep


@njit
def finish(control: int) -> int:
    """Leader: take part in the plan posted last, unless that was done. Returns 1 if it did."""
    generation = simd.word(control, GENERATION)
    if simd.word(control, DONE) == generation:
        return 0
    simd.store_i64(control + 8 * GOAL, _walk(control, 0))
    simd.store_i64(control + 8 * DONE, generation)
    return 1


@njit
def serve(control: int, thread: int) -> int:
    """Another thread: take part in plans. Returns 1 when it is to be parked, 0 when it may end."""
    own = control + 8 * thread * THREAD_WORDS
    parked = own + 8 * PARKED
    generation = control + 8 * GENERATION
    while True:
        seen = simd.word(own, SEEN)
        waited = 0
        while simd.atomic_load(generation) == seen and waited < _IDLE:
            _pass_time(control, waited)
            waited += 1
        if simd.atomic_load(generation) == seen:
            simd.atomic_exchange(parked, 1)
            if simd.atomic_load(generation) == seen or simd.atomic_exchange(parked, 0) != 1:
                return 1
        simd.store_i64(own + 8 * SEEN, seen + 1)
        if simd.word(control, STOP) != 0:
            return 0
        _walk(control, thread)


KERNELS = {"finish": finish, "post": post, "serve": serve}
