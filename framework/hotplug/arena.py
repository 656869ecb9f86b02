"""Offsets in one block of memory for values that live at different times.

They are found by two greedy methods, of which the better is kept: best fit in order of time, and
best fit of the largest value first (Pisarchyk and Lee, arXiv 2001.03288).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["ALIGNMENT", "Allocation", "Interval", "allocate", "lower_bound"]

ALIGNMENT = 64
GOOD_ENOUGH = 1.01  # a peak this close to the bound is not worth a second, slower method


@dataclass(frozen=True, slots=True)
class Interval:
    """A block of `size` bytes in use from step `start` to step `end`, both included."""

    size: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Allocation:
    """Byte offsets of intervals in the order given, and the bytes that all of them need."""

    offsets: tuple[int, ...]
    peak: int


def allocate(intervals: Sequence[Interval], alignment: int = ALIGNMENT) -> Allocation:
    """Offsets such that intervals that are in use at the same step do not overlap.

    Args:
        intervals: what to place.
        alignment: bytes; every offset is a multiple of it.
    """
    sizes = [_aligned(interval.size, alignment) for interval in intervals]
    by_time = _best_fit_by_time(intervals, sizes)
    if by_time.peak <= GOOD_ENOUGH * _bound(intervals, sizes):
        return by_time
    by_size = _best_fit_by_size(intervals, sizes)
    return by_size if by_size.peak < by_time.peak else by_time


def lower_bound(intervals: Sequence[Interval], alignment: int = ALIGNMENT) -> int:
    """Bytes in use at the fullest step; no placement can need less."""
    return _bound(intervals, [_aligned(interval.size, alignment) for interval in intervals])


def _aligned(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _bound(intervals: Sequence[Interval], sizes: Sequence[int]) -> int:
    changes: dict[int, int] = {}
    for interval, size in zip(intervals, sizes, strict=True):
        changes[interval.start] = changes.get(interval.start, 0) + size
        changes[interval.end + 1] = changes.get(interval.end + 1, 0) - size
    live = most = 0
    for step in sorted(changes):
        live += changes[step]
        most = max(most, live)
    return most


def _best_fit_by_time(intervals: Sequence[Interval], sizes: Sequence[int]) -> Allocation:
    """In order of start, the larger first: the tightest gap between blocks in use."""
    offsets = [0] * len(intervals)
    busy: list[tuple[int, int, int]] = []  # (offset, end offset, last step), by offset
    peak = step = 0
    for i in sorted(range(len(intervals)), key=lambda i: (intervals[i].start, -sizes[i])):
        interval, size = intervals[i], sizes[i]
        if interval.start != step:
            step = interval.start
            busy = [block for block in busy if block[2] >= step]
        offsets[i] = _tightest_gap(busy, size)
        if size:
            insort(busy, (offsets[i], offsets[i] + size, interval.end))
            peak = max(peak, offsets[i] + size)
    return Allocation(tuple(offsets), peak)


def _best_fit_by_size(intervals: Sequence[Interval], sizes: Sequence[int]) -> Allocation:
    """In order of size, the largest first: the tightest gap between placed blocks it meets."""
    count = len(intervals)
    offsets = [0] * count
    # The placed blocks, by offset: begin, end, first step, last step.
    placed = np.empty((4, count), np.int64)
    order = sorted(range(count), key=lambda i: (-sizes[i], intervals[i].start))
    for known, i in enumerate(order):
        start, end = intervals[i].start, intervals[i].end
        blocks = placed[:, :known]
        met = blocks[:2, (blocks[2] <= end) & (blocks[3] >= start)]
        offset = offsets[i] = _tightest_gap_of(met[0], met[1], sizes[i])
        at = int(np.searchsorted(blocks[0], offset))
        placed[:, at + 1 : known + 1] = placed[:, at:known].copy()
        placed[:, at] = (offset, offset + sizes[i], start, end)
    peak = max((o + size for o, size in zip(offsets, sizes, strict=True)), default=0)
    return Allocation(tuple(offsets), peak)


def _tightest_gap_of(begins: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], size: int) -> int:
    """`_tightest_gap` for many blocks at once."""
    if not begins.size:
        return 0
    reached = np.maximum.accumulate(ends)
    before = np.concatenate(([0], reached[:-1]))
    gaps = begins - before
    fitting = np.flatnonzero(gaps >= size)
    if not fitting.size:
        return int(reached[-1])
    return int(before[fitting[np.argmin(gaps[fitting])]])


def _tightest_gap(blocks: Iterable[tuple[int, ...]], size: int) -> int:
    """Offset of the smallest gap of at least `size` among blocks sorted by offset, or their end."""
    found = -1
    tightest = end = 0
    for block in blocks:
        gap = block[0] - end
        if gap >= size and (found < 0 or gap < tightest):
            found, tightest = end, gap
        end = max(end, block[1])
    return end if found < 0 else found
