"""Which devices a session uses: the half of it that is about these and not about graphs."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable

from hotplug.backend import Device
from hotplug.errors import HotplugError, UsageError
from hotplug.registry import Event, EventKind
from hotplug.session.changes import Changes
from hotplug.session.control import Control
from hotplug.session.fleet import Fleet, Quarantine
from hotplug.session.kept import Kept
from hotplug.session.recovery import Recovery
from hotplug.session.storage import Storage
from hotplug.settings import Fallback

__all__ = ["Membership"]


class Membership:
    """Devices in use, in quarantine, and changes of that between two runs."""

    def __init__(self, fleet: Fleet, storage: Storage, kept: Kept, fallback: Fallback) -> None:
        self._lock = threading.RLock()  # held while a run or a change is on its way
        self._fleet = fleet
        self._storage = storage
        self._kept = kept
        self._recovery = Recovery(fleet, storage, kept, fallback)
        self._changes = Changes(fleet, storage, self._recovery, self._lock)
        self._closed = False
        _all.add(self)

    @property
    def fallback(self) -> Fallback:
        """What happens when something cannot run as asked."""
        return self._recovery.fallback

    @property
    def devices(self) -> list[Device]:
        """The devices in use, in order of preference."""
        return self._fleet.devices

    @property
    def failed(self) -> dict[str, HotplugError]:
        """Device id -> why it was set aside."""
        return {device: held.error for device, held in self._fleet.quarantined.items()}

    @property
    def quarantine(self) -> dict[str, Quarantine]:
        """Device id -> what is known of a device that was set aside."""
        return self._fleet.quarantined

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Tell `listener` which devices come, go and fail; call what is returned to end that.

        It is called in the thread in which it happens, and must not take long.
        """
        return self._recovery.listeners.subscribe(listener)

    def add_device(self, device: str | Device, *, place: int | None = None) -> list[str]:
        """Take in devices between two runs; what is stored is placed anew.

        Args:
            device: a selector, or a device that is open.
            place: in the order of preference, from 0; None for the one that its type gives it.

        Returns:
            Ids of those that were not in use before.

        Raises:
            SelectorError, DeviceNotFoundError, DeviceUnavailableError: as for the constructor.
            HotplugError: a device failed while states were moved, and no other may take over. If
                another may, the next run tells of states that were lost.
            UsageError: all that it names was set aside and has to be restored, or the session is
                closed.
        """
        with self._lock:
            self._attend()
            if isinstance(device, str):
                infos = self._fleet.registry.select(device).devices
                added = self._fleet.open(infos)
            else:
                infos = (device.info,)
                added = self._fleet.take(device)
            aside = [info.id for info in infos if info.id in self._fleet.quarantined]
            if aside and not added:
                raise UsageError(f"{', '.join(aside)} was set aside", remedy="call `restore`")
            places = {name: None if place is None else place + n for n, name in enumerate(added)}
            self._changes.added(places, EventKind.DEVICE_ADDED)
            return added

    def remove_device(self, device: str) -> None:
        """Leave a device between two runs; its states are carried to others, its weights freed.

        Raises:
            UsageError: it is not in use, or nothing else may take over.
            HotplugError: as for `add_device`.
        """
        with self._lock:
            self._attend()
            if device not in self._fleet.members:
                used = ", ".join(self._fleet.members)
                raise UsageError(f"{device} is not in use; in use: {used or 'nothing'}")
            self._changes.drain([device])

    def restore(self, device: str) -> None:
        """Bring a device back that was set aside.

        Raises:
            UsageError: it was not set aside, or the session is closed.
            DeviceUnavailableError: it cannot be opened.
            DeviceHungError: the call that it gave no answer to is still on its way.
            HotplugError: as for `add_device`.
        """
        with self._lock:
            self._attend()
            if device not in self._fleet.quarantined:
                raise UsageError(f"{device} was not set aside")
            place = self._fleet.bring_back(device)
            self._changes.added({device: place}, EventKind.RESTORED)

    def _require_open(self) -> None:
        # Else the CPU would take over from the devices given back, with states that are gone.
        if self._closed:
            raise UsageError("the session is closed")

    def _require_idle(self) -> None:
        # Whoever looks on at a run, or handles a signal, is let in by the lock of its own thread.
        if self._changes.computing:
            raise UsageError("this cannot be done within a run of the session, but when it is over")

    def _attend(self, control: Control | None = None) -> None:
        self._require_open()
        self._require_idle()
        self._changes.attend(control)

    def _forget(self) -> None:
        """Start anew in a forked child, where a thread of the parent's may have been in a run."""
        idle = self._lock.acquire(blocking=False)
        self._lock = self._changes.lock = threading.RLock()
        self._fleet.forget()
        self._changes.computing = False
        if not idle:
            self._changes.add(self._torn)

    def _torn(self) -> None:
        self._fleet.give_back(self._kept.take_all() + self._storage.reset())
        self._recovery.lose(
            "this process was forked while another thread was in a run; the states are lost"
        )


_all: weakref.WeakSet[Membership] = weakref.WeakSet()


def _after_fork() -> None:
    for one in tuple(_all):
        one._forget()  # noqa: SLF001 - its own module


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_after_fork)
