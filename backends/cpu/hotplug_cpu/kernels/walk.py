"""The loop that runs a plan: all threads of a team work on its stretches, one after the other.

A plan is rows of `ROW_WORDS` words, see the catalogue. A *stretch* is a run of rows up to one whose
second word is not 0, or to the last. It has as many *shares* as the team has threads, and begins
when all shares of the one before are done. A thread runs all rows of a stretch for one share: share
n is thread n's, but any other may take it that finds nothing else to do. So nobody waits for a
thread that does not come, only for one that is held up in the middle of its share. Stretches are
numbered from the first that a team ever runs.

Words of a share: CLAIMED is how many stretches it was taken in, which is how threads agree on who
runs it; RUNNER is who did last, FINISHED in how many stretches it is done.

A thread that waits long for another, longer than it worked itself, takes that one to be without a
core, because another program uses it too. One thread less is faster then, so the other is told to
LEAVE for a while; the leader cannot, and whoever waits for it leaves in its place and makes room.

The leader posts a plan by raising GOAL; the others wait for that, spinning for a while, then parked
by Python. A word per thread says who is parked: the thread writes 1 there and looks at the goal
again; the leader, after raising it, turns each 1 into 2 and has Python wake that thread. Whoever
comes second sees the other, so that no thread sleeps through a plan.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from hotplug_cpu.catalog import ROW_WORDS
from hotplug_cpu.jit import shared, simd
from hotplug_cpu.kernels.control import (
    BASE,
    CLAIMED,
    DONE,
    FINISHED,
    GOAL,
    LEAVE,
    LEFT,
    PARKED,
    PATIENCE,
    PLAN,
    ROWS,
    RUNNER,
    STOP,
    THREAD_WORDS,
    THREADS,
    WAKE,
    YIELD,
)

__all__ = ["KERNELS"]

_SPINS = 1000  # some 20 us; whoever waits longer gives its processor to others
_POLITE = 50  # a microsecond, in which a share is left to its own thread
_IDLE = 3000  # a few milliseconds: longer than a program thinks between two tokens


@simd.inline
def _pass_time(control: int, waited: int) -> None:
    if waited < _SPINS or shared.word(control, YIELD) == 0:
        shared.pause()
    else:
        shared.call_plain(shared.word(control, YIELD))


@simd.inline
def _of(control: int, number: int, index: int) -> Any:
    """Address of a word of a thread or share."""
    return control + 8 * (index + number * THREAD_WORDS)


@simd.inline
def _claim(control: int, thread: int, stretch: int, waited: int) -> Any:
    """A share of a stretch that is this thread's to run now, or -1."""
    if shared.atomic_replace(_of(control, thread, CLAIMED), stretch, stretch + 1):
        return thread
    if waited >= _POLITE:
        for share in range(shared.word(control, THREADS)):
            claimed = _of(control, share, CLAIMED)
            if shared.atomic_load(claimed) == stretch and shared.atomic_replace(
                claimed, stretch, stretch + 1
            ):
                return share
    return -1


@simd.inline
def _first_row(control: int, stretch: int, place: Any) -> Any:
    """Index of a stretch's first row; `place` are a plan's base, a stretch and its first row."""
    base, known, row = place
    if base != shared.word(control, BASE):
        known, row = shared.word(control, BASE), 0
    plan = shared.word(control, PLAN)
    while known < stretch:
        known += shared.word(plan + row * ROW_WORDS * 8, 1) != 0
        row += 1
    return row


@simd.inline
def _run(control: int, thread: int, share: int, stretch: int, first: int) -> None:
    """Run a claimed share of the stretch that begins at a row."""
    simd.store_i64(_of(control, share, RUNNER), thread)
    plan, last = shared.word(control, PLAN), shared.word(control, ROWS) - 1
    threads = shared.word(control, THREADS)
    index = first
    while True:
        row = plan + index * ROW_WORDS * 8
        shared.call_kernel(shared.word(row, 0), row, share, threads)
        if shared.word(row, 1) != 0 or index == last:
            break
        index += 1
    simd.store_i64(_of(control, share, FINISHED), stretch + 1)
    shared.atomic_add(control + 8 * DONE, 1)


