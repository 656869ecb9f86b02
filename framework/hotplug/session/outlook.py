"""How long runs of a plan should take, by the cost model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hotplug.placement import Part, Plan
from hotplug.placement.schedule import Cost, best_depth

__all__ = ["Outlook"]


@dataclass(frozen=True, slots=True)
class Outlook:
    """What lies ahead of a plan.

    Attributes:
        parts: of the plan.
        costs: of the parts.
        alone: seconds of one run, with none beside it.
        in_flight: whether several runs may be in flight.
    """

    parts: Sequence[Part]
    costs: Sequence[Cost]
    alone: float
    in_flight: bool

    @classmethod
    def of(cls, plan: Plan, *, in_flight: bool) -> Outlook:
        """What lies ahead of a plan, at the speeds that it was made for."""
        return cls(plan.parts, plan.costs, plan.seconds, in_flight)

    def depth(self, runs: int) -> int:
        """How many sets of buffers so many runs should take in turn."""
        return best_depth(self.parts, self.costs, runs)[0] if self.in_flight else 1

    def seconds(self, runs: int) -> float:
        """How long so many runs should take."""
        if self.in_flight:
            return best_depth(self.parts, self.costs, runs)[1]
        return runs * self.alone
