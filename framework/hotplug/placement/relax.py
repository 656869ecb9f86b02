"""A bound from below: the problem with prices instead of memory budgets (Lagrangian relaxation).

Going backwards over the cuts, the least that what follows can take, memory paid for at so much a
byte, is a bound for every assignment that keeps the budgets; the best prices give the best bound.
They are found by subgradient steps of Polyak's length (doi:10.1016/0041-5553(69)90061-5), from
those that were right if all bytes were alike. A weight of several steps is paid for by one of them,
so that no piece depends on what went before but for the device that it is entered from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hotplug.placement.expand import UNMADE, Expander, State, Way
from hotplug.placement.problem import Problem
from hotplug.placement.segments import Item, Segment, with_needs

__all__ = ["Bound", "Relaxed", "Ways", "ways_between"]

_ROUNDS = 10
_CLOSE = 1e-3
"""No more rounds where the bound is as near to a known assignment as this."""

_Exits = list[tuple[int, float, Way]]
"""Devices of the last step; what the cheapest way to get there takes and pays, and that way."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What is left to pay at least.

    Attributes:
        prices: seconds a byte, by budgeted device.
        left: for each cut, by device of the step before it, seconds and price of what follows.
        least: no assignment that keeps the budgets takes less than this.
    """

    prices: tuple[float, ...]
    left: tuple[Mapping[int, float], ...]
    least: float

    def paid(self, way: Way) -> float:
        """Seconds of a way, its memory paid for."""
        cost = way.seconds
        for price, nbytes in zip(self.prices, way.memory, strict=True):
            cost += price * nbytes
        return cost


Ways = Mapping[int, list[Way]]
"""By device that a piece is entered from, the ways through it."""


def ways_between(pieces: Sequence[Segment], expander: Expander, devices: int) -> list[Ways]:
    """Ways through each piece by the device it is entered from, all else being where it is wanted.

    Pieces of one pattern share theirs.
    """
    found: list[Ways] = []
    carried = set[Item]()
    known: dict[tuple[object, ...], tuple[Ways, frozenset[int]]] = {}
    entries = frozenset({UNMADE})
    for number, piece in enumerate(pieces):
        inside = tuple([item in carried for item in piece.items])
        if number:  # whoever is on a device may stay there
            entries |= frozenset(expander.candidates(piece.pattern, UNMADE))
        key = id(piece.pattern), inside, entries
        if key not in known:
            through = {
                entry: expander.ways(piece.pattern, _easiest(entry, piece, inside, devices))
                for entry in entries
            }
            exits = frozenset([way.state[0] for each in through.values() for way in each])
            known[key] = through, exits
        ways, entries = known[key]
        found.append(ways)
        carried = set(piece.carried)
    return found


def _easiest(entry: int, piece: Segment, carried: Sequence[bool], devices: int) -> State:
    """An entry that is no worse than any other from the same device."""
    state = [entry]
    for place, ((kind, _), known) in enumerate(zip(piece.items, carried, strict=True)):
        if kind == "outside":
            state.append(0)
        elif not known:
            state.append(0 if kind == "weight" else UNMADE)
        elif place == piece.pattern.stream:
            state.append(entry << devices | 1 << entry)
        else:
            state.append(UNMADE if kind == "tie" else (1 << devices) - 1)
    return tuple(state)


class Relaxed:
    """A problem without budgets, to be solved again and again at other prices."""

    def __init__(
        self,
        problem: Problem,
        pieces: Sequence[Segment],
        budgeted: tuple[int, ...],
        expander: Expander,
    ) -> None:
        """Set out.

        Args:
            problem: the whole problem.
            pieces: it, cut.
            budgeted: devices whose memory is limited.
            expander: finds the ways through pieces.
        """
        self._problem = problem
        needs = _one_pays(problem)
        self._total = sum(step.need for step in problem.steps) + sum(needs.values())
        self._budgeted = budgeted
        self._room = tuple(problem.budgets[device] for device in budgeted)
        self._ways = ways_between(with_needs(pieces, needs), expander, problem.devices)
        self._tables = {id(ways): _Table(ways) for ways in self._ways}

    def free(self) -> tuple[Bound, list[int]]:
        """The bound where memory costs nothing, and the devices of the way that has it.

        The way is the best one but for what outside values and shared weights cost.
        """
        bound, ways = self._backward((0.0,) * len(self._room))
        return bound, [device for way in ways for device in way.path()]

    def best_bound(self, known: float) -> Bound:
        """By better and better prices, from those on that were right if all bytes were alike.

        Args:
            known: what an assignment that keeps the budgets takes, or a guess at it.
        """
        prices, reach = self._first_prices(), 0.8
        best = Bound(prices, (), -math.inf)
        for _ in range(_ROUNDS):
            bound, ways = self._backward(prices)
            used = [sum([way.memory[slot] for way in ways]) for slot in range(len(prices))]
            if bound.least > best.least:
                best = bound
            else:
                reach *= 0.8
            over = [u - room for u, room in zip(used, self._room, strict=True)]
            over = [x if x > 0 or price > 0 else 0.0 for x, price in zip(over, prices, strict=True)]
            slope = sum(x * x for x in over)
            if not slope or known - best.least <= _CLOSE * known:
                break
            length = reach * (known - bound.least) / slope
            prices = tuple(max(0.0, p + length * x) for p, x in zip(prices, over, strict=True))
        return best

    def _first_prices(self) -> tuple[float, ...]:
        """What a byte saves on a device against the slowest that is needed."""
        steps, count = self._problem.steps, self._problem.devices
        total = self._total
        if not total:
            return (0.0,) * len(self._room)
        able = [[s.seconds[d] for s in steps if s.seconds[d] < math.inf] for d in range(count)]
        pace = [sum(times) / max(1, len(times)) * len(steps) / total for times in able]
        left, slowest = float(total), 0.0
        for device in sorted(range(count), key=pace.__getitem__):
            if left > 0:
                slowest = pace[device]
                left -= self._problem.budgets[device]
        return tuple(max(0.0, slowest - pace[device]) for device in self._budgeted)

    def _backward(self, prices: tuple[float, ...]) -> tuple[Bound, list[Way]]:
        """Least cost behind each cut, memory paid for; and the way that has it, by pieces."""
        exits_of = {each: table.exits(prices) for each, table in self._tables.items()}
        left: list[dict[int, float]] = [dict.fromkeys(range(self._problem.devices), 0.0)]
        best: list[dict[int, Way]] = []
        for entries in reversed(self._ways):
            costs: dict[int, float] = {}
            choice: dict[int, Way] = {}
            behind = left[-1]
            for entry, exits in exits_of[id(entries)]:
                least = math.inf
                for device, paid, way in exits:
                    cost = paid + behind[device]
                    if cost < least:
                        least, choice[entry] = cost, way
                costs[entry] = least
            left.append(costs)
            best.append(choice)
        taken, at = list[Way](), UNMADE
        for ways in reversed(best):
            if at not in ways:  # nothing leads through: the bound is infinite
                break
            taken.append(ways[at])
            at = ways[at].state[0]
        least = left[-1][UNMADE] - sum(p * m for p, m in zip(prices, self._room, strict=True))
        return Bound(prices, tuple(reversed(left)), least), taken


def _one_pays(problem: Problem) -> dict[int, int]:
    """Bytes of shared weights by the step that pays: the one to which the device matters most."""
    found: dict[int, tuple[float, int]] = {}
    for number, step in enumerate(problem.steps):
        if not step.shares:
            continue
        finite = [seconds for seconds in step.seconds if seconds < math.inf]
        for weight in step.shares:
            found[weight] = max(found.get(weight, (-1.0, 0)), (max(finite) - min(finite), number))
    needs: dict[int, int] = {}
    for weight, (_, number) in found.items():
        needs[number] = needs.get(number, 0) + problem.shared[weight]
    return needs


class _Table:
    """Ways through a piece, in arrays, so that new prices are quickly put on all of them."""

    def __init__(self, ways: Ways) -> None:
        self._ways = [(entry, way) for entry, each in ways.items() for way in each]
        self._entries = list(ways)
        self._seconds = np.array([way.seconds for _, way in self._ways])
        self._memory = np.array([way.memory for _, way in self._ways], np.float64)

    def exits(self, prices: Sequence[float]) -> list[tuple[int, _Exits]]:
        """For each device that the piece is entered from, where one comes out."""
        paid = self._seconds
        if prices and self._ways:
            paid = paid + self._memory @ np.array(prices)
        found: dict[int, dict[int, tuple[float, Way]]] = {entry: {} for entry in self._entries}
        for (entry, way), cost in zip(self._ways, paid.tolist(), strict=True):
            best = found[entry].get(way.state[0])
            if best is None or cost < best[0]:
                found[entry][way.state[0]] = cost, way
        return [
            (entry, [(device, *best) for device, best in exits.items()])
            for entry, exits in found.items()
        ]
