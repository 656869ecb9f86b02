"""Fifth pass, where speeds do not decide: homes for what needs memory, segment by segment.

`in_order` fills devices in order of preference, so that a model too large for one is cut as seldom
as possible; it is what is done where nobody knows how fast the devices are. `in_shares` gives each
device its share of the bytes, as the user says. Both leave every other step to the search.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hotplug.errors import PlacementError
from hotplug.node import Node
from hotplug.placement.problem import Problem, Step
from hotplug.placement.segments import segments

__all__ = ["Homes", "in_one", "in_order", "in_shares", "restricted"]

Homes = Mapping[int, tuple[int, str]]
"""Number of a step that needs memory -> its device, and why that one."""


def restricted(problem: Problem, homes: Homes, *, keep_budgets: bool = False) -> Problem:
    """The problem with homes for some steps; their memory is accounted for already, unless said."""
    steps = []
    for number, step in enumerate(problem.steps):
        home = homes[number][0] if number in homes else None
        seconds = step.seconds
        if home is not None:
            seconds = tuple([s if d == home else math.inf for d, s in enumerate(seconds)])
        steps.append(step._replace(seconds=seconds))
    budgets = problem.budgets if keep_budgets else (math.inf,) * problem.devices
    return replace(problem, steps=tuple(steps), budgets=budgets)


def in_one(problem: Problem) -> Homes:
    """Where there is one device, and it has room."""
    steps = enumerate(problem.steps)
    return {number: (0, "first choice") for number, step in steps if holds_memory(step)}


def in_order(
    problem: Problem,
    ids: Sequence[str],
    nodes: Sequence[Node],
    refused: Sequence[Mapping[str, str]],
) -> Homes:
    """Fill devices one after the other.

    Once something did not fit on a device that holds something already, the device is full: small
    weights of later layers would fit still, and each would drag the computation to and fro.

    Args:
        problem: steps and budgets.
        ids: of the devices.
        nodes: of the steps, for the message.
        refused: for each step, by device id why it cannot run there.

    Raises:
        PlacementError: a step that needs memory fits nowhere.
    """
    filler = _Filler(problem, ids, nodes, refused)
    if problem.devices > 1:
        filler.reserve()
    for segment in segments(problem):
        filler.place(range(segment.start, segment.start + len(segment.pattern.steps)))
    return filler.homes


class _Filler:
    def __init__(
        self,
        problem: Problem,
        ids: Sequence[str],
        nodes: Sequence[Node],
        refused: Sequence[Mapping[str, str]],
    ) -> None:
        self.homes: dict[int, tuple[int, str]] = {}
        self._problem = problem
        self._ids = ids
        self._nodes = nodes
        self._refused = refused
        self._room = list(problem.budgets)
        self._used: set[int] = set()
        self._full: set[int] = set()
        self._shared: set[tuple[int, int]] = set()  # weight, device
        self._tied: dict[int, int] = {}  # tie -> device
        self._able = _able(problem)

    def reserve(self) -> None:
        """Keep room for steps that can be on one device only, as those are that are pinned."""
        for number, step in enumerate(self._problem.steps):
            able = [d for d, seconds in enumerate(step.seconds) if seconds < math.inf]
            if len(able) == 1 and holds_memory(step):
                refusal = self._refuses([number], able[0])
                if refusal:
                    raise self._nowhere(number, {self._ids[able[0]]: refusal})
                others = [d for d in range(self._problem.devices) if d != able[0]]
                passed = {self._ids[d]: self._why_not(number, d) for d in others}
                self._take([number], able[0], passed)

    def place(self, numbers: Sequence[int]) -> None:
        """Find a home for those steps of a segment that need memory, a common one if there is."""
        left = [n for n in numbers if n not in self.homes and holds_memory(self._problem.steps[n])]
        passed: dict[str, str] = {}
        for device in range(self._problem.devices):
            able = [n for n in left if self._runs(n, device)]
            if not able:
                for number in left[:1]:
                    passed[self._ids[device]] = self._why_not(number, device)
                continue
            problem = self._refuses(able, device)
            if problem:
                passed[self._ids[device]] = problem
                continue
            self._take(able, device, passed)
            left = [n for n in left if n not in self.homes]
        if left:
            raise self._nowhere(left[0], passed)

    def _nowhere(self, number: int, passed: Mapping[str, str]) -> PlacementError:
        told = "; ".join(f"{name}: {why}" for name, why in passed.items())
        budgets = zip(self._ids, self._problem.budgets, strict=True)
        rooms = ", ".join(f"{name}: {_amount(most)}" for name, most in budgets)
        whole = sum(step.need for step in self._problem.steps) + sum(self._problem.shared)
        return PlacementError(
            f"the weights and states of {self._nodes[number].label} have no place: {told}; of "
            f"{whole} bytes in all, there is room for {rooms}",
            reasons=dict(passed),
            remedy="use more devices, or a smaller model or context",
        )

    def _why_not(self, number: int, device: int) -> str:
        return self._refused[number].get(self._ids[device], "something else ties it down")

    def _runs(self, number: int, device: int) -> bool:
        step = self._problem.steps[number]
        if step.tie < 0:
            return step.seconds[device] < math.inf
        return device in self._able[step.tie] and self._tied.get(step.tie, device) == device

    def _refuses(self, numbers: Sequence[int], device: int) -> str:
        needed = self._needed(numbers, device)
        if not needed:
            return ""
        if device in self._full:
            return "full"
        if needed <= self._room[device]:
            return ""
        if device in self._used:
            self._full.add(device)
        return f"no room: {needed} bytes needed, {max(0, int(self._room[device]))} left"

    def _needed(self, numbers: Sequence[int], device: int) -> int:
        steps = [self._problem.steps[number] for number in numbers]
        shares = {weight for step in steps for weight in step.shares}
        new = [weight for weight in shares if (weight, device) not in self._shared]
        return sum(step.need for step in steps) + sum(self._problem.shared[w] for w in new)

    def _take(self, numbers: Sequence[int], device: int, passed: Mapping[str, str]) -> None:
        self._room[device] -= self._needed(numbers, device)
        self._used.add(device)
        reason = "; ".join(f"not {name}: {why}" for name, why in passed.items()) or "first choice"
        for number in numbers:
            step = self._problem.steps[number]
            self._shared.update((weight, device) for weight in step.shares)
            if step.tie >= 0:
                self._tied[step.tie] = device
            self.homes[number] = device, reason


def _able(problem: Problem) -> dict[int, set[int]]:
    """Tie -> devices that run all of its steps."""
    found: dict[int, set[int]] = {}
    for step in problem.steps:
        if step.tie >= 0:
            able = {device for device, seconds in enumerate(step.seconds) if seconds < math.inf}
            found[step.tie] = found.get(step.tie, able) & able
    return found


def _amount(most: float) -> str:
    return "all" if most == math.inf else str(max(0, int(most)))


@dataclass(frozen=True, slots=True)
class _Piece:
    numbers: range
    nbytes: int


def in_shares(problem: Problem, shares: Sequence[float]) -> Homes:
    """Give each device its share of the bytes of weights and states, in the order of the steps.

    Args:
        problem: the steps; budgets are not looked at.
        shares: by device, in any unit; at least one is above 0.
    """
    pieces = _pieces(problem)
    total, whole = sum(shares), sum(piece.nbytes for piece in pieces)
    ends = [sum(shares[: d + 1]) / total * whole for d in range(len(shares))]
    homes: dict[int, tuple[int, str]] = {}
    tied: dict[int, int] = {}
    able = _able(problem)
    device, before = 0, 0
    last = max(d for d, share in enumerate(shares) if share > 0)
    for piece in pieces:
        while device < last and before + piece.nbytes / 2 > ends[device]:
            device += 1
        before += piece.nbytes
        for number in piece.numbers:
            step = problem.steps[number]
            home = device
            if step.tie >= 0:  # the nearest device that runs all that has to stay together
                near = sorted(able[step.tie], key=lambda d, at=device: abs(d - at))  # type: ignore[misc]
                home = tied.setdefault(step.tie, near[0])
            if holds_memory(step) and step.seconds[home] < math.inf:
                homes[number] = home, f"its share is {shares[home] / total:.0%} of the bytes"
    return homes


def holds_memory(step: Step) -> bool:
    """Whether a step reads weights or states."""
    return bool(step.need or step.shares or step.tie >= 0)


def _pieces(problem: Problem) -> list[_Piece]:
    pieces = []
    for segment in segments(problem):
        numbers = range(segment.start, segment.start + len(segment.pattern.steps))
        steps = [problem.steps[number] for number in numbers]
        # A weight of several pieces counts for each: they may be on different devices.
        shared = {weight for step in steps for weight in step.shares}
        nbytes = sum(step.need for step in steps) + sum(problem.shared[w] for w in shared)
        pieces.append(_Piece(numbers, nbytes))
    return pieces
