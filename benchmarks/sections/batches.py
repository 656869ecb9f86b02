"""Prompts of 1 to 512 tokens: between reading weights as they lie and unpacking them is no hole."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
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
    best = {tokens: milliseconds(turns) for tokens, turns in rates.items()}
    curves = {"hotplug": [[tokens, costs[0]] for tokens, costs in best.items()]}
    rows = [rise_row("batches of 1 to 512", rates)]
    if len(best[1]) == 2:
        curves["llama.cpp"] = [[tokens, costs[1]] for tokens, costs in best.items()]
        ratios = {tokens: theirs / ours for tokens, (ours, theirs) in best.items()}
        worst = min(ratios, key=lambda tokens: ratios[tokens])
        measured, detail = rounded(ratios[worst]), {"batch": worst}
        rows.insert(0, Row("batches of 1 to 512, worst", measured, "x llama.cpp", None, detail))
    return Outcome(rows, {"milliseconds_per_token": curves})


def rates_of(bench: Bench, batches: Sequence[int]) -> dict[int, list[list[float]]]:
    """Tokens per second by size of batch; small ones are read several times in a turn."""
    with bench.pair() as pair:
        turn = partial(take_turns, rounds=bench.rounds)
        return {n: turn(pair.actions(prefill(n, max(1, 32 // n)))) for n in batches}


def milliseconds(turns: Sequence[Sequence[float]]) -> list[float]:
    """Of a token, in the fastest turn of each program."""
    return [rounded(1e3 / max(rates)) for rates in zip(*turns, strict=True)]


def rise_row(what: str, rates: dict[int, list[list[float]]]) -> Row:
    """Whether hotplug takes longer per token than with the next smaller batch."""
    rise, batch = steepest_rise({n: milliseconds(turns)[0] for n, turns in rates.items()})
    name = f"{what}: per token, against the next smaller"
    return Row(name, rounded(rise), "x", at_most(_NOISE), {"worst at": batch})


def steepest_rise(costs: dict[int, float]) -> tuple[float, int]:
    """The largest cost per token over that of the next smaller batch, and where it is."""
    steps = [
        (costs[larger] / costs[smaller], larger) for smaller, larger in pairwise(sorted(costs))
    ]
    return max(steps)


SECTIONS = (
    Section("batches", "prompts of 1 to 64 tokens", measure_batches),
    Section("curve", "time per token over prompts of 1 to 512 tokens", measure_curve),
)
