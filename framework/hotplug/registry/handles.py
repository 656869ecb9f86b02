"""Opened devices and who holds them.

A device is opened once and shared; each holder has a handle of its own, under a name that the
refusal to unload can tell. The last handle closed closes the device. A handle that is simply
dropped counts as closed.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Self

from hotplug.backend import Device, DeviceInfo
from hotplug.errors import DeviceLostError
from hotplug.registry.guard import guarded, reason_of

__all__ = ["DeviceHandle", "Handles"]

_log = logging.getLogger("hotplug.registry")


@dataclass(slots=True, eq=False)
class _Opened:
    """A device, its holders' names by handle number, and why it is gone, once it is.

    `revoked` is why it was taken from them, apart from other reasons: a forked child cannot use it
    either, but there it may still do, as the processor does.
    """

    info: DeviceInfo
    device: Device
    holders: dict[int, str] = field(default_factory=dict)
    gone: str = ""
    revoked: str = ""


class DeviceHandle:
    """One holder's claim on an opened device. Close it, or use it in a `with` statement.

    Attributes:
        info: what the device is.
        holder: who holds it, for messages.
    """

    def __init__(self, opened: _Opened, number: int, release: Callable[[], None]) -> None:
        self.info = opened.info
        self.holder = opened.holders[number]
        self._opened = opened
        self._finalizer = weakref.finalize(self, release)
        # At exit everything goes at once; closing devices then would race with their own clean-up.
        self._finalizer.atexit = False

    @property
    def id(self) -> str:
        """The device's id, such as "cuda:1"."""
        return self.info.id

    @property
    def is_open(self) -> bool:
        """Whether the device can be reached through this handle."""
        return self._finalizer.alive and not self._opened.gone

    @property
    def revoked(self) -> str:
        """Why the device was taken from its holders by `unload`; empty where it was not."""
        return self._opened.revoked

    @property
    def device(self) -> Device:
        """The device.

        Raises:
            DeviceLostError: the handle is closed, its backend was unloaded by force, or the process
                forked since.
        """
        if not self.is_open:
            why = self._opened.gone or f"{self.holder} has closed it"
            raise DeviceLostError(f"{self.id} cannot be used any more: {why}", device=self.id)
        return self._opened.device

    def close(self) -> None:
        """Give the claim up; a second call does nothing."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "" if self.is_open else ", closed"
        return f"<DeviceHandle {self.id} held by {self.holder}{state}>"


class Handles:
    """All opened devices of a registry. Safe to use from several threads."""

    def __init__(self) -> None:
        # Reentrant, because garbage collection may release a handle at any line of these methods.
        self._lock = threading.RLock()
        self._opened: dict[str, _Opened] = {}  # by device id
        self._retired: list[_Opened] = []  # held still, and shared with nobody new
        self._numbers = count()

    def acquire(
        self, info: DeviceInfo, holder: str, bring_up: Callable[[], Device]
    ) -> DeviceHandle:
        """A new handle; the device is brought up if nobody holds it yet.

        The caller sees to it that no two threads bring up one backend's devices at the same time.
        """
        with self._lock:
            opened = self._opened.get(info.id)
            if opened is not None:
                return self._claim(opened, holder)
        # Outside the lock: bringing a GPU up takes its time, in which other devices can be had.
        opened = _Opened(info, bring_up())
        with self._lock:
            self._opened[info.id] = opened
            return self._claim(opened, holder)

    def _claim(self, opened: _Opened, holder: str) -> DeviceHandle:
        number = next(self._numbers)
        opened.holders[number] = holder
        return DeviceHandle(opened, number, lambda: self._release(opened, number))

    def _release(self, opened: _Opened, number: int) -> None:
        with self._lock:
            opened.holders.pop(number, None)
            if opened.holders or opened.gone:
                return
            opened.gone = "its last holder has closed it"
            self._forget(opened)
        _close(opened)

    def _forget(self, opened: _Opened) -> None:
        if opened in self._retired:
            self._retired.remove(opened)
        else:
            self._opened.pop(opened.info.id, None)

    def _of(self, backend: str) -> list[_Opened]:
        held = [*self._opened.values(), *self._retired]
        return [opened for opened in held if opened.info.backend == backend]

    def retire(self, device: str) -> None:
        """Share a device with nobody who asks for it from now on."""
        with self._lock:
            opened = self._opened.pop(device, None)
            if opened is not None:
                self._retired.append(opened)

    def holders(self, backend: str) -> tuple[str, ...]:
        """Who holds devices of a backend, as "holder (device)"."""
        with self._lock:
            return tuple(
                f"{holder} ({opened.info.id})"
                for opened in self._of(backend)
                for holder in tuple(opened.holders.values())
            )

    def revoke(self, backend: str, why: str) -> None:
        """Close a backend's devices under their holders, who learn why at their next use."""
        with self._lock:
            taken = self._of(backend)
            for opened in taken:
                opened.gone = opened.revoked = why
                self._forget(opened)
        for opened in taken:
            _close(opened)

    def abandon(self, why: str) -> list[str]:
        """Forget every device without closing it, in a forked child; returns their ids."""
        self._lock = threading.RLock()  # a thread that the fork left behind may hold the other
        for opened in (*self._opened.values(), *self._retired):
            opened.gone = why
        return list(self._opened)


def _close(opened: _Opened) -> None:
    outcome = guarded(opened.device.close)
    if outcome.error is not None:
        # The holder is done with it, and there is nobody left who could do anything about it.
        _log.warning("closing %s failed: %s", opened.info.id, reason_of(outcome.error))
