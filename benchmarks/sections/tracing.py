"""Where the time of a decode step and of a prompt goes, by kernel."""

from __future__ import annotations

from bench import Bench, Outcome, Section
from figures import Row, rounded
from plan_trace import limits, measure_roof, trace_model

__all__ = ["SECTIONS"]

_BATCHES = ((1, 64), (1, 4096), (512, 0))
"""Tokens, and tokens before them."""


def measure_trace(bench: Bench) -> Outcome:
    roof = measure_roof(bench.threads)
    traces = [
        trace_model(bench.model, tokens, start, bench.threads, max(4, 200 // tokens), roof)
        for tokens, start in _BATCHES
    ]
    rows = [
        Row(
            f"{traced['tokens']} token(s) behind {traced['start']} others",
            rounded(traced["roof, ms"] / traced["ms"]),
            "of the roofline",
            None,
            {"ms": traced["ms"], "waiting": f"{traced['waiting, ms'] / traced['ms']:.1%}"},
        )
        for traced in traces
    ]
    return Outcome(rows, {"limits": limits(roof), "traces": traces})


SECTIONS = (Section("trace", "where the time goes", measure_trace),)
