"""Cutting a problem where little crosses, so that equal pieces are worked out once.

Between two steps stands what later steps still need: values made before, ties begun, weights and
outside values that are on some devices already: the *items*. Where no more than one value of a step
is among them, the problem is cut. In a decoder that is behind every residual addition, so that half
a layer is a segment, and all layers' segments are alike: their `Pattern` is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hotplug.placement.problem import Matrix, Problem, Step

__all__ = ["Item", "Pattern", "PatternStep", "Segment", "segments", "with_needs"]

_LONG = 64
"""A value that more steps than this lie between is carried along, and keeps nobody from cutting."""

Item = tuple[str, int]
"""("value", step), ("outside", number), ("weight", number) or ("tie", number)."""


class PatternStep(NamedTuple):
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


class Pattern(NamedTuple):
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


class Segment(NamedTuple):
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
    used = [_used(step) for step in problem.steps]
    spans = _spans(used)
    cuts = _cuts(problem, spans)
    known: dict[tuple[object, ...], Pattern] = {}
    found = []
    for start, stop, carried in zip(cuts, cuts[1:], _carried(spans, cuts), strict=False):
        steps, items = _steps(problem, start, used[start:stop], spans)
        values = tuple([problem.steps[n].crossing if kind == "value" else () for kind, n in items])
        amounts = tuple([_amounts(problem, item) for item in items])
        # Matrices of many devices are large, and the same object where they are equal.
        key = steps, tuple(map(id, values)), amounts, start and ("value", start - 1) in items
        if key not in known:
            kinds = tuple([kind for kind, _ in items])
            stream = items.index(("value", start - 1)) if key[-1] else -1
            known[key] = Pattern(steps, kinds, values, amounts, stream)
        found.append(Segment(start, known[key], items, carried))
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
        step._replace(shares=(), need=step.need + more.get(number, 0))
        for number, step in enumerate(piece.pattern.steps, piece.start)
    )
    return piece._replace(pattern=piece.pattern._replace(steps=steps))


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


def _spans(used: Sequence[Sequence[Item]]) -> dict[Item, tuple[int, int]]:
    """First and last step that has to do with each item."""
    spans: dict[Item, tuple[int, int]] = {}
    for number, items in enumerate(used):
        for item in items:
            spans[item] = spans[item][0] if item in spans else number, number
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


def _steps(
    problem: Problem,
    start: int,
    used: Sequence[Sequence[Item]],
    spans: dict[Item, tuple[int, int]],
) -> tuple[tuple[PatternStep, ...], tuple[Item, ...]]:
    """Steps from `start` on by positions of items, and the items."""
    places: dict[Item, int] = {}
    steps = []
    for number, items in enumerate(used, start):
        step = problem.steps[number]
        at = [places.setdefault(item, len(places)) for item in items]
        reads, brings = len(step.reads), len(step.reads) + len(step.brings)
        ends = [places[i] for i in items if spans[i][1] == number and i[0] != "outside"]
        makes = ("value", number)
        steps.append(
            PatternStep(
                step.seconds,
                tuple(at[:reads]),
                tuple(at[reads:brings]),
                tuple(at[brings : brings + len(step.shares)]),
                step.need,
                at[-1] if step.tie >= 0 else -1,
                places.setdefault(makes, len(places)) if spans[makes][1] > number else -1,
                tuple(ends),
            )
        )
    return tuple(steps), tuple(places)


def _amounts(problem: Problem, item: Item) -> tuple[float, ...]:
    kind, number = item
    if kind == "outside":
        return problem.outside[number]
    return (problem.shared[number],) if kind == "weight" else ()
