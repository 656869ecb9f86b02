"""What placing a graph over several devices costs, and how good it is."""

from __future__ import annotations

import placement_quality
import placement_speed
from bench import Bench, Outcome, Section
from figures import Row, at_least, at_most, rounded

__all__ = ["SECTIONS"]

_PLANS = {
    "enough_memory": "memory enough",
    "one_budget_binds": "one budget that binds",
    "three_budgets_bind": "three budgets that bind",
    "order_decides": "the order decides",
}


def measure_placement(bench: Bench) -> Outcome:
    """Neither depends on the model."""
    del bench
    speed, quality = placement_speed.report(), placement_quality.simulated()
    what = f"planning {speed['nodes']} nodes on {speed['devices']} devices"
    rows = [
        Row(
            f"{what}, {label}",
            rounded(speed[name]["ms"]),
            "ms",
            at_most(30),
            {"parts": speed[name]["parts"], "gap": f"{speed[name]['gap']:.1%}"},
        )
        for name, label in _PLANS.items()
    ]
    rows.append(Row("a run, for each part", rounded(speed["us_per_part"]), "us", at_most(50)))
    rows.append(
        Row(
            "one token as planned, two limited devices by a simulated clock",
            rounded(quality["planned_over_best"]),
            "x the best of all splits",
            at_most(1.05),
            {"ms": rounded(quality["planned_ms"])},
        )
    )
    for name, label in (("equal", "equal shares"), ("by_memory", "shares by memory")):
        ratio = quality[f"{name}_over_planned"]
        rows.append(Row(f"the same in {label}", ratio and rounded(ratio), "x", at_least(1)))
    return Outcome(rows)


SECTIONS = (Section("placement", "several devices", measure_placement),)
