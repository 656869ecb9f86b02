"""A thread that calls a device, so that whoever waits for it can give up.

A call into a driver cannot be stopped from outside, only left behind: the thread that made it stays
in it, and so does the memory that it works on. What is to be given back meanwhile is therefore left
to that thread, which does it when the driver lets it go, and ends.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from hotplug.errors import DeviceHungError
from hotplug.session.control import POLL, Control

__all__ = ["Worker", "give_back"]

_log = logging.getLogger("hotplug.session")

_GRACE = 1.0
"""Seconds that a device has to end what it was asked to end."""

_SLICE = 0.1
"""Seconds after which Ctrl-C is noticed even if it does not interrupt the wait for a lock: on
Windows it never does, elsewhere not if the system has another thread take the signal."""

T = TypeVar("T")


@dataclass(slots=True)
class _Line:
    """What a thread and those who call by it have in common.

    Attributes:
        work: what is to be done next; None for the end of the thread.
        result: of the last work.
        error: what it raised.
        begin: released when there is work.
        end: released when it is done.
        guard: held to look at or change what follows.
        busy: whether the thread is in a call.
        abandoned: whether nobody waits for it any more.
        later: what is to be freed when it comes back.
    """

    work: Callable[[], Any] | None = None
    result: Any = None
    error: BaseException | None = None
    begin: threading.Lock = field(default_factory=threading.Lock)
    end: threading.Lock = field(default_factory=threading.Lock)
    guard: threading.Lock = field(default_factory=threading.Lock)
    busy: bool = False
    abandoned: bool = False
    later: list[Callable[[], object]] = field(default_factory=list)

    def clear(self) -> None:
        """Let go of what the last work was about."""
        self.work = self.result = self.error = None

    def hang_up(self) -> None:
        """Let the thread end."""
        if not self.abandoned:
            self.work = None
            self.begin.release()


class Worker:
    """One device's thread, started at its first call; it ends with the worker.

    Attributes:
        device: its id.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._line = _Line()
        self._line.begin.acquire()
        self._line.end.acquire()
        self._thread: threading.Thread | None = None
        self._until: float | None = None  # when the present call has taken too long
        self._end: Callable[[], object] = lambda: None

    @property
    def abandoned(self) -> bool:
        """Whether a call did not come back; the worker takes no more of them."""
        return self._line.abandoned

    @property
    def stuck(self) -> bool:
        """Whether the thread is in a call that was given up."""
        return self.abandoned and self._thread is not None and self._thread.is_alive()

    def call(
        self,
        work: Callable[[], T],
        limit: float | None = None,
        control: Control | None = None,
        stop: Callable[[], object] | None = None,
    ) -> T:
        """Have the thread do something, and wait for it.

        Args:
            work: what to do.
            limit: seconds after which the device counts as hung; None for no limit.
            control: what ends the run.
            stop: asks the device to end its work early.

        Raises:
            DeviceHungError: the device gave no answer within the limit.
            RunCancelledError: the run was ended; the worker is abandoned if the device was not.
        """
        if self.abandoned:
            raise DeviceHungError(f"{self.device} still gives no answer", device=self.device)
        if self._thread is None:
            self._start()
        line = self._line
        line.work, line.busy = work, True
        self._until = None if limit is None else time.monotonic() + limit
        try:
            line.begin.release()
            self._wait(limit, control)
        except BaseException as error:
            hung = limit is not None and isinstance(error, DeviceHungError)
            self._settle(stop, min(_GRACE, limit) if hung and limit else _GRACE)
            raise
        return cast("T", self._outcome())

    def _start(self) -> None:
        self._thread = threading.Thread(
            target=_serve,
            args=(self._line, self.device),
            name=f"hotplug-{self.device}",
            daemon=True,
        )
        self._thread.start()
        finalizer = weakref.finalize(self, self._line.hang_up)
        finalizer.atexit = False  # the thread is a daemon
        self._end = finalizer

    def _wait(self, limit: float | None, control: Control | None) -> None:
        """Return when the work is done; raise when it is given up."""
        end = self._line.end
        until = None if limit is None else time.monotonic() + limit
        while not end.acquire(timeout=_pause(until, control)):
            if control is not None:
                control.check()
            if until is not None and time.monotonic() >= until:
                raise DeviceHungError(
                    f"{self.device} gave no answer within {limit:g} s", device=self.device
                )

    def _settle(self, stop: Callable[[], object] | None, grace: float) -> None:
        """Give the device a moment to come back to us; else leave its thread behind."""
        line, ended = self._line, False
        until = time.monotonic() + grace
        try:
            while not ended and time.monotonic() < until:
                if stop is not None:  # more than once, since it does nothing before the run begins
                    stop()
                ended = line.end.acquire(timeout=POLL)
        finally:  # an impatient user may interrupt this, too
            with line.guard:
                line.abandoned = line.busy
            if not line.abandoned:
                ended = ended or line.end.acquire()
                line.clear()

    def _outcome(self) -> Any:
        result, error = self._line.result, self._line.error
        self._line.clear()
        if error is not None:
            try:
                raise error
            finally:
                del error  # it would be held by its own traceback
        return result

    @property
    def patience(self) -> float | None:
        """Seconds that the present call may still take; None for any number."""
        return None if self._until is None else max(0.0, self._until - time.monotonic())

    def returned(self, patience: float | None = 0.0, control: Control | None = None) -> bool:
        """Whether a call that was given up has come back, in so many seconds; None waits for ever.

        Raises:
            RunCancelledError: whoever waits is to do so no longer.
        """
        until = None if patience is None else time.monotonic() + patience
        while self.stuck and (until is None or time.monotonic() < until):
            assert self._thread is not None
            self._thread.join(_pause(until, control))
            if control is not None:
                control.check()
        return not self.stuck

    def leave_to(self, frees: Iterable[Callable[[], object]]) -> bool:
        """Leave to the abandoned thread what must wait for its call to come back.

        Returns:
            False if there is nothing to wait for.
        """
        with self._line.guard:
            if not (self._line.abandoned and self._line.busy):
                return False
            self._line.later.extend(frees)
            return True

    def close(self) -> None:
        """Let the thread end; the worker cannot be used any more."""
        self._end()


def _serve(line: _Line, device: str) -> None:
    while True:
        line.begin.acquire()
        work = line.work
        if work is None:
            return
        try:
            line.result = work()
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            line.error = error
        del work
        with line.guard:
            line.busy = False
            if line.abandoned:
                break
        line.end.release()
    _log.warning("%s has come back after it was given up", device)
    line.clear()
    give_back(line.later)


def _pause(until: float | None, control: Control | None) -> float:
    """Seconds to wait before looking again."""
    limits = [_SLICE]
    if until is not None:
        limits.append(until - time.monotonic())
    if control is not None:
        remaining = control.remaining()
        limits += [] if remaining is None else [remaining]
        limits += [POLL] if control.token is not None else []
    return max(0.0, min(limits))


def give_back(frees: Iterable[Callable[[], object]]) -> None:
    """Free one thing after the other.

    What a device that failed says to that is logged: there is nothing more to be done.
    """
    for free in frees:
        try:
            free()
        except Exception as error:  # noqa: BLE001 - see above
            _log.debug("freeing failed: %r", error)
