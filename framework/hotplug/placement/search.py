"""The cheapest assignment under memory budgets, by dynamic programming over a problem's cuts.

At each cut stand *labels*: what a way there has cost, what memory it took, and what stands behind
it. A label is dropped where another could take its place (`expand.prune`), or where even the best
that may follow (`relax`) would not beat an assignment that is known.

One is known from the start: where memory is enough, the one that would be best if inputs were
everywhere; where it is short, the best in which each device has one run of segments (`contiguous`).
Labels at a cut are limited, so that planning stays quick; `Solution.least` says how good any
assignment can be at best.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hotplug.placement.contiguous import contiguous
from hotplug.placement.expand import UNMADE, Expander, State, Way, prune
from hotplug.placement.problem import Matrix, Problem, price
from hotplug.placement.relax import Bound, Relaxed
from hotplug.placement.segments import Item, Segment, segments

__all__ = ["Solution", "alone", "solve"]

_WORK, _FEW = 1000, 8
"""Labels at all cuts together, and at each cut at least."""

_SHORT, _MANY = 12, 1000
"""Where there are no more pieces than this, so many labels at a cut all the same."""

_CLOSE = 1e-9


@dataclass(frozen=True, slots=True)
class Solution:
    """An assignment.

    Attributes:
        devices: for each step the position of its device.
        seconds: what it takes, all launches and copies counted.
        memory: bytes of weights and states by device.
        exact: whether it is known that no assignment is better.
        least: nothing takes less than this that keeps large segments together, see `expand`.
        labels: how many labels were looked at.
    """

    devices: tuple[int, ...]
    seconds: float
    memory: tuple[int, ...]
    exact: bool
    least: float
    labels: int


def alone(problem: Problem) -> Solution | None:
    """The assignment of a problem with a single device; None if it has more, or no room."""
    if problem.devices > 1:
        return None
    cost = price(problem, devices := (0,) * len(problem.steps))
    if cost.seconds == math.inf or not cost.fits(problem.budgets):
        return None
    return Solution(devices, cost.seconds, cost.memory, exact=True, least=cost.seconds, labels=0)


def solve(problem: Problem, tolerance: float = 0.0) -> Solution | None:
    """The cheapest assignment; None where none was found that keeps the budgets.

    Of assignments that cost the same, one that uses earlier devices is taken.

    Args:
        problem: what to solve.
        tolerance: no better assignment is looked for where it can be better by this share at most.
    """
    if not problem.steps:  # a graph of leaves
        return Solution((), 0.0, (0,) * problem.devices, exact=True, least=0.0, labels=0)
    pieces = segments(problem)
    budgeted = tuple(d for d, most in enumerate(problem.budgets) if most < math.inf)
    expander = Expander(problem.launch, budgeted)
    relaxed = Relaxed(problem, pieces, budgeted, expander)
    free, found = relaxed.free()
    if free.least == math.inf:
        return None
    bound, known = free, _known(problem, found)
    if known == math.inf:  # memory is short
        found = contiguous(problem, pieces, budgeted, expander) or []
        known = _known(problem, found)
        bound = relaxed.best_bound(min(known, 2 * free.least))
    search = _Search(problem, pieces, expander, free.left)
    if known == math.inf or known - bound.least > tolerance * known:
        most = _MANY if len(pieces) <= _SHORT else max(_FEW, _WORK // len(pieces))
        better = search.forward(bound, known * (1 - _CLOSE), most)
        found = found if better is None else better.path()
        known = known if better is None else better.seconds
    return None if known == math.inf else _answer(problem, search, found, bound.least)


def _known(problem: Problem, devices: Sequence[int]) -> float:
    """Seconds of an assignment; infinite if it does not keep the budgets, or is none."""
    cost = price(problem, devices) if devices or not problem.steps else None
    return cost.seconds if cost is not None and cost.fits(problem.budgets) else math.inf


def _answer(problem: Problem, search: _Search, devices: Sequence[int], least: float) -> Solution:
    cost = price(problem, devices)
    fastest = sum(min(step.seconds) for step in problem.steps) + min(problem.launch)
    closed = search.complete or cost.seconds <= least * (1 + _CLOSE)
    exact = (closed and search.expander.exact) or cost.seconds <= fastest
    least = cost.seconds if closed or exact else max(least, fastest)
    return Solution(tuple(devices), cost.seconds, cost.memory, exact, least, search.labels)


class _Label(NamedTuple):
    """A way from the start to a cut: what is known of it, its last piece, the label before it."""

    state: State
    seconds: float
    memory: tuple[int, ...]
    paid: float
    piece: Way | None = None
    before: _Label | None = None

    def path(self) -> list[int]:
        pieces = []
        label: _Label | None = self
        while label is not None and label.piece is not None:
            pieces.append(label.piece.path())
            label = label.before
        return [device for piece in reversed(pieces) for device in piece]


class _Search:
    """Passes over the cuts.

    Attributes:
        labels: how many were made.
        complete: whether the last pass dropped none that might have led to something better.
        expander: finds the ways through pieces.
    """

    def __init__(
        self,
        problem: Problem,
        pieces: Sequence[Segment],
        expander: Expander,
        plain: Sequence[Mapping[int, float]],
    ) -> None:
        self.labels = 0
        self.complete = False
        self._problem = problem
        self._pieces = pieces
        self._plain = plain
        self.expander = expander
        self._room = tuple(problem.budgets[device] for device in expander.budgeted)
        self._joints = _joints(problem, pieces)

    def forward(self, bound: Bound, limit: float, most: int) -> _Label | None:
        """The best label behind the last cut that costs less than `limit`."""
        self.complete = True
        start = -sum(p * m for p, m in zip(bound.prices, self._room, strict=True))
        labels = [_Label((UNMADE,), 0.0, (0,) * len(self._room), start)]
        prices: dict[tuple[int, State], list[tuple[float, int, Way]]] = {}
        for number, (piece, joint) in enumerate(zip(self._pieces, self._joints, strict=True)):
            offers = []
            left, plain = bound.left[number + 1], self._plain[number + 1]
            for label in labels:
                entry = joint.entry(label.state)
                key = id(piece.pattern), entry
                ways = prices.get(key)
                if ways is None:
                    found = self.expander.ways(piece.pattern, entry)
                    ways = prices[key] = [(bound.paid(way), way.state[0], way) for way in found]
                before, taken = label.paid, label.seconds
                for paid, at, way in ways:
                    least = before + paid + left.get(at, 0.0)
                    if least < limit and taken + way.seconds + plain.get(at, 0.0) < limit:
                        offers.append((least, before + paid, label, way))
            labels = self._taken(offers, joint, most)
        best = min(labels, key=lambda label: label.seconds, default=None)
        return best if best is not None and best.seconds < limit else None

    def _taken(
        self, offers: list[tuple[float, float, _Label, Way]], joint: _Joint, most: int
    ) -> list[_Label]:
        """Labels of the most promising offers that keep the budgets."""
        offers.sort(key=operator.itemgetter(0))
        grown: dict[tuple[State, tuple[int, ...]], _Label] = {}
        for _, paid, label, way in offers:
            memory = label.memory
            if memory:
                memory = tuple(map(int.__add__, memory, way.memory))
                if any(map(operator.gt, memory, self._room)):
                    continue
            state, brought = joint.exit(label.state, way.state)
            seconds = label.seconds + way.seconds + brought
            held = grown.get((state, memory))
            if held is None:
                if len(grown) == most:
                    self.complete = False
                    break
            elif held.seconds <= seconds:
                continue
            grown[state, memory] = _Label(state, seconds, memory, paid + brought, way, label)
        self.labels += len(grown)
        return self._undominated(list(grown.values()), joint)

    def _undominated(self, labels: list[_Label], joint: _Joint) -> list[_Label]:
        if len(labels) < 2:
            return labels
        of = {id(label): label for label in labels}
        return [of[id(label)] for label in prune(labels, joint, self._problem.launch)]


@dataclass(frozen=True, slots=True)
class _Joint:
    """How a segment's items and those that are carried at its two cuts belong together.

    Attributes:
        into: for each item of the segment its place among those carried to it, or -1 for what is
            not or does not matter.
        fresh: what it is then.
        out: for each item carried on, its places in the segment's items and before it, or -1.
        brings: the same of each outside value in the segment, with its seconds by device.
        kinds, crossing, amounts: of the items carried on, as in `Pattern`; outside values are
            "present".
    """

    into: tuple[int, ...]
    fresh: tuple[int, ...]
    out: tuple[tuple[int, int], ...]
    brings: tuple[tuple[int, int, tuple[float, ...]], ...]
    kinds: tuple[str, ...]
    crossing: tuple[Matrix, ...]
    amounts: tuple[tuple[float, ...], ...]
    _entries: dict[State, State] = field(default_factory=dict)
    _exits: dict[tuple[State, State], tuple[State, float]] = field(default_factory=dict)

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for equal joints; large matrices are the same object where they are equal."""
        return (
            *(self.into, self.fresh, self.out, self.brings, self.kinds, self.amounts),
            *map(id, self.crossing),
        )

    def entry(self, state: State) -> State:
        """What stands before the segment, as the segment sees it."""
        found = self._entries.get(state)
        if found is None:
            pairs = zip(self.into, self.fresh, strict=True)
            inside = [fresh if at < 0 else state[at + 1] for at, fresh in pairs]
            found = self._entries[state] = (state[0], *inside)
        return found

    def exit(self, before: State, after: State) -> tuple[State, float]:
        """What stands behind the segment, and the seconds of bringing outside values into it."""
        found = self._exits.get((before, after))
        if found is None:
            found = self._leave(before, after), self._brought(before, after)
            self._exits[before, after] = found
        return found

    def _leave(self, before: State, after: State) -> State:
        state = [after[0]]
        for kind, (inside, place) in zip(self.kinds, self.out, strict=True):
            value = after[inside + 1] if inside >= 0 else before[place + 1]
            if kind == "present" and inside >= 0 and place >= 0:
                value |= before[place + 1]
            state.append(value)
        return tuple(state)

    def _brought(self, before: State, after: State) -> float:
        """Of outside values, to devices that want them and do not have them."""
        seconds = 0.0
        for inside, place, row in self.brings:
            wanted = after[inside + 1] & ~(before[place + 1] if place >= 0 else 0)
            if wanted:
                seconds += sum([s for device, s in enumerate(row) if wanted >> device & 1])
        return seconds


