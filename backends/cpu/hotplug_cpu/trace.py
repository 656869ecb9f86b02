"""How long each step of a plan takes, while all threads run it as they always do.

Rows that note the processor's clock stand before each stretch and after each row. So nothing is
called from Python between rows, caches are as in a real run, and a row's time costs some
nanoseconds to learn. What is not work, but waiting for the others at the end of a stretch, is told
apart.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hotplug_cpu.catalog import FIRST_ARGUMENT, ROW_WORDS
from hotplug_cpu.jit import loader
from hotplug_cpu.program import Step
from hotplug_cpu.threads import Team

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["StepTime", "Trace", "once", "trace"]

_BARRIER = 1  # word of a row


@dataclass(frozen=True, slots=True)
class StepTime:
    """A step and its times, each the mean of the runs that count.

    Attributes:
        step: what was run.
        seconds: time that a thread worked at it, the mean of all threads.
        waiting: time after it until the next stretch began, less what threads worked on average; 0
            where they do not wait.
    """

    step: Step
    seconds: float
    waiting: float


@dataclass(frozen=True, slots=True)
class Trace:
    """The fastest quarter of some runs of a plan: others held the rest up.

    Attributes:
        steps: the steps in their order.
        seconds: what a run took; the steps' times and their waiting sum to that.
    """

    steps: Sequence[StepTime]
    seconds: float


def once(rows: npt.NDArray[np.int64], team: Team) -> list[float]:
    """Run a plan once; the seconds until each row was done after the one before it.

    Waiting counts to the row that is waited for, so that the sum is the time that all took.
    """
    first = _first_rows(rows)
    clock = np.zeros((len(rows) + len(first), team.threads), np.int64)
    stamped, before = _with_stamps(rows, first, clock)
    began = time.perf_counter()
    team.run(stamped)
    seconds = time.perf_counter() - began
    work, waiting = _times(clock[None], before, first)
    ticks = (work + waiting)[0]
    return [float(share) for share in seconds * ticks / max(ticks.sum(), 1.0)]


def trace(steps: Sequence[Step], rows: npt.NDArray[np.int64], team: Team, runs: int) -> Trace:
    """Run a plan several times.

    Args:
        steps: what its rows are.
        rows: (steps, ROW_WORDS), ready to be run.
        team: who runs it.
        runs: how often, at least once; a first time is not counted.
    """
    first = _first_rows(rows)
    clock = np.zeros((len(rows) + len(first), team.threads), np.int64)
    stamped, before = _with_stamps(rows, first, clock)
    team.run(stamped)
    began = time.perf_counter()
    seen = np.empty((runs, *clock.shape), np.int64)
    for run in range(runs):
        team.run(stamped)
        seen[run] = clock
    second = (seen[-1].max() - seen[0].min()) / (time.perf_counter() - began)
    work, waiting = _times(seen, before, first)
    whole = work.sum(1) + waiting.sum(1)
    # Not the least of each step: where a thread runs both shares of a stretch alone, each is done
    # sooner than beside the other.
    counted = np.argsort(whole)[: max(1, runs // 4)]
    means = (times[counted].mean(0) / second for times in (work, waiting))
    triples = zip(steps, *means, strict=True)
    found = [StepTime(step, float(worked), float(waited)) for step, worked, waited in triples]
    return Trace(found, float(whole[counted].mean() / second))


def _first_rows(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Numbers of the rows with which stretches begin."""
    ends = np.flatnonzero(rows[:-1, _BARRIER])
    return np.concatenate([[0], ends + 1])


def _with_stamps(
    rows: npt.NDArray[np.int64], first: npt.NDArray[np.int64], clock: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The rows with stamps around them, and for each row the number of the stamp before it."""
    address = loader.load(["stamp"])["stamp"]
    begins = np.zeros(len(rows), np.int64)
    begins[first] = 1
    before = np.arange(len(rows)) + np.cumsum(begins) - 1
    number = np.arange(len(rows)) * 2 + np.cumsum(begins)
    result = np.zeros((len(rows) + len(clock), ROW_WORDS), np.int64)
    stamps = np.ones(len(result), bool)
    stamps[number] = False
    result[number] = rows
    result[number + 1, _BARRIER] = rows[:, _BARRIER]
    result[number, _BARRIER] = 0
    result[stamps, 0] = address
    result[stamps, FIRST_ARGUMENT] = clock.ctypes.data + np.arange(len(clock)) * clock.strides[0]
    return result, before


def _times(
    seen: npt.NDArray[np.int64], before: npt.NDArray[np.int64], first: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Ticks of work and of waiting, (runs, rows).

    Args:
        seen: (runs, stamps, threads), what the clock showed.
        before: of each row, the number of the stamp before it; the next one is after it.
        first: the rows with which stretches begin.
    """
    work = (seen[:, before + 1] - seen[:, before]).mean(2)
    starts = seen[:, before[first]].min(2)
    ends = np.concatenate([starts[:, 1:], seen[:, -1].max(1)[:, None]], axis=1)
    waiting = np.zeros_like(work)
    last = np.concatenate([first[1:] - 1, [work.shape[1] - 1]])
    waiting[:, last] = ends - starts - np.add.reduceat(work, first, axis=1)
    return work, waiting
