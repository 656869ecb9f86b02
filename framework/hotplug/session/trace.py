"""What ran where and when, in the format that Perfetto opens (https://ui.perfetto.dev).

The format is Chrome's trace events: "X" for something with a beginning and a duration, "C" for a
counter, "M" for the name of a lane. Times in the file are microseconds since the trace was made.
Source: "Trace Event Format", Google, 2016.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Span", "StepTime", "Trace"]


@dataclass(frozen=True, slots=True)
class StepTime:
    """How long a step of a device took.

    Attributes:
        device: its id.
        step: what it did, as `explain` says it.
        seconds: on the device.
    """

    device: str
    step: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took time.

    Attributes:
        lane: a device's id, "run", "copies A -> B", or "copies A -> host".
        name: what it was.
        began: seconds of the trace's clock.
        seconds: how long it took.
        details: further facts, for display.
    """

    lane: str
    name: str
    began: float
    seconds: float
    details: Mapping[str, Any] = field(default_factory=dict)


class Trace:
    """Collects what is done, from any thread.

    Args:
        steps: whether devices run with clocks beside every step. They then do one step after the
            other, which takes longer; without, a part of a plan is one span.
        clock: seconds since some moment.
    """

    def __init__(
        self, *, steps: bool = True, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.steps = steps
        self.now = clock
        self._start = clock()
        self._spans: list[Span] = []
        self._counters: list[tuple[float, str, dict[str, float]]] = []
        self._lock = threading.Lock()

    @property
    def spans(self) -> list[Span]:
        """All that took time so far, in the order in which it ended."""
        with self._lock:
            return list(self._spans)

    def span(self, lane: str, name: str, began: float, **details: Any) -> None:
        """Something that began at a time of `now` and has just ended."""
        span = Span(lane, name, began, self.now() - began, details)
        with self._lock:
            self._spans.append(span)

    def lay_out(self, began: float, times: Sequence[StepTime]) -> None:
        """Steps that a device did one after the other, the first of them at `began`.

        A device tells how long its steps took and not when they began: they are drawn without the
        gaps between them.
        """
        spans = []
        for step in times:
            name, _, nodes = step.step.partition(": ")
            details = {"nodes": nodes} if nodes else {}
            spans.append(Span(step.device, name, began, step.seconds, details))
            began += step.seconds
        with self._lock:
            self._spans += spans

    def count(self, name: str, values: Mapping[str, float]) -> None:
        """What several counters of one name show now, such as bytes of memory by their use."""
        with self._lock:
            self._counters.append((self.now(), name, dict(values)))

    def to_json(self) -> dict[str, Any]:
        """The trace as plain values."""
        with self._lock:
            spans, counters = list(self._spans), list(self._counters)
        lanes = {lane: number for number, lane in enumerate(_lanes(spans), start=1)}
        events = [_named("process_name", 0, "hotplug")]
        events += [_named("thread_name", number, lane) for lane, number in lanes.items()]
        events += [self._event(span, lanes[span.lane]) for span in spans]
        events += [
            {"name": name, "ph": "C", "ts": self._time(at), "pid": _PROCESS, "args": values}
            for at, name, values in counters
        ]
        return {"traceEvents": events, "displayTimeUnit": "ms"}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trace to a file.

        Raises:
            OSError: it cannot be written.
        """
        Path(path).write_text(json.dumps(self.to_json()), encoding="utf-8")

    def _event(self, span: Span, lane: int) -> dict[str, Any]:
        # Beginning and end are rounded, and not the duration: Perfetto drops a span that reaches
        # into the next one, if only by a nanosecond.
        began, ended = self._time(span.began), self._time(span.began + span.seconds)
        return {
            "name": span.name,
            "ph": "X",
            "ts": began,
            "dur": round(ended - began, 3),
            "pid": _PROCESS,
            "tid": lane,
            "args": dict(span.details),
        }

    def _time(self, at: float) -> float:
        return round(1e6 * (at - self._start), 3)


_PROCESS = 1


def _lanes(spans: Sequence[Span]) -> list[str]:
    """Runs first, then devices, then copies, each in the order of first use."""
    used = dict.fromkeys(span.lane for span in spans)
    return sorted(used, key=lambda lane: (lane != "run", " -> " in lane))


def _named(kind: str, lane: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": _PROCESS, "tid": lane, "args": {"name": name}}
