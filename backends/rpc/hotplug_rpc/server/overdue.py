"""Runs that take longer than a server lets one client keep a device from the others."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from hotplug.backend import Executable
from hotplug.errors import DeadlineExceededError, RunCancelledError

__all__ = ["ended_after"]


@contextlib.contextmanager
def ended_after(executable: Executable, seconds: float | None, device: str) -> Iterator[None]:
    """Have what runs inside the context end after so many seconds, as soon as its device can.

    Args:
        executable: that runs.
        seconds: None for no limit.
        device: its id, for the error.

    Raises:
        DeadlineExceededError: it was ended so.
    """
    if seconds is None:
        yield
        return
    over, overdue, lock = threading.Event(), threading.Event(), threading.Lock()

    def stop() -> None:
        with lock:  # else it might stop the executable's next run
            if not over.is_set():
                overdue.set()
                executable.stop()

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    except RunCancelledError as error:
        if not overdue.is_set():
            raise
        raise DeadlineExceededError(
            f"the run took longer than the {seconds:g} s that this server gives one", device=device
        ) from error
    finally:
        with lock:
            over.set()
        timer.cancel()
