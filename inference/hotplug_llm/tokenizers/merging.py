"""Merging neighbours, best pair first: what BPE and SentencePiece have in common."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

__all__ = ["merge_pairs"]

Priority = Callable[[str, str], float | None]

_END = -1


class _Chain:
    """Symbols as a doubly linked list, so that a merge costs no shifting."""

    def __init__(self, symbols: Sequence[str]) -> None:
        count = len(symbols)
        self.texts = list(symbols)
        self.before = list(range(-1, count - 1))
        self.after = [*range(1, count), _END]

    def absorb(self, left: int, right: int) -> None:
        """Append symbol `right` to its neighbour `left`; `right` becomes empty."""
        self.texts[left] += self.texts[right]
        self.texts[right] = ""
        follower = self.after[right]
        self.after[left] = follower
        if follower != _END:
            self.before[follower] = left

    def remaining(self) -> list[str]:
        """The symbols that are left, in order."""
        return [text for text in self.texts if text]


def merge_pairs(symbols: Sequence[str], priority: Priority) -> list[str]:
    """Merge neighbouring symbols until no pair may be merged.

    The pair with the lowest priority goes first, of equal ones the leftmost. A heap over a linked
    list keeps the cost at O(n log n) for n symbols, where rescanning for each merge is quadratic.

    Args:
        symbols: non-empty strings.
        priority: of a pair (left, right), or None if it is not to be merged.

    Returns:
        The merged symbols; joined, they are the same text.
    """
    chain = _Chain(symbols)
    heap: list[tuple[float, int, int, int]] = []

    def offer(left: int, right: int) -> None:
        first, second = chain.texts[left], chain.texts[right]
        rank = priority(first, second)
        if rank is not None:
            heapq.heappush(heap, (rank, left, right, len(first) + len(second)))

    for left in range(len(symbols) - 1):
        offer(left, left + 1)
    while heap:
        _, left, right, length = heapq.heappop(heap)
        first, second = chain.texts[left], chain.texts[right]
        # Symbols only grow, or empty when absorbed: a pair of another length is out of date.
        if not first or not second or len(first) + len(second) != length:
            continue
        chain.absorb(left, right)
        if chain.before[left] != _END:
            offer(chain.before[left], left)
        if chain.after[left] != _END:
            offer(left, chain.after[left])
    return chain.remaining()
