"""Cutting a problem where little crosses, so that equal pieces are worked out once.

Between two steps stands what later steps still need: values made before, ties begun, weights and
outside values that are on some devices already: the *items*. Where no more than one value of a step
is among them, the problem is cut. In a decoder that is behind every residual addition, so that half
a layer is a segment, and all layers' segments are alike: their `Pattern` is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hotplug.placement.problem import Matrix, Problem, Step

__all__ = ["Item", "Pattern", "PatternStep", "Segment", "segments", "with_needs"]

_LONG = 64
"""A value that more steps than this lie between is carried along, and keeps nobody from cutting."""

Item = tuple[str, int]
"""("value", step), ("outside", number), ("weight", number) or ("tie", number)."""


@dataclass(frozen=True, slots=True)
class PatternStep:
    """A step, its items by their position in the pattern.

    Attributes:
        seconds: by device.
        reads: items "value" that it needs.
        brings: items "outside" that it needs.
        shares: items "weight" that it needs.
        need: bytes.
        tie: its item "tie", or -1.
        makes: the item that is its own value, or -1 if nobody reads that.
        ends: items that nobody needs from here on, outside values apart.
    """

    seconds: tuple[float, ...]
    reads: tuple[int, ...]
    brings: tuple[int, ...]
    shares: tuple[int, ...]
    need: int
    tie: int
    makes: int
    ends: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pattern:
    """A segment but for the numbers of its steps; equal ones have equal solutions.

    Attributes:
        steps: in order.
        kinds: kind of each item.
        crossing: of each item that is a value, the seconds between devices; else empty.
        amounts: of each outside value the seconds by device, of each weight its bytes; else empty.
        stream: the item that is the value of the step just before, or -1.
    """

    steps: tuple[PatternStep, ...]
    kinds: tuple[str, ...]
    crossing: tuple[Matrix, ...]
    amounts: tuple[tuple[float, ...], ...]
    stream: int


@dataclass(frozen=True, slots=True)
class Segment:
    """Steps between two cuts.

    Attributes:
        start: number of its first step.
        pattern: its steps.
        items: the item behind each of the pattern's.
        carried: what stands at its end.
    """

    start: int
    pattern: Pattern
    items: tuple[Item, ...]
    carried: tuple[Item, ...]


def segments(problem: Problem) -> list[Segment]:
    """Cut a problem."""
    spans = _spans(problem)
    cuts = _cuts(problem, spans)
    interned: dict[Pattern, Pattern] = {}
    found = []
    for start, stop, carried in zip(cuts, cuts[1:], _carried(spans, cuts), strict=False):
        pattern, items = _pattern(problem, start, stop, spans)
        found.append(Segment(start, interned.setdefault(pattern, pattern), items, carried))
    return found


def with_needs(pieces: Sequence[Segment], more: Mapping[int, int]) -> list[Segment]:
    """The pieces without shared weights, and with more bytes for some steps by their number.

    Pieces that have no shared weights stay the objects that they are.
    """
    return [
        piece if not any(step.shares for step in piece.pattern.steps) else _paying(piece, more)
        for piece in pieces
    ]


def _paying(piece: Segment, more: Mapping[int, int]) -> Segment:
    steps = tuple(
        replace(step, shares=(), need=step.need + more.get(number, 0))
        for number, step in enumerate(piece.pattern.steps, piece.start)
    )
    return replace(piece, pattern=replace(piece.pattern, steps=steps))


def _carried(spans: dict[Item, tuple[int, int]], cuts: Sequence[int]) -> list[tuple[Item, ...]]:
    """What stands at each cut but the first."""
    begun = sorted(spans.items(), key=lambda span: span[1][0], reverse=True)
    alive: dict[Item, int] = {}
    found = []
    for stop in cuts[1:]:
        while begun and begun[-1][1][0] < stop:
            item, (_, last) = begun.pop()
            alive[item] = last
        alive = {item: last for item, last in alive.items() if last >= stop}
        found.append(tuple(alive))
    return found


def _spans(problem: Problem) -> dict[Item, tuple[int, int]]:
    """First and last step that has to do with each item."""
    spans: dict[Item, tuple[int, int]] = {}
    for number, step in enumerate(problem.steps):
        for item in _used(step):
            spans[item] = spans.get(item, (number, 0))[0], number
        spans["value", number] = number, number
    return spans


def _used(step: Step) -> list[Item]:
    used: list[Item] = [("value", read) for read in step.reads]
    used += [("outside", item) for item in step.brings]
    used += [("weight", weight) for weight in step.shares]
    return used if step.tie < 0 else [*used, ("tie", step.tie)]


def _cuts(problem: Problem, spans: dict[Item, tuple[int, int]]) -> list[int]:
    count = len(problem.steps)
    change = [0] * (count + 2)
    for (kind, _), (first, last) in spans.items():
        if kind in {"value", "tie"} and last - first <= _LONG:
            change[first + 1] += 1
            change[last + 1] -= 1
    cuts, alive = [0], 0
    for position in range(1, count):
        alive += change[position]
        if alive <= 1 or position - cuts[-1] >= _LONG:
            cuts.append(position)
    return [*cuts, count]


def _pattern(
    problem: Problem, start: int, stop: int, spans: dict[Item, tuple[int, int]]
) -> tuple[Pattern, tuple[Item, ...]]:
    places: dict[Item, int] = {}
    steps = []
    for number in range(start, stop):
        step = problem.steps[number]
        used = _used(step)
        for item in used:
            places.setdefault(item, len(places))
        makes = -1
        if spans["value", number][1] > number:
            makes = places.setdefault(("value", number), len(places))
        steps.append(
            PatternStep(
                step.seconds,
                tuple([places["value", read] for read in step.reads]),
                tuple([places["outside", item] for item in step.brings]),
                tuple([places["weight", weight] for weight in step.shares]),
                step.need,
                places["tie", step.tie] if step.tie >= 0 else -1,
                makes,
                tuple([places[i] for i in used if spans[i][1] == number and i[0] != "outside"]),
            )
        )
    items = tuple(places)
    return _described(problem, tuple(steps), items, places.get(("value", start - 1), -1)), items


def _described(
    problem: Problem, steps: tuple[PatternStep, ...], items: Sequence[Item], stream: int
) -> Pattern:
    return Pattern(
        steps,
        tuple([kind for kind, _ in items]),
        tuple([problem.steps[n].crossing if kind == "value" else () for kind, n in items]),
        tuple([_amounts(problem, item) for item in items]),
        stream,
    )


def _amounts(problem: Problem, item: Item) -> tuple[float, ...]:
    kind, number = item
    if kind == "outside":
        return problem.outside[number]
    return (problem.shared[number],) if kind == "weight" else ()