@simd.inline
def _free(control: int, thread: int, stretch: int) -> Any:
    """Have a thread leave that holds up a stretch. Returns 1 if this one is to leave instead."""
    for share in range(shared.word(control, THREADS)):
        claimed = shared.atomic_load(_of(control, share, CLAIMED))
        if claimed == stretch + 1 and shared.atomic_load(_of(control, share, FINISHED)) <= stretch:
            runner = shared.atomic_load(_of(control, share, RUNNER))
            if runner != 0:
                simd.store_i64(_of(control, runner, LEAVE), 1)
            elif thread != 0:
                return 1
    return 0


@simd.inline
def _take_part(control: int, thread: int) -> Any:
    """Work until all is done that was posted. Returns 1 if this thread is to leave before that."""
    threads = shared.word(control, THREADS)
    base = known = first = -1
    waited = 0
    since = worked = shared.ticks()
    worked -= since
    while True:
        done = shared.atomic_load(control + 8 * DONE)
        if done >= shared.atomic_load(control + 8 * GOAL):
            return 0
        if thread != 0 and shared.word(_of(control, thread, LEAVE), 0) != 0:
            return 1
        stretch = done // threads
        share = _claim(control, thread, stretch, waited)
        if share >= 0:
            began = shared.ticks()
            first = _first_row(control, stretch, (base, known, first))
            # Before it runs: when the share is done the next plan may be posted.
            base, known = shared.word(control, BASE), stretch
            _run(control, thread, share, stretch, first)
            since = shared.ticks()
            worked = since - began
            waited = 0
            continue
        _pass_time(control, waited)
        waited += 1
        if waited > _SPINS and shared.ticks() - since > max(shared.word(control, PATIENCE), worked):
            since = shared.ticks()
            if _free(control, thread, stretch):
                return 1


@njit
def post(control: int, plan: int, rows: int) -> int:
    """Leader: give the team a plan. Returns how many threads have to be woken."""
    goal, threads = shared.word(control, GOAL), shared.word(control, THREADS)
    simd.store_i64(control + 8 * PLAN, plan)
    simd.store_i64(control + 8 * ROWS, rows)
    simd.store_i64(control + 8 * BASE, goal // threads)
    stretches = 0
    for index in range(rows):
        stretches += shared.word(plan + index * ROW_WORDS * 8, 1) != 0 or index == rows - 1
    shared.atomic_add(control + 8 * GOAL, stretches * threads)
    asleep = 0
    for thread in range(1, threads):
        parked = _of(control, thread, PARKED)
        if shared.atomic_load(parked) == 1 and shared.atomic_exchange(parked, 2) == 1:
            asleep += 1
    simd.store_i64(control + 8 * WAKE, asleep)
    return asleep


@njit
def finish(control: int) -> int:
    """Leader: take part in what was posted until it is done."""
    _take_part(control, 0)
    return 0


@njit
def serve(control: int, thread: int) -> int:
    """Another thread: take part in plans.

    Returns 1 when it is to be parked, LEFT when it is to stay away for a while, 0 when it may end.
    """
    parked = _of(control, thread, PARKED)
    while True:
        waited = 0
        while _idle(control) and waited < _IDLE:
            _pass_time(control, waited)
            waited += 1
        if _idle(control):
            shared.atomic_exchange(parked, 1)
            if _idle(control) or shared.atomic_exchange(parked, 0) != 1:
                return 1
        if shared.word(control, STOP) != 0:
            return 0
        if _take_part(control, thread):
            simd.store_i64(_of(control, thread, LEAVE), 0)
            return LEFT


@simd.inline
def _idle(control: int) -> Any:
    """Whether there is nothing to do."""
    done = shared.atomic_load(control + 8 * DONE)
    return done >= shared.atomic_load(control + 8 * GOAL) and shared.word(control, STOP) == 0


@njit
def alone(plan: int, rows: int, threads: int) -> int:
    """Run every thread's shares of a plan, sooner than other threads would have heard of it."""
    for index in range(rows):
        row = plan + index * ROW_WORDS * 8
        for share in range(threads):
            shared.call_kernel(shared.word(row, 0), row, share, threads)
    return 0


@njit
def ticks() -> int:
    """What the processor's clock shows."""
    now: int = shared.ticks()
    return now


KERNELS = {"alone": alone, "finish": finish, "post": post, "serve": serve, "ticks": ticks}
