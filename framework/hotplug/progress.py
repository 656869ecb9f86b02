"""Long steps report how far they are; whoever shows it to a person listens.

Library code writes `with task("compile kernels", total) as step: ...; step(done)`. Nothing is
printed unless a listener is installed, as the command line does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

__all__ = ["Listener", "listen", "task"]


class Listener(Protocol):
    """Told of every task; each call names the task it is about."""

    def start(self, label: str, total: int) -> None:
        """A task of `total` units begins."""

    def advance(self, label: str, done: int) -> None:
        """`done` units of the task are finished, counted from its start."""

    def stop(self, label: str) -> None:
        """The task ended, finished or not."""


_listeners: list[Listener] = []


@contextlib.contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """Tell `listener` of every task begun inside the context."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


@contextlib.contextmanager
def task(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A long step of `total` units; call the yielded function with the number finished."""
    listeners = tuple(_listeners)
    for listener in listeners:
        listener.start(label, total)

    def advance(done: int) -> None:
        for listener in listeners:
            listener.advance(label, done)

    try:
        yield advance
    finally:
        for listener in listeners:
            listener.stop(label)
