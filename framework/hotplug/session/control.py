"""How long a run may take, and how another thread ends it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from hotplug.errors import DeadlineExceededError, RunCancelledError, UsageError

__all__ = ["POLL", "CancelToken", "Control", "control_of", "held"]

POLL = 0.02
"""Seconds between two looks at a token, which may be used at any time."""


class CancelToken:
    """Ends every run that was given it, from any thread and for good.

    Attributes:
        reason: what was said when it was used; for the error's text.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._used = False

    def cancel(self, reason: str = "the run was cancelled") -> None:
        """End the runs; those that begin later end at once."""
        self.reason = reason
        self._used = True

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._used


@dataclass(frozen=True, slots=True)
class Control:
    """What may end a run.

    Attributes:
        deadline: by `time.monotonic`; None for no limit.
        seconds: how long that was from the start.
        token: None if nobody else can end it.
    """

    deadline: float | None
    seconds: float | None = None
    token: CancelToken | None = None

    def remaining(self) -> float | None:
        """Seconds until the deadline, not below zero; None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def problem(self) -> RunCancelledError | None:
        """Why the run must end now, if it must."""
        if self.token is not None and self.token.cancelled:
            return RunCancelledError(self.token.reason)
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return DeadlineExceededError(f"the run was not done within {self.seconds:g} s")
        return None

    def check(self) -> None:
        """Raise the problem, if there is one."""
        problem = self.problem()
        if problem is not None:
            raise problem


def control_of(timeout: float | None, cancel: CancelToken | None) -> Control | None:
    """What ends a run that begins now; None if nothing does.

    Raises:
        UsageError: the time is no positive number of seconds.
    """
    if timeout is None and cancel is None:
        return None
    if timeout is None:
        return Control(None, token=cancel)
    if not timeout > 0:  # NaN compares false
        raise UsageError(f"a time limit must be a number of seconds above 0, not {timeout}")
    return Control(time.monotonic() + timeout, timeout, cancel)


@contextlib.contextmanager
def held(lock: threading.RLock, control: Control | None) -> Iterator[None]:
    """Hold a lock, for which a run that may be ended does not wait any longer than that.

    Raises:
        RunCancelledError: the run was ended meanwhile.
    """
    if control is None:
        lock.acquire()
    else:
        control.check()
        while not lock.acquire(timeout=POLL):
            control.check()
    try:
        yield
    finally:
        lock.release()
