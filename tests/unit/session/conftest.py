"""What tests of sessions share."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest


class Gate:
    """Something to hang at, until it is opened."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.reached = threading.Event()

    def wait(self) -> None:
        self.reached.set()
        assert self._event.wait(60), "nobody has opened the gate"

    def open(self) -> None:
        self._event.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A place at which a device hangs; whoever is still there goes on when the test ends."""
    made = Gate()
    yield made
    made.open()
