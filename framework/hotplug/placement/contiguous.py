"""The best assignment in which each device with a budget gets one run of segments.

That is how large models are spread as a rule: a device is entered once, filled, and left. It is
found by dynamic programming over the cuts and the devices used up so far; those without a budget
may come again. Where more than a few devices have one, they come in order of preference only.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hotplug.placement.expand import UNMADE, Expander, Way
from hotplug.placement.problem import Problem
from hotplug.placement.relax import Ways, ways_between
from hotplug.placement.segments import Segment, with_needs

__all__ = ["contiguous"]

_ANY_ORDER = 4
"""So many devices with budgets are tried in every order."""


@dataclass(frozen=True, slots=True)
class _Stand:
    """The best way to a cut: what it takes, and where its last run began."""

    seconds: float
    begun: int = 0
    used: int = 0
    device: int = UNMADE


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
        self._stands: dict[tuple[int, int], list[_Stand]] = {}
        self._starts = {
            device: self._prefix(device) for device in range(self._count)
        }  # seconds of all pieces before each cut, and the bytes

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

    def _prefix(self, device: int) -> tuple[list[float], list[int]]:
        seconds, nbytes = [0.0], [0]
        slot = self._budgeted.index(device) if device in self._budgeted else None
        for table in self._ways:
            way = self._staying(table, device)
            seconds.append(seconds[-1] + (way.seconds if way else 0.0))
            nbytes.append(nbytes[-1] + (way.memory[slot] if way and slot is not None else 0))
        return seconds, nbytes

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
        ends = [(stands[-1].seconds, key) for key, stands in self._stands.items()]
        seconds, key = min(ends, default=(math.inf, (0, 0)))
        return None if seconds == math.inf else self._path(key)

    def _before(self, used: int, slot: int, *, whole: bool) -> list[int]:
        """What may have been used before a device, so that `used` is what has been with it."""
        if whole:
            return [used & ~(1 << slot)] if used >> slot & 1 else []
        return list(range(slot + 1)) if used == slot + 1 else []

    def _run(self, slot: int, device: int, befores: Sequence[int]) -> list[_Stand]:
        """The best ways that end on a device after one run of pieces there."""
        seconds, nbytes = self._starts[device]
        found = [_Stand(math.inf)]
        window: deque[tuple[float, _Stand]] = deque()  # run begun at -> best first
        for cut in range(1, self._cuts + 1):
            if self._staying(self._ways[cut - 1], device) is None:  # no run leads through here
                window.clear()
                found.append(_Stand(math.inf))
                continue
            entered = self._entered(cut - 1, device, befores)
            value = entered.seconds - seconds[cut]  # its first piece is counted already
            while window and window[-1][0] >= value:
                window.pop()
            window.append((value, entered))
            while window and nbytes[cut] - nbytes[window[0][1].begun] > self._room[slot]:
                window.popleft()
            if window:
                stand = window[0][1]
                found.append(replace(stand, seconds=window[0][0] + seconds[cut]))
            else:
                found.append(_Stand(math.inf))
        return found

    def _entered(self, cut: int, device: int, befores: Sequence[int]) -> _Stand:
        """The best way that has done one piece on a device, having come from another."""
        best = _Stand(math.inf, cut)
        table = self._ways[cut]
        if not cut:
            way = table.get((UNMADE, device))
            return best if way is None else _Stand(way.seconds, 0, 0, UNMADE)
        for used in befores:
            for other in range(self._count):
                stands = self._stands.get((used, other))
                way = table.get((other, device))
                if stands is None or way is None or other == device:
                    continue
                seconds = stands[cut].seconds + way.seconds
                if seconds < best.seconds:
                    best = _Stand(seconds, cut, used, other)
        return best

    def _roam(self, used: int) -> None:
        """Ways that end on a device without a budget, where they may have been before."""
        for device in self._free:
            self._stands[used, device] = [_Stand(math.inf)]
        for cut in range(1, self._cuts + 1):
            made = {}
            for device in self._free:
                best = self._entered(cut - 1, device, (used,))
                way = self._ways[cut - 1].get((device, device))
                before = self._stands[used, device][cut - 1]
                if way is not None and before.seconds + way.seconds <= best.seconds:
                    best = replace(before, seconds=before.seconds + way.seconds)
                made[device] = best
            for device, stand in made.items():
                self._stands[used, device].append(stand)

    def _path(self, key: tuple[int, int]) -> list[int]:
        cut, pieces = self._cuts, []
        used, device = key
        while cut:
            stand = self._stands[used, device][cut]
            for number in reversed(range(stand.begun, cut)):
                entry = device if number > stand.begun else stand.device
                pieces.append(self._ways[number][entry, device].path())
            cut, used, device = stand.begun, stand.used, stand.device
        return [at for piece in reversed(pieces) for at in piece]
