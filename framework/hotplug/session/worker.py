"""A thread that calls a device, so that whoever waits for it can give up.

A call into a driver cannot be stopped from outside, only left behind: the thread that made it stays
in it, and so does the memory that it works on. What is to be given back meanwhile is therefore left
to that thread, which does it when the driver lets it go, and ends.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from hotplug.errors import DeviceHungError
from hotplug.session.control import Control

__all__ = ["Worker", "give_back"]

_log = logging.getLogger("hotplug.session")

_POLL = 0.02
"""Seconds between two looks at a token, which may be used at any time."""

_GRACE = 1.0
"""Seconds that a device has to end what it was asked to end."""

_SLICE = 0.1 if sys.platform == "win32" else None
"""Seconds for which Windows lets a lock hold up Ctrl-C."""

T = TypeVar("T")


class Worker:
    """One device's thread, started at its first call.

    Attributes:
        device: its id.
        abandoned: whether a call did not come back; the worker takes no more of them.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.abandoned = False
        self._thread: threading.Thread | None = None
        self._work: Callable[[], Any] | None = None
        self._result: Any = None
        self._error: BaseException | None = None
        self._begin = threading.Lock()
        self._end = threading.Lock()
        self._begin.acquire()
        self._end.acquire()
        self._guard = threading.Lock()  # of what follows
        self._busy = False
        self._later: list[Callable[[], object]] = []

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
            self._thread = threading.Thread(
                target=self._serve, name=f"hotplug-{self.device}", daemon=True
            )
            self._thread.start()
        self._work, self._busy = work, True
        try:
            self._begin.release()
            self._wait(limit, control)
        except BaseException as error:
            hung = limit is not None and isinstance(error, DeviceHungError)
            self._settle(stop, min(_GRACE, limit) if hung and limit else _GRACE)
            raise
        return cast("T", self._outcome())

    def _wait(self, limit: float | None, control: Control | None) -> None:
        """Return when the work is done; raise when it is given up."""
        if control is None and limit is None:
            while not self._end.acquire(timeout=-1 if _SLICE is None else _SLICE):
                pass
            return
        until = None if limit is None else time.monotonic() + limit
        while not self._end.acquire(timeout=_pause(until, control)):
            if control is not None:
                control.check()
            if until is not None and time.monotonic() >= until:
                raise DeviceHungError(
                    f"{self.device} gave no answer within {limit:g} s", device=self.device
                )

    def _settle(self, stop: Callable[[], object] | None, grace: float) -> None:
        """Give the device a moment to come back to us; else leave its thread behind."""
        ended = False
        until = time.monotonic() + grace
        try:
            while not ended and time.monotonic() < until:
                if stop is not None:  # more than once, since it does nothing before the run begins
                    stop()
                ended = self._end.acquire(timeout=_POLL)
        finally:  # an impatient user may interrupt this, too
            with self._guard:
                self.abandoned = self._busy
            if not self.abandoned:
                ended = ended or self._end.acquire()
                self._result = self._error = self._work = None

    def _outcome(self) -> Any:
        result, error = self._result, self._error
        self._result = self._error = self._work = None
        if error is not None:
            try:
                raise error
            finally:
                del error  # it would be held by its own traceback
        return result

    def _serve(self) -> None:
        while True:
            self._begin.acquire()
            work = self._work
            if work is None:
                return
            try:
                self._result = work()
            except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
                self._error = error
            del work
            with self._guard:
                self._busy = False
                if self.abandoned:
                    break
            self._end.release()
        _log.warning("%s has come back after it was given up", self.device)
        self._result = self._error = self._work = None
        give_back(self._later)

    def leave_to(self, frees: Iterable[Callable[[], object]]) -> bool:
        """Leave to the abandoned thread what must wait for its call to come back.

        Returns:
            False if there is nothing to wait for.
        """
        with self._guard:
            if not (self.abandoned and self._busy):
                return False
            self._later.extend(frees)
            return True

    def close(self) -> None:
        """Let the thread end; the worker cannot be used any more."""
        if self._thread is not None and not self.abandoned:
            self._work = None
            self._begin.release()
            self._thread = None


def _pause(until: float | None, control: Control | None) -> float:
    """Seconds to wait before looking again."""
    limits = [threading.TIMEOUT_MAX if _SLICE is None else _SLICE]
    if until is not None:
        limits.append(until - time.monotonic())
    if control is not None:
        remaining = control.remaining()
        limits += [] if remaining is None else [remaining]
        limits += [_POLL] if control.token is not None else []
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
