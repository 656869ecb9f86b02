"""Sessions that share a device use it in the order in which they came."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque

from hotplug.backend import Device, DeviceType
from hotplug.session.control import Control

__all__ = ["Turn", "join"]


_POLL = 0.05
"""Seconds between two looks at whether the run was ended."""


class Turn:
    """A lock that is handed on first come, first served; held by whoever uses the device.

    Locks of Python's go to whoever is fastest, which is the thread that has just released it.

    Attributes:
        device: what it is the turn at.
        users: sessions that hold the device. A single one need not enter.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.users = 0
        self.forget()

    def forget(self) -> None:
        """Start anew, as a forked child must: who held or awaited it stayed in the parent."""
        self._guard = threading.Lock()
        self._held = False
        self._waiting: deque[threading.Lock] = deque()

    def leave(self) -> None:
        """One session less."""
        with _lock:
            self.users -= 1

    def acquire(self, control: Control | None = None) -> None:
        """Wait until it is one's turn.

        Raises:
            RunCancelledError: the run was ended meanwhile.
        """
        with self._guard:
            if not self._held:
                self._held = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        try:
            while not mine.acquire(timeout=_POLL):
                if control is not None:
                    control.check()
        except BaseException:
            self._give_up(mine)
            raise

    def release(self) -> None:
        """Let the next one have it."""
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False

    def _give_up(self, mine: threading.Lock) -> None:
        """An interrupt ended the wait; the turn may have come just then."""
        with self._guard:
            if mine in self._waiting:
                self._waiting.remove(mine)
                return
        self.release()


# By identity: devices need be neither hashable nor weakly referable. Sessions keep turns alive.
_turns: weakref.WeakValueDictionary[int, Turn] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def join(device: Device) -> Turn:
    """The one turn of an opened device, with one session more.

    A remote device's server sees to turns, and while one session waits for the link, others use it.
    """
    with _lock:
        if device.info.type is DeviceType.REMOTE:
            turn = Turn(device)
        else:
            turn = _turns.setdefault(id(device), Turn(device))
        turn.users += 1
        return turn


def _forget() -> None:
    global _lock
    _lock = threading.Lock()
    for turn in tuple(_turns.values()):
        turn.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
