"""All sensible ways through one segment: from what stands before it to what stands behind.

A way is grown step by step. Of two that stand at the same step, one is dropped if the other could
take its place, all that this needs copied, and be no dearer and take no more memory: nothing that
follows can make up for it.

Outside values cost nothing here. A way tells which devices it wants them on; whoever joins it to
others knows where they are. So ways do not depend on that, and serve many entries.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from hotplug.placement.problem import Matrix
from hotplug.placement.segments import Pattern, PatternStep

__all__ = ["UNMADE", "Expander", "State", "Way", "transfer"]

State = tuple[int, ...]
"""The last step's device, then for each item where it is: devices as bits, for values with the
device that made it above them; for ties the device. UNMADE where that is not decided yet."""

UNMADE = -1

_RIVALS = 6
"""Ways that each is compared with: the cheapest drop nearly all that can be dropped."""

_MOST = 512
"""Ways kept at a step; where there were more, the cheapest."""


class Way(NamedTuple):
    """A way through a segment, or the start of one.

    Attributes:
        state: what stands behind it.
        seconds: what it takes.
        memory: bytes by device, of those that have a budget.
        devices: of its steps, the last one first, nested.
    """

    state: State
    seconds: float
    memory: tuple[int, ...]
    devices: tuple[object, ...] = ()

    def path(self) -> list[int]:
        """Devices of its steps in order."""
        found: list[int] = []
        nested = self.devices
        while nested:
            found.append(nested[1])  # type: ignore[arg-type]
            nested = nested[0]  # type: ignore[assignment]
        return found[::-1]


class Expander:
    """Finds the ways through patterns, each pair of pattern and entry once.

    Attributes:
        exact: False once ways had to be dropped that might have been better.
        budgeted: devices whose memory is counted.
    """

    def __init__(self, launch: Sequence[float], budgeted: Sequence[int]) -> None:
        """Set out.

        Args:
            launch: by device, seconds of beginning there.
            budgeted: devices whose memory is counted.
        """
        self.exact = True
        self.budgeted = tuple(budgeted)
        self._launch = launch
        self._count = len(launch)
        self._slots = {device: slot for slot, device in enumerate(budgeted)}
        self._nothing = (0,) * len(self._slots)
        # The pattern is kept, so that no other can have its identity.
        self._known: dict[tuple[int, State], tuple[Pattern, list[Way]]] = {}

    def ways(self, pattern: Pattern, entry: State) -> list[Way]:
        """Ways from an entry, their memory and seconds counted from there."""
        key = id(pattern), entry
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = pattern, self._find(pattern, entry)
        return found[1]

    def _find(self, pattern: Pattern, entry: State) -> list[Way]:
        begin = Way(entry, 0.0, self._nothing)
        if _choices(pattern) <= _FREE_CHOICES:
            return self._grow(pattern, begin, None)
        self.exact = False
        found: list[Way] = []
        for homes in self._homes(pattern, entry[0]):
            found += self._grow(pattern, begin, homes)
        return prune(found, pattern, self._launch)

    def candidates(self, pattern: Pattern, entry: int) -> Sequence[int]:
        """Devices that a segment may be on: where steps can be on one only, there or where it was.

        To move between two such devices by way of a third one costs copies and gains little.
        """
        forced = {_only(step) for step in pattern.steps} - {UNMADE}
        return sorted({entry, *forced} - {UNMADE}) if forced else range(self._count)

    def _homes(self, pattern: Pattern, entry: int) -> Iterable[tuple[int, int]]:
        """Devices for steps of states and for all others: two, where the one lacks memory."""
        apart = any(step.tie >= 0 for step in pattern.steps)
        for home in self.candidates(pattern, entry):
            yield home, home
            for states in range(self._count) if apart and home in self._slots else ():
                if states not in self._slots:
                    yield states, home

    def _grow(self, pattern: Pattern, begin: Way, homes: tuple[int, int] | None) -> list[Way]:
        ways = [begin]
        for step in pattern.steps:
            grown: dict[tuple[State, tuple[int, ...]], Way] = {}
            allowed = _allowed(step, homes)
            for way in ways:
                tied = way.state[step.tie + 1] if step.tie >= 0 else UNMADE
                for device in allowed if tied == UNMADE else (tied,):
                    if step.seconds[device] < math.inf:
                        self._keep(grown, self._advance(pattern, step, way, device))
            ways = list(grown.values())
            if len(ways) > 1:
                ways = prune(ways, pattern, self._launch)
            if len(ways) > _MOST:
                self.exact = False
                ways = ways[:_MOST]
        return ways

    def _keep(self, grown: dict[tuple[State, tuple[int, ...]], Way], way: Way) -> None:
        key = way.state, way.memory
        held = grown.get(key)
        if held is None or way.seconds < held.seconds:
            grown[key] = way

    def _advance(self, pattern: Pattern, step: PatternStep, way: Way, device: int) -> Way:
        state = list(way.state)
        bit = 1 << device
        seconds = way.seconds + step.seconds[device]
        if state[0] != device:
            seconds += self._launch[device]
            state[0] = device
        for item in step.reads:
            if not state[item + 1] & bit:
                seconds += pattern.crossing[item][state[item + 1] >> self._count][device]
                state[item + 1] |= bit
        for item in step.brings:
            state[item + 1] |= bit
        need = step.need
        for item in step.shares if device in self._slots else ():
            if not state[item + 1] & bit:
                need += int(pattern.amounts[item][0])
                state[item + 1] |= bit
        if step.tie >= 0:
            state[step.tie + 1] = device
        if step.makes >= 0:
            state[step.makes + 1] = device << self._count | bit
        for item in step.ends:
            state[item + 1] = UNMADE
        return Way(tuple(state), seconds, self._taken(way, device, need), (way.devices, device))

    def _taken(self, way: Way, device: int, need: int) -> tuple[int, ...]:
        slot = self._slots.get(device)
        if slot is None or not need:
            return way.memory
        return (*way.memory[:slot], way.memory[slot] + need, *way.memory[slot + 1 :])


_FREE_CHOICES = 300
"""A segment's steps are placed one by one where there are no more ways to do so than this. Else it
stays together but for what its device does not run, and for states, which may be apart."""


def _only(step: PatternStep) -> int:
    """The one device that runs a step, or UNMADE where there are more."""
    able = [device for device, seconds in enumerate(step.seconds) if seconds < math.inf]
    return able[0] if len(able) == 1 else UNMADE


def _choices(pattern: Pattern) -> int:
    return math.prod([sum(s < math.inf for s in step.seconds) for step in pattern.steps])


def _allowed(step: PatternStep, homes: tuple[int, int] | None) -> Sequence[int]:
    if homes is not None:
        home = homes[0] if step.tie >= 0 else homes[1]
        if step.seconds[home] < math.inf:
            return (home,)
    return range(len(step.seconds))


class Described(Protocol):
    """Items as a pattern describes them."""

    @property
    def kinds(self) -> Sequence[str]:
        """Of each item, what it is."""

    @property
    def crossing(self) -> Sequence[Matrix]:
        """Of each value, the seconds between devices."""

    @property
    def amounts(self) -> Sequence[tuple[float, ...]]:
        """Of each outside value, the seconds to each device."""


class Standing(Protocol):
    """Something that stands at a step: a way, or a label."""

    @property
    def state(self) -> State:
        """What is where."""

    @property
    def seconds(self) -> float:
        """What it took to get here."""

    @property
    def memory(self) -> tuple[int, ...]:
        """Bytes taken."""


S = TypeVar("S", bound=Standing)


def prune(standing: Iterable[S], items: Described, launch: Sequence[float]) -> list[S]:
    """Drop those that others could take the place of; the cheapest come first."""
    kept: list[S] = []
    for way in sorted(standing, key=operator.attrgetter("seconds")):
        for rival in kept[:_RIVALS]:
            spare = way.seconds - rival.seconds
            if rival.memory and any(map(operator.gt, rival.memory, way.memory)):
                continue
            if transfer(rival.state, way.state, items, launch, spare):
                break
        else:
            kept.append(way)
    return kept


def transfer(
    source: State, target: State, items: Described, launch: Sequence[float], spare: float
) -> bool:
    """Whether standing at `source` instead of at `target` can cost no more than `spare` later."""
    if source[0] != target[0]:
        spare -= math.inf if target[0] == UNMADE else launch[target[0]]
    if spare < 0:
        return False
    count = len(launch)
    everywhere = (1 << count) - 1
    for place, (here, there) in enumerate(zip(source[1:], target[1:], strict=True)):
        if here == there:
            continue
        kind = items.kinds[place]
        if kind == "tie" or here == UNMADE or there == UNMADE:
            return False
        missing = there & ~here & everywhere
        if kind == "weight":
            if missing:
                return False
            continue
        if kind == "outside":  # the one may have to pay for what the other does not want
            missing = here & ~there
        outside = kind in {"outside", "present"}
        row = items.amounts[place] if outside else items.crossing[place][here >> count]
        spare -= sum([row[device] for device in range(count) if missing >> device & 1])
        if kind == "value" and here >> count != there >> count:
            far, absent = items.crossing[place][there >> count], ~(here | there) & everywhere
            spare -= max([row[d] - far[d] for d in range(count) if absent >> d & 1] + [0.0])
        if spare < 0:
            return False
    return True
