"""Prompts of 1 to 512 tokens: between reading weights as they lie and unpacking them is no hole.

A round reads prompts of every size, so that sizes are compared within a round as programs are: the
machine is not the same from one minute to the next.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import pairwise

from bench import Bench, Outcome, Section, ratio_row
from figures import Row, at_least, at_most, rounded
from programs import prefill, take_turns

__all__ = ["SECTIONS", "steepest_rise"]

BATCHES = (1, 2, 4, 8, 16, 32, 64)
CURVE = (*range(1, 17), 20, 24, 28, 32, 40, 48, 56, 64, 96, 128, 192, 256, 384, 512)
_NOISE = 1.02
"""A batch counts as slower per token than a smaller one from 2 % on."""


def measure_batches(bench: Bench) -> Outcome:
    rates = rates_of(bench, BATCHES)
    rows = [
        ratio_row(f"batch of {tokens}", rates[tokens], at_least(1.3) if tokens > 1 else at_least(1))
        for tokens in BATCHES
    ]
    return Outcome([*rows, rise_row("batches of 1 to 64", rates)])


def measure_curve(bench: Bench) -> Outcome:
    rates = rates_of(bench, CURVE)
    costs = {tokens: milliseconds(turns) for tokens, turns in rates.items()}
    curves = {"hotplug": [[tokens, cost[0]] for tokens, cost in costs.items()]}
    rows = [rise_row("batches of 1 to 512", rates)]
    if len(costs[1]) == 2:
        curves["llama.cpp"] = [[tokens, cost[1]] for tokens, cost in costs.items()]
        ratios = {
            tokens: statistics.median(ours / theirs for ours, theirs in turns)
            for tokens, turns in rates.items()
        }
        worst = min(ratios, key=lambda tokens: ratios[tokens])
        measured, detail = rounded(ratios[worst]), {"batch": worst}
        rows.insert(0, Row("batches of 1 to 512, worst", measured, "x llama.cpp", None, detail))
    return Outcome(rows, {"milliseconds_per_token": curves})


def rates_of(bench: Bench, batches: Sequence[int]) -> dict[int, list[list[float]]]:
    """Tokens per second by size of batch; small ones are read several times in a turn."""
    with bench.pair() as pair:
        by_size = [pair.actions(prefill(n, max(1, 32 // n))) for n in batches]
        turns = take_turns([action for actions in by_size for action in actions], bench.rounds)
    programs = len(by_size[0])
    return {
        n: [turn[first : first + programs] for turn in turns]
        for n, first in zip(batches, range(0, len(turns[0]), programs), strict=True)
    }


def milliseconds(turns: Sequence[Sequence[float]]) -> list[float]:
    """Of a token, the median of each program's turns."""
    return [rounded(1e3 / statistics.median(rates)) for rates in zip(*turns, strict=True)]


def rise_row(what: str, rates: dict[int, list[list[float]]]) -> Row:
    """Whether hotplug takes longer per token than with the next smaller batch."""
    rise, batch = steepest_rise({n: [turn[0] for turn in turns] for n, turns in rates.items()})
    name = f"{what}: per token, against the next smaller"
    return Row(name, rounded(rise), "x", at_most(_NOISE), {"worst at": batch})


def steepest_rise(rates: dict[int, list[float]]) -> tuple[float, int]:
    """The largest cost per token over that of the next smaller batch, and where it is.

    Rates are tokens per second by size, round by round.
    """
    steps = [
        ([a / b for a, b in zip(rates[smaller], rates[larger], strict=True)], larger)
        for smaller, larger in pairwise(sorted(rates))
    ]
    return max((statistics.median(step), larger) for step, larger in steps)


SECTIONS = (
    Section("batches", "prompts of 1 to 64 tokens", measure_batches),
    Section("curve", "time per token over prompts of 1 to 512 tokens", measure_curve),
)