def _joints(problem: Problem, pieces: Sequence[Segment]) -> list[_Joint]:
    """The joints of all segments; equal ones are one, and know what they told before."""
    known: dict[tuple[object, ...], _Joint] = {}
    found = []
    before: dict[Item, int] = {}
    for piece in pieces:
        joint = _joint(problem, piece, before)
        found.append(known.setdefault(joint.key, joint))
        before = {item: place for place, item in enumerate(piece.carried)}
    return found


def _joint(problem: Problem, piece: Segment, before: Mapping[Item, int]) -> _Joint:
    inside = {item: place for place, item in enumerate(piece.items)}
    into = [-1 if item[0] == "outside" else before.get(item, -1) for item in piece.items]
    fresh = [0 if kind in {"outside", "weight"} else UNMADE for kind, _ in piece.items]
    out = [(inside.get(item, -1), before.get(item, -1)) for item in piece.carried]
    brings = [
        (place, before.get(item, -1), problem.outside[item[1]])
        for place, item in enumerate(piece.items)
        if item[0] == "outside"
    ]
    kinds = ["present" if kind == "outside" else kind for kind, _ in piece.carried]
    values = [problem.steps[n].crossing if kind == "value" else () for kind, n in piece.carried]
    amounts = [problem.outside[n] if kind == "outside" else () for kind, n in piece.carried]
    return _Joint(
        tuple(into),
        tuple(fresh),
        tuple(out),
        tuple(brings),
        tuple(kinds),
        tuple(values),
        tuple(amounts),
    )
