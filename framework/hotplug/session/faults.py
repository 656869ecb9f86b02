"""What goes wrong on a device, on its way to the session; never seen outside."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from hotplug.errors import ExecutionError, HotplugError, RunCancelledError

__all__ = ["DeviceFault", "at_device", "forget_frames"]


class DeviceFault(Exception):  # noqa: N818 - control flow within a session, never seen outside
    """Something went wrong on a device.

    Attributes:
        device: its id.
        error: what it raised, or an ExecutionError around what is no error of ours.
        clean: whether nothing had been computed yet, so that states are what they were.
    """

    def __init__(self, device: str, error: Exception, *, clean: bool = False) -> None:
        super().__init__(device)
        self.device = device
        self.error = error if isinstance(error, HotplugError) else _foreign(device, error)
        self.clean = clean


def _foreign(device: str, error: Exception) -> ExecutionError:
    wrapped = ExecutionError(f"{device} failed: {error!r}", device=device)
    wrapped.__cause__ = error
    return wrapped


@contextlib.contextmanager
def at_device(device: str, *, clean: bool = False) -> Iterator[None]:
    """Whatever is raised inside is the fault of a device, but for the end that a user put to it."""
    try:
        yield
    except (DeviceFault, RunCancelledError):
        raise
    except Exception as error:
        raise DeviceFault(device, error, clean=clean) from error


def forget_frames(error: BaseException | None) -> None:
    """Drop tracebacks of an error that is kept: their frames keep alive what the run worked on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
