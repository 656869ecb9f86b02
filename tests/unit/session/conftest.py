"""What tests of sessions share."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from hotplug.session.worker import Worker


class Gate:
    """Something to hang at, until it is opened; a machine under load may take minutes to do so.

    Attributes:
        arrivals: how often somebody came to hang here.
        reached: set at the first time.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self.arrivals = 0
        self.reached = threading.Event()

    def wait(self) -> None:
        self.arrivals += 1
        self.reached.set()
        assert self._event.wait(600), "nobody has opened the gate"

    def open(self) -> None:
        self._event.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A place at which a device hangs; whoever is still there goes on when the test ends."""
    made = Gate()
    yield made
    made.open()


@pytest.fixture
def hasty(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever hangs at the gate has soon done so for long; others have all the time they need."""
    returned = Worker.returned

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return time.monotonic() + 1000 * gate.arrivals

    monkeypatch.setattr("hotplug.session.worker.time", Clock)
    monkeypatch.setattr("hotplug.session.worker._pause", lambda until, control: 0.01)
    monkeypatch.setattr("hotplug.session.worker._GRACE", 0.1)
    monkeypatch.setattr(Worker, "returned", lambda worker, *_: returned(worker, 0.1))
