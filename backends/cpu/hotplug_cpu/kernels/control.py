"""Words that a team of threads shares, by index; what is written often has a cache line alone."""

from __future__ import annotations

__all__ = [
    "BASE", "CLAIMED", "DONE", "FINISHED", "GOAL", "LEAVE", "LEFT", "PARKED", "PATIENCE", "PLAN",
    "ROWS", "RUNNER", "STOP", "THREADS", "THREAD_WORDS", "WAKE", "YIELD", "control_words",
]  # fmt: skip

DONE = 0
"""How many shares of stretches were run, ever."""

GOAL = 16
"""What DONE is when all that was posted is done."""

PLAN, ROWS = 32, 33
"""Address and number of rows of the plan posted last."""

BASE = 34
"""The number of its first stretch."""

THREADS = 36
"""Threads of the team, and shares of a stretch."""

YIELD = 37
"""Address of a C function that lets others run, or 0."""

STOP = 38
"""Not 0 if threads are to end."""

WAKE = 39
"""How many threads are to be woken."""

PATIENCE = 40
"""Ticks that a thread waits before it takes another to be held up."""

LEFT = 2
"""What `serve` returns when a thread is to stay away for a while."""

PARKED, CLAIMED, FINISHED, RUNNER, LEAVE = 48, 49, 50, 51, 52
"""Words of thread 0, and of share 0; those of number n lie n * THREAD_WORDS further. See `walk`."""

THREAD_WORDS = 16


def control_words(threads: int) -> int:
    """Length of the block for a team."""
    return PARKED + threads * THREAD_WORDS
