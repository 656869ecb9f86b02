"""The best assignment in which each device with a budget gets one run of segments.

That is how large models are spread as a rule: a device is entered once, filled, and left. It is
found by dynamic programming over the cuts and the devices used up so far; those without a budget
may come again. Where more than a few devices have one, they come in order of preference only.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from hotplug.placement.expand import UNMADE, Expander, Way
from hotplug.placement.problem import Problem
from hotplug.placement.relax import Ways, ways_between
from hotplug.placement.segments import Segment, with_needs

__all__ = ["contiguous"]

_ANY_ORDER = 4
"""So many devices with budgets are tried in every order."""


class _Stands(NamedTuple):
    """The best ways to each cut: what they take, and where their last runs began.

    Attributes:
        seconds: infinite where there is none.
        begun: the cut at which the last run began.
        used: which devices had been used up before.
        device: the one that was left for it.
    """

    seconds: list[float]
    begun: list[int]
    used: list[int]
    device: list[int]

    def add(self, seconds: float, begun: int, used: int, device: int) -> None:
        """The best way to the next cut."""
        self.seconds.append(seconds)
        self.begun.append(begun)
        self.used.append(used)
        self.device.append(device)

    @classmethod
    def new(cls) -> _Stands:
        """Of the first cut, where nothing has been run."""
        return cls([math.inf], [0], [0], [UNMADE])


def contiguous(
    problem: Problem, pieces: Sequence[Segment], budgeted: Sequence[int], expander: Expander
) -> list[int] | None:
    """Devices of all steps, or None where no such assignment is found.

    Memory is counted on the safe side: a weight of several steps counts for each of them.

    Args:
        problem: what to solve.
        pieces: it, cut.
        budgeted: devices whose memory is limited.
        expander: finds the ways through pieces.
    """
    needs = {
        number: sum(problem.shared[weight] for weight in step.shares)
        for number, step in enumerate(problem.steps)
        if step.shares
    }
    ways = ways_between(with_needs(pieces, needs), expander, problem.devices)
    return _Runs(problem, budgeted, ways).best()


class _Runs:
    def __init__(self, problem: Problem, budgeted: Sequence[int], ways: Sequence[Ways]) -> None:
        self._count = problem.devices
        self._budgeted = list(budgeted)
        self._free = [d for d in range(self._count) if d not in budgeted]
        self._room = [problem.budgets[d] for d in budgeted]
        self._cuts = len(ways)
        tables = {id(each): self._table(each) for each in ways}
        self._ways = [tables[id(each)] for each in ways]
        self._stands: dict[tuple[int, int], _Stands] = {}
        self._into = {
            (source, target): np.array(
                [
                    way.seconds if (way := table.get((source, target))) else math.inf
                    for table in self._ways
                ]
            )
            for source in range(self._count)
            for target in range(self._count)
            if source != target
        }  # seconds of each piece on a device for whoever comes from another
        self._starts = {
            device: self._prefix(device) for device in range(self._count)
        }  # seconds of all pieces before each cut, the bytes, and whether one can stay

    def _table(self, ways: Ways) -> dict[tuple[int, int], Way]:
        """(from, to) -> the fastest way that stays on its last device, but for what that cannot."""
        found: dict[tuple[int, int], Way] = {}
        for entry, each in ways.items():
            for way in each:
                key = entry, way.state[0]
                if key not in found or self._rank(way) < self._rank(found[key]):
                    found[key] = way
        return found

    def _rank(self, way: Way) -> tuple[int, float]:
        """Fewest bytes on other devices with budgets, then least time."""
        at = way.state[0]
        elsewhere = sum(b for d, b in zip(self._budgeted, way.memory, strict=True) if d != at)
        return elsewhere, way.seconds

    def _prefix(self, device: int) -> tuple[list[float], list[int], list[bool]]:
        ways = [self._staying(table, device) for table in self._ways]
        seconds = accumulate((way.seconds if way else 0.0 for way in ways), initial=0.0)
        slot = self._budgeted.index(device) if device in self._budgeted else None
        sizes = (way.memory[slot] if way and slot is not None else 0 for way in ways)
        stays = [way is not None for way in ways]
        return list(seconds), list(accumulate(sizes, initial=0)), stays

    def _staying(self, table: Mapping[tuple[int, int], Way], device: int) -> Way | None:
        return table.get((device, device)) or table.get((UNMADE, device))

    def best(self) -> list[int] | None:
        """Devices of all steps."""
        whole = len(self._budgeted) <= _ANY_ORDER
        sets = range(1 << len(self._budgeted)) if whole else range(len(self._budgeted) + 1)
        for used in sets:
            for slot, device in enumerate(self._budgeted):
                before = self._before(used, slot, whole=whole)
                if before:
                    self._stands[used, device] = self._run(slot, device, before)
            self._roam(used)
        ends = [(stands.seconds[-1], key) for key, stands in self._stands.items()]
        seconds, key = min(ends, default=(math.inf, (0, 0)))
        return None if seconds == math.inf else self._path(key)

    def _before(self, used: int, slot: int, *, whole: bool) -> list[int]:
        """What may have been used before a device, so that `used` is what has been with it."""
        if whole:
            return [used & ~(1 << slot)] if used >> slot & 1 else []
        return list(range(slot + 1)) if used == slot + 1 else []

    def _run(self, slot: int, device: int, befores: Sequence[int]) -> _Stands:
        """The best ways that end on a device after one run of pieces there."""
        seconds, nbytes, stays = self._starts[device]
        found = _Stands.new()
        window: deque[tuple[float, int, int, int]] = deque()  # runs begun, the best first
        for cut, (least, used, other) in enumerate(self._entered(device, befores)):
            if not stays[cut]:  # no run leads through here
                window.clear()
            else:
                value = least - seconds[cut + 1]  # its first piece is counted already
                while window and window[-1][0] >= value:
                    window.pop()
                window.append((value, cut, used, other))
                while window and nbytes[cut + 1] - nbytes[window[0][1]] > self._room[slot]:
                    window.popleft()
            if window:
                value, *begun = window[0]
                found.add(value + seconds[cut + 1], *begun)
            else:
                found.add(math.inf, cut, 0, UNMADE)
        return found

    def _entered(self, device: int, befores: Sequence[int]) -> list[tuple[float, int, int]]:
        """For each piece the best way that has done it on a device, having come from another.

        Seconds; what had been used up, and the device one comes from.
        """
        origins = [
            (used, other)
            for used in befores
            for other in range(self._count)
            if other != device and (used, other) in self._stands
        ]
        found = [(math.inf, 0, UNMADE)] * self._cuts
        if origins:
            ways = np.array([self._stands[key].seconds[:-1] for key in origins])
            ways += [self._into[other, device] for _, other in origins]
            best = ways.argmin(axis=0).tolist()
            least = ways.min(axis=0).tolist()
            found = [(value, *origins[row]) for value, row in zip(least, best, strict=True)]
        first = self._ways[0].get((UNMADE, device))
        found[0] = math.inf if first is None else first.seconds, 0, UNMADE
        return found

    def _roam(self, used: int) -> None:
        """Ways that end on a device without a budget, where they may have been before."""
        entered = {device: self._entered(device, (used,)) for device in self._free}
        made = {device: _Stands.new() for device in self._free}
        for cut, table in enumerate(self._ways):
            for device, stands in made.items():
                least, before, other = entered[device][cut]
                for source, there in made.items() if cut else ():
                    if source != device:
                        seconds = there.seconds[cut] + self._into[source, device][cut]
                        if (seconds, source) < (least, other):
                            least, before, other = float(seconds), used, source
                way = table.get((device, device))
                stay = stands.seconds[cut] + way.seconds if way else math.inf
                if stay <= least:
                    begun = stands.begun[cut], stands.used[cut], stands.device[cut]
                    stands.add(stay, *begun)
                else:
                    stands.add(least, cut, before, other)
        self._stands.update({(used, device): stands for device, stands in made.items()})

    def _path(self, key: tuple[int, int]) -> list[int]:
        cut, pieces = self._cuts, []
        used, device = key
        while cut:
            stands = self._stands[used, device]
            begun, source = stands.begun[cut], stands.device[cut]
            for number in reversed(range(begun, cut)):
                entry = device if number > begun else source
                pieces.append(self._ways[number][entry, device].path())
            cut, used, device = begun, stands.used[cut], source
        return [at for piece in reversed(pieces) for at in piece]
