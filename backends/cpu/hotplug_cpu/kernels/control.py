"""Words that a team of threads shares, by index; what is written often has a cache line alone."""

from __future__ import annotations

__all__ = [
    "ARRIVALS", "DONE", "GENERATION", "GOAL", "PARKED", "PLAN", "ROWS", "SEEN", "STOP", "THREADS",
    "THREAD_WORDS", "WAKE", "YIELD", "control_words",
]  # fmt: skip

GENERATION = 0
"""How many plans were posted."""

ARRIVALS = 16
"""How often threads came to a barrier, ever."""

PLAN, ROWS = 32, 33
"""Address and number of rows of the plan posted last."""

GOAL = 34
"""What ARRIVALS was when the plan before was done."""

DONE = 35
"""The last generation in which the leader took part."""

THREADS = 36
"""Threads of the team."""

YIELD = 37
"""Address of a C function that lets others run, or 0."""

STOP = 38
"""Not 0 if threads are to end."""

WAKE = 39
"""How many threads are to be woken."""

PARKED, SEEN = 48, 49
"""Words of thread 0; those of thread n lie n * THREAD_WORDS further. See `walk`."""

THREAD_WORDS = 16


def control_words(threads: int) -> int:
    """Length of the block for a team."""
    return PARKED + threads * THREAD_WORDS
