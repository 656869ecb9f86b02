"""Devices that come and go between two runs of a session."""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from hotplug.backend import Device
from hotplug.errors import (
    DeviceHungError,
    DeviceLostError,
    HotplugError,
    RunCancelledError,
    StatesLostError,
    UsageError,
)
from hotplug.registry import Event, EventKind
from hotplug.session.control import Control, control_of
from hotplug.session.faults import DeviceFault
from hotplug.session.fleet import Fleet
from hotplug.session.recovery import Recovery
from hotplug.session.storage import Storage

__all__ = ["Changes"]

_log = logging.getLogger("hotplug.session")

_DRAIN_SECONDS = 30.0
"""How long a backend that is unloaded waits for the run that is on its devices."""


class Changes:
    """What has come up since the last run, in whatever thread it did, and is done before the next.

    Attributes:
        lock: the session's; held while a run or a change is on its way.
        computing: whether it is a run.
    """

    def __init__(
        self, fleet: Fleet, storage: Storage, recovery: Recovery, lock: threading.RLock
    ) -> None:
        self.lock = lock
        self.computing = False
        self._staying: set[str] = set()  # devices that are leaving, without which there are none
        self._fleet = fleet
        self._storage = storage
        self._recovery = recovery
        self._pending: deque[Callable[[], None]] = deque()
        self._selector: str | None = None
        self._end_listening: Callable[[], object] = lambda: None

    def add(self, change: Callable[[], None]) -> None:
        """Have something done before the next run."""
        self._pending.append(change)

    def attend(self, control: Control | None = None) -> None:
        """Do what has come up. What states are lost by it, `Recovery.untold` says.

        A device that is still at work for a run that was ended is waited for.

        Args:
            control: ends the waiting.

        Raises:
            HotplugError: a device failed, and no other may take over.
            RunCancelledError: see `control`.
        """
        self._await(self._fleet.hung(), control)
        self._leave_leaving()
        while self._pending:
            with contextlib.suppress(StatesLostError):
                self._pending.popleft()()

    def _await(self, devices: Sequence[str], control: Control | None) -> None:
        for device in devices:
            self._fleet.await_return(device, control)

    def _leave_leaving(self) -> None:
        """Leave devices that will soon be gone, and have nobody choose them until then."""
        for device, member in tuple(self._fleet.members.items()):
            if not self._is_leaving(member.device) or device in self._staying:
                continue
            try:
                self.drain([device])
            except UsageError as error:
                self._staying.add(device)
                _log.warning("%s will soon be gone: %s", device, error)
            else:
                if member.handle is not None:
                    self._fleet.registry.set_aside(device, "it will soon be gone")

    def _is_leaving(self, device: Device) -> bool:
        """What it says; one that fails at it is left in another way."""
        try:  # a backend need not derive from the contract
            return bool(getattr(device, "leaving", False))
        except Exception as error:  # noqa: BLE001 - it becomes one of ours
            fault = DeviceFault(device.id, error)
            self.add(partial(self._leave_faulty, fault.device, fault.error, changed=False))
            return False

    def note_hung(self, *, changed: bool) -> None:
        """A run was ended from outside; a device that does not let go of it is to be left.

        Args:
            changed: whether the run has perhaps written to states.
        """
        for device in self._fleet.hung():
            error = DeviceHungError(f"{device} did not end its work when asked to", device=device)
            self.add(partial(self._leave_hung, device, error, changed=changed))

    def _leave_hung(self, device: str, error: HotplugError, *, changed: bool) -> None:
        if device in self._fleet.hung():
            self._leave_faulty(device, error, changed=changed)

    def _leave_faulty(self, device: str, error: HotplugError, *, changed: bool) -> None:
        if device in self._fleet.members:
            rows = self._storage.copies.written or None
            self._recovery.set_aside(DeviceFault(device, error), changed=changed, rows=rows)

    def added(self, devices: Mapping[str, int | None], kind: EventKind) -> None:
        """Devices have come into use.

        Args:
            devices: id -> place in the order of preference; None for that of its type.
            kind: what the listeners are told.
        """
        for device, place in devices.items():
            natural = self._fleet.natural_place(device)
            self._fleet.move(device, natural if place is None else place)
        if devices:
            self._staying.clear()
            self._recovery.settle_anew()
        for device in devices:
            self._recovery.tell(kind, device)

    def drain(self, devices: Sequence[str]) -> None:
        """Leave devices that work, if others may take over.

        Raises:
            UsageError: there are no others.
            HotplugError: a device failed meanwhile, and no other may take over.
        """
        others = self._fleet.members.keys() - set(devices)
        if not others and not self._recovery.add_reserve(f"{', '.join(devices)} is to go"):
            raise UsageError(f"{', '.join(devices)} cannot be left: nothing else may take over")
        self._recovery.drain(devices)

    # What the registry tells

    def listen(self, selector: str | None) -> None:
        """Follow what the registry tells; take in devices of a selector, if there is one."""
        self._selector = selector
        method = weakref.WeakMethod(self._hear)

        def hear(event: Event) -> None:
            bound = method()
            if bound is not None:
                bound(event)

        # A session that is dropped without being closed shall not be kept alive by this.
        self._end_listening = weakref.finalize(self, self._fleet.registry.subscribe(hear))

    def close(self) -> None:
        """Hear no more."""
        self._end_listening()
        self._pending.clear()

    def _hear(self, event: Event) -> None:
        if event.kind is EventKind.UNPLUGGING:
            self._unplug(event.backend)
        elif event.kind is EventKind.DEVICE_REMOVED and event.device in self._fleet.members:
            self.add(partial(self._gone, event.device))
        elif event.kind in _COMING and self._selector is not None:
            self.add(partial(self._come, event.device))

    def _unplug(self, backend: str) -> None:
        """A backend is to be unloaded: let go of its devices as soon as no run is on them."""
        if not self.lock.acquire(timeout=_DRAIN_SECONDS):
            return  # whoever unloads it is told who holds it
        try:
            if self.computing:  # this thread looks on at a run of it
                return
            mine = [name for name in self._fleet.members if name.partition(":")[0] == backend]
            if mine:
                with contextlib.suppress(RunCancelledError):  # a run that was ended may be on them
                    self._await(mine, control_of(_DRAIN_SECONDS, None))
                self.drain(mine)
        except UsageError as error:
            _log.info("%s", error)
        finally:
            self.lock.release()

    def _gone(self, device: str) -> None:
        """The registry has no such device any more, or another session has found it lost."""
        member = self._fleet.members.get(device)
        if member is None:
            return
        revoked = member.handle.revoked if member.handle is not None else ""
        problem = revoked or self._fleet.registry.problem(device)
        if problem:
            error = DeviceLostError(f"{device} is gone: {problem}", device=device)
            self._leave_faulty(device, error, changed=False)
        else:
            self.drain([device])

    def _come(self, device: str | None) -> None:
        """Take in what the selector names by now; a device may have been in quarantine."""
        if device is not None:
            self._fleet.forgive(device)
        try:
            selected = self._fleet.registry.select(self._selector or "auto").devices
            added = self._fleet.open(selected)
        except HotplugError as error:
            _log.warning("what has appeared cannot be used: %s", error)
            return
        order = [info.id for info in selected if info.id in self._fleet.members]
        self.added({name: order.index(name) for name in added}, EventKind.DEVICE_ADDED)


_COMING = frozenset({EventKind.DEVICE_ADDED, EventKind.FOUND})
