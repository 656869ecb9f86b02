"""How values are cut in pieces for several devices: what stays cut, and where the cuts are.

A value is *whole*; or *split* along an axis, each device with a run of it; or *partial*, each
device with a whole tensor of which the sum is meant. Axes that must be cut at the same places, as
fractions of their lengths, are in one *group*. A group has so many units as all its axes can be cut
in: 8 heads of 64 elements each are 8 units, whatever the length of the axis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

__all__ = ["WHOLE", "Cut", "Groups", "Piece", "Spec"]


@dataclass(frozen=True, slots=True)
class Spec:
    """In what form a value is there.

    Attributes:
        group: the group that says where it is cut; -1 for whole values.
        axis: the axis that is split; -1 for partial values.
    """

    group: int = -1
    axis: int = -1

    @property
    def whole(self) -> bool:
        """Whether it is in one piece."""
        return self.group < 0

    @property
    def partial(self) -> bool:
        """Whether its pieces must be added."""
        return self.group >= 0 and self.axis < 0


WHOLE = Spec()


@dataclass(frozen=True, slots=True)
class Piece:
    """A device's part of a group, in units.

    Attributes:
        device: its id.
        start: first unit.
        stop: the unit behind the last.
        units: of the group.
    """

    device: str
    start: int
    stop: int
    units: int

    def range(self, length: int) -> tuple[int, int]:
        """The part of an axis of some length."""
        return self.start * length // self.units, self.stop * length // self.units


@dataclass(frozen=True, slots=True)
class Cut:
    """A piece of a weight or state.

    Attributes:
        origin: name of the whole.
        axis: along which it is cut.
        start: first element of the axis.
        stop: the element behind the last.
    """

    origin: str
    axis: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """What the piece is called: it says what it holds, so that other cuts do not clash."""
        return f"{self.origin}[{':, ' * self.axis}{self.start}:{self.stop}]"


class Groups:
    """Groups of axes, joined as it turns out that they must be cut alike."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._units: list[int] = []

    def new(self, units: int) -> int:
        """A group of an axis that can be cut in so many units."""
        self._parent.append(len(self._parent))
        self._units.append(units)
        return len(self._parent) - 1

    def root(self, group: int) -> int:
        """The one number that all groups joined with this one share."""
        while self._parent[group] != group:
            group = self._parent[group]
        return group

    def limit(self, group: int, units: int) -> None:
        """Another axis of the group can be cut in so many units, and not between them."""
        root = self.root(group)
        self._units[root] = math.gcd(self._units[root], units)

    def join(self, first: int, second: int) -> None:
        """The axes of two groups must be cut alike."""
        first, second = self.root(first), self.root(second)
        if first != second:
            self._parent[second] = first
            self.limit(first, self._units[second])

    def units(self, group: int) -> int:
        """In how many units all axes of a group can be cut."""
        return self._units[self.root(group)]

    def pieces(self, group: int, shares: Mapping[str, float]) -> tuple[Piece, ...]:
        """A group's units divided among devices; one that would get none is left out.

        Args:
            group: any of the group's numbers.
            shares: device -> how much of the whole it should get, in any unit.
        """
        units = self.units(group)
        counts = _divided(units, list(shares.values()))
        bounds = list(accumulate(counts, initial=0))
        return tuple(
            Piece(device, start, stop, units)
            for device, (start, stop) in zip(shares, pairwise(bounds), strict=True)
            if stop > start
        )


def _divided(units: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers as near to the shares as may be, by largest remainders."""
    total = sum(shares)
    exact = [units * share / total for share in shares]
    counts = [int(value) for value in exact]
    by_rest = sorted(range(len(shares)), key=lambda n: (counts[n] - exact[n], n))
    for n in by_rest[: units - sum(counts)]:
        counts[n] += 1
    return counts
