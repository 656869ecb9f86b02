"""The conformance suite: what every backend must compute, and how it must behave.

`check_backend(backend)` runs all of it; `pytest_suite.BackendTests` does so as pytest tests. A case
is a graph and values for its leaves; its results are compared with the oracle's within the bounds
of `bounds`. What a device declares not to support is skipped, with its reason, and counted.
"""

from __future__ import annotations

from hotplug.testing.conformance.behaviour import BEHAVIOURS
from hotplug.testing.conformance.case import Case
from hotplug.testing.conformance.cases import all_cases
from hotplug.testing.conformance.check import Outcome, Result, check
from hotplug.testing.conformance.suite import (
    Report,
    case_groups,
    check_backend,
    check_behaviour,
    check_device,
    coverage,
)

__all__ = [
    "BEHAVIOURS",
    "Case",
    "Outcome",
    "Report",
    "Result",
    "all_cases",
    "case_groups",
    "check",
    "check_backend",
    "check_behaviour",
    "check_device",
    "coverage",
]
