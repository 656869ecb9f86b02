"""The whole suite: every case and behaviour on every device of a backend, and what it covers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from hotplug.backend import Backend, Device
from hotplug.testing.conformance.behaviour import BEHAVIOURS
from hotplug.testing.conformance.case import Case
from hotplug.testing.conformance.cases import all_cases
from hotplug.testing.conformance.check import Mismatch, Outcome, Result, Unsupported, check

__all__ = [
    "Report", "case_groups", "check_backend", "check_behaviour", "check_device", "coverage",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the suite.

    Attributes:
        results: by device id, in the order in which they ran.
    """

    results: dict[str, tuple[Result, ...]]

    @property
    def failures(self) -> tuple[tuple[str, Result], ...]:
        """(device id, result) of all that failed."""
        return tuple((device, r) for device, r in self._all() if r.outcome is Outcome.FAILED)

    @property
    def skipped(self) -> tuple[tuple[str, Result], ...]:
        """(device id, result) of all that the device declares not to support."""
        return tuple((device, r) for device, r in self._all() if r.outcome is Outcome.SKIPPED)

    @property
    def ok(self) -> bool:
        """Whether there is a device and nothing failed."""
        return bool(self.results) and not self.failures

    def __str__(self) -> str:
        lines = [f"{device}: {_counts(results)}" for device, results in self.results.items()]
        return "\n".join([*lines, *(f"{device}: {result}" for device, result in self.failures)])

    def _all(self) -> Iterator[tuple[str, Result]]:
        for device, results in self.results.items():
            yield from ((device, result) for result in results)


def _counts(results: tuple[Result, ...]) -> str:
    counts = Counter(result.outcome for result in results)
    return ", ".join(f"{counts[outcome]} {outcome.value}" for outcome in Outcome)


def check_backend(backend: Backend, *, exhaustive: bool = False) -> Report:
    """Open each device of a backend and run the suite on it.

    Args:
        backend: what is checked.
        exhaustive: whether the slow cases run too.
    """
    results = {}
    for info in backend.probe():
        with backend.open(info) as device:
            results[device.id] = tuple(check_device(device, exhaustive=exhaustive))
    return Report(results)


def check_device(device: Device, *, exhaustive: bool = False) -> Iterator[Result]:
    """Run the suite on a device, result by result."""
    for name in BEHAVIOURS:
        yield check_behaviour(device, name)
    for group in case_groups(slow=False).values():
        yield from (check(device, case) for case in group)
    if exhaustive:
        for group in case_groups(slow=True).values():
            yield from (check(device, case) for case in group)


def check_behaviour(device: Device, name: str) -> Result:
    """Run one of `BEHAVIOURS`."""
    try:
        BEHAVIOURS[name](device)
    except Mismatch as mismatch:
        return Result(name, Outcome.FAILED, str(mismatch))
    except Unsupported as refusal:
        return Result(name, Outcome.SKIPPED, str(refusal))
    except Exception as error:  # noqa: BLE001  (a device may raise anything; it is in the report)
        return Result(name, Outcome.FAILED, f"raised {type(error).__name__}: {error}")
    return Result(name, Outcome.PASSED)


@cache
def case_groups(*, slow: bool) -> dict[str, tuple[Case, ...]]:
    """The cases by what stands before the first "/" of their names: an op or a kind of program."""
    groups: dict[str, list[Case]] = {}
    for case in all_cases():
        if case.slow == slow:
            groups.setdefault(case.name.partition("/")[0], []).append(case)
    return {name: tuple(cases) for name, cases in groups.items()}


def coverage() -> dict[str, frozenset[str]]:
    """For each op in a case that is not slow: the dtypes of results and operands it occurs with."""
    found: dict[str, set[str]] = {}
    for group in case_groups(slow=False).values():
        for case in group:
            for node in case.graph.nodes:
                dtypes = found.setdefault(node.op, set())
                dtypes.update(value.dtype.name for value in (node, *node.operands))
    return {op: frozenset(dtypes) for op, dtypes in found.items()}
