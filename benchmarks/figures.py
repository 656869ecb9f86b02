"""What benchmarks report: rows, each a figure beside its target, as text, Markdown and JSON."""

from __future__ import annotations

import dataclasses
import math
import operator
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "Row",
    "Target",
    "at_least",
    "at_most",
    "compare",
    "geometric_mean",
    "markdown",
    "rounded",
    "text",
]

_HOLDS = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True, slots=True)
class Target:
    """A bound that a figure is to keep: `relation` is ">=" or "<="."""

    relation: str
    value: float

    def met(self, measured: float) -> bool:
        """Whether a figure keeps it."""
        return bool(_HOLDS[self.relation](measured, self.value))


def at_least(value: float) -> Target:
    return Target(">=", value)


def at_most(value: float) -> Target:
    return Target("<=", value)


@dataclass(frozen=True, slots=True)
class Row:
    """A figure.

    Attributes:
        what: what was measured.
        measured: the figure; None where it could not be measured, for which `detail` has a reason.
        unit: of the figure and its target, such as "x llama.cpp" or "s".
        target: what it is to be; None where it is only told.
        detail: more figures, by name.
    """

    what: str
    measured: float | None
    unit: str
    target: Target | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none or nothing was measured."""
        if self.target is None or self.measured is None:
            return None
        return self.target.met(self.measured)

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**dataclasses.asdict(self), "met": self.met}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Row:
        """What `as_json` gave."""
        target = stored["target"] and Target(**stored["target"])
        names = ("what", "measured", "unit", "detail")
        return cls(**{name: stored[name] for name in names}, target=target)

    def cells(self) -> tuple[str, str, str, str, str]:
        """The columns of a table: what, measured, target, met?, details."""
        target = f"{self.target.relation} {_plain(self.target.value)}" if self.target else ""
        met = {None: "", True: "yes", False: "NO"}[self.met]
        shown = "not measured" if self.measured is None else f"{_plain(self.measured)} {self.unit}"
        detail = ", ".join(f"{name} {_plain(value)}" for name, value in self.detail.items())
        return self.what, shown.strip(), target, met, detail


_HEAD = ("what", "measured", "target", "met?", "details")


def text(rows: Sequence[Row]) -> str:
    """Rows as a table for a terminal."""
    table = [_HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(_HEAD) - 1)]
    lines = []
    for line in table:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        lines.append("  ".join([*cells, line[-1]]).rstrip())
    return "\n".join(lines)


def markdown(rows: Sequence[Row]) -> str:
    """Rows as a table of Markdown."""
    lines = [_HEAD, ("---",) * len(_HEAD), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def compare(pairs: Sequence[tuple[float, float]], *, faster: bool = True) -> dict[str, float]:
    """Of (ours, theirs) round by round: medians, and median and range of the ratios.

    Args:
        pairs: rates or seconds, at least one pair.
        faster: they are rates, of which more is better; else seconds. Either way a ratio above 1
            says that ours is better.
    """
    ratios = [ours / theirs if faster else theirs / ours for ours, theirs in pairs]
    return {
        "hotplug": rounded(statistics.median(ours for ours, _ in pairs)),
        "llama.cpp": rounded(statistics.median(theirs for _, theirs in pairs)),
        "ratio": rounded(statistics.median(ratios)),
        "lowest": rounded(min(ratios)),
        "highest": rounded(max(ratios)),
    }


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def rounded(value: float) -> float:
    """Four digits, which is more than a measurement is worth."""
    return float(f"{value:.4g}")


def _plain(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    if value == 0 or 0.001 <= abs(value) < 1e6:
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{value:.2g}"
