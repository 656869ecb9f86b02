"""The loop that runs a plan: all threads walk its rows together, a barrier after each.

A plan is rows of `ROW_WORDS` words, see the catalogue. The second word of a row says how many
threads take part in it: 1 for a row too small to share, which the first thread does alone while
the others go on to the barrier.
"""

from __future__ import annotations

from numba import njit

from hotplug_cpu.jit.simd import (
    atomic_add,
    atomic_load,
    call_kernel,
    pause,
    word,
)

__all__ = ["KERNELS"]


@njit
def walk(plan: int, rows: int, thread: int, threads: int, arrivals: int, row_bytes: int) -> int:
    """Run `rows` rows as one of `threads` threads.

    Args:
        plan: address of the first row.
        rows: their number.
        thread: which of the threads this is, from 0.
        threads: how many walk this plan.
        arrivals: address of a word that is zero at the start; threads count in it how often they
            came to a barrier. It should have a cache line of its own.
        row_bytes: from one row to the next.

    Returns:
        The number of rows.
    """
    goal = 0
    for index in range(rows):
        row = plan + index * row_bytes
        call_kernel(word(row, 0), row, thread, threads)
        if threads > 1:
            goal += threads
            if atomic_add(arrivals, 1) + 1 < goal:
                while atomic_load(arrivals) < goal:
                    pause()
    return rows


KERNELS = {"walk": walk}
