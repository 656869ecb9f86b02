"""What a session does when one of its devices fails.

    out of memory   compiled graphs that are not needed now are given back; then, if the caller has
                    one, a smaller graph is tried; then less of the device is filled with weights
    anything else   the device is put in quarantine, what it held is given back, and the graph is
                    placed anew on the others and, as HOTPLUG_FALLBACK allows, on the CPU

States are read from the device if it still gives them, else from the host's copies. A run without
states, or one that says which rows of them it writes, is repeated. Where rows are missing, or where
nobody can tell how far the run got, `StatesLostError` says how much is left.
"""

from __future__ import annotations

import contextlib
import logging
import time
import warnings
from collections.abc import Iterable
from functools import partial
from typing import NoReturn

from hotplug.errors import (
    DeviceLostError,
    FallbackWarning,
    HotplugError,
    OutOfDeviceMemoryError,
    StatesLostError,
)
from hotplug.registry import Event, EventKind
from hotplug.registry.events import Listeners
from hotplug.session.faults import DeviceFault, forget_frames
from hotplug.session.fleet import Fleet
from hotplug.session.kept import Kept
from hotplug.session.storage import Storage
from hotplug.settings import Fallback

__all__ = ["Recovery"]

_log = logging.getLogger("hotplug.session")

_SHARE = 0.9
"""Share of a device's free memory for weights and states; the rest is for arenas and the driver."""

_LESS, _LEAST = 0.75, 0.25
"""Where that was too much, the share is cut by a quarter, but not below a quarter."""

_RESERVE = "cpu"
"""Selector of the devices that take over where others cannot."""


class Recovery:
    """Failures of one session's devices.

    Attributes:
        fallback: what the session allows.
        listeners: who is told.
        untold: that states were lost, until whoever runs graphs has been told.
    """

    def __init__(self, fleet: Fleet, storage: Storage, kept: Kept, fallback: Fallback) -> None:
        self.fallback: Fallback = fallback
        self.listeners = Listeners()
        self.untold: StatesLostError | None = None
        self._fleet = fleet
        self._storage = storage
        self._kept = kept
        self._shares: dict[str, float] = {}
        self._holds_reserve = False
        self._warned: set[str] = set()

    def share(self, device: str) -> float:
        """Share of a device's free memory that weights and states may take."""
        return self._shares.get(device, _SHARE)

    def tell(self, kind: EventKind, device: str, reason: str = "") -> None:
        """Tell the session's listeners."""
        self.listeners.tell(Event(kind, device.partition(":")[0], device, reason))

    def add_reserve(self, why: str) -> bool:
        """Let the CPU take over, if that is allowed and not the case yet."""
        if self.fallback == "error" or self._holds_reserve:
            return False
        self._holds_reserve = True
        added: list[str] = []
        try:
            added = self._fleet.open(self._fleet.registry.select(_RESERVE).devices)
        except HotplugError as error:
            _log.warning("the CPU cannot take over: %s", error)
        if added:
            self._warn(f"the CPU takes over what others do not do: {why}")
        return bool(added)

    def make_room(self, fault: DeviceFault) -> bool:
        """Where a device had no room left for a part's own memory, plan with less of its memory.

        Returns:
            Whether it is worth another try.
        """
        share = _LESS * self.share(fault.device)
        if not isinstance(fault.error, OutOfDeviceMemoryError) or share < _LEAST:
            return False
        if not self._carry_states(fault.device, fault.error):
            return False
        self._fleet.give_back(self._kept.take_all() + self._storage.unload([fault.device]))
        self._shares[fault.device] = share
        _log.info("%s: weights and states get %.0f%% of its memory", fault.error, 100 * share)
        return True

    def set_aside(self, fault: DeviceFault, *, changed: bool, rows: int | None = None) -> None:
        """Go on without a device, or raise what it raised.

        Args:
            fault: what it did.
            changed: whether the run has perhaps written to states.
            rows: if so, how many of their first rows it has left alone; None if nobody can tell.

        Raises:
            StatesLostError: states were lost on the way.
            HotplugError: the fault's own error, where no other device may take over.
        """
        error, device = fault.error, fault.device
        nbytes = self._bytes_on(device)
        left = self._save_states(fault, changed=changed, rows=rows)
        frees = self._kept.take_all() + (self._storage.reset() if left == 0 else [])
        frees += self._storage.leave(device)
        self._fleet.give_back([free for free in frees if free[0] != device])
        self._fleet.quarantine(fault, [free for free in frees if free[0] == device], nbytes)
        self.tell(EventKind.QUARANTINED, device, str(error))
        loss: StatesLostError | None = None
        if left is not None:
            rest = f"all but {left} rows of the states" if left else "the states"
            why = f"{device} failed and {rest} are lost: {error}"
            loss = self.lose(why, device=device, rows=left, error=error)
        if self.fallback == "error" or not (self._fleet.members or self.add_reserve(str(error))):
            raise error
        _log.debug("%s failed", device, exc_info=error)
        forget_frames(error)
        self._warn(f"{device} is set aside: {error}; {', '.join(self._fleet.members)} goes on")
        if loss is not None:
            raise loss

    def _bytes_on(self, device: str) -> int:
        uses = [self._storage.memory(), *(compiled.memory() for compiled in self._kept)]
        return int(sum(sum(use.get(device, {}).values()) for use in uses))

    def lose(
        self,
        why: str,
        *,
        device: str | None = None,
        rows: int = 0,
        error: HotplugError | None = None,
    ) -> StatesLostError:
        """States are lost but for some rows; whoever runs a graph next is told, if not before."""
        if self.untold is not None:
            rows = min(rows, self.untold.rows)
        self.untold = StatesLostError(why, device=device, rows=rows)
        self.untold.__cause__ = error
        return self.untold

    def lose_states(self, why: str) -> NoReturn:
        """Let all states start anew.

        Raises:
            StatesLostError: always.
        """
        self._fleet.give_back(self._kept.take_all() + self._storage.reset())
        raise self.lose(f"the states are lost: {why}")

    def _save_states(self, fault: DeviceFault, *, changed: bool, rows: int | None) -> int | None:
        """Bring states to the host; returns how many rows that saved, None for all there are."""
        if changed and rows is None:
            return 0
        if self._carry_states(fault.device, fault.error):
            return None
        copies = self._storage.copies
        if rows is None and not copies.written:  # these are no caches of rows
            return 0
        needed = copies.written if rows is None else rows
        saved = min(copies.saved(self._storage.states_on(fault.device)), needed)
        self._storage.carry_copies(fault.device, saved)
        return None if saved == needed else saved

    def _carry_states(self, device: str, error: HotplugError | None = None) -> bool:
        """Save the states of a device that is to be left; False if that is impossible."""
        if not self._storage.states_on(device):
            return True
        if isinstance(error, DeviceLostError) or device in self._fleet.hung():
            return False
        try:
            self._fleet.ask(device, partial(self._storage.carry_from, device))
        except DeviceFault as fault:
            _log.warning("the states on %s cannot be read: %s", device, fault.error)
            return False
        return True

    def copy_states(self, start: int, stop: int) -> None:
        """Keep the host's copies of states up to date, now that rows have been written."""
        self._storage.copies.wrote(start, stop)
        far = self._storage.to_copy()
        if not far:
            return
        began = time.monotonic()
        try:
            for device in far:
                self._fleet.ask(device, partial(self._storage.copy_states, device))
        except DeviceFault as fault:  # the results are there; the next run will meet it again
            _log.warning("states cannot be copied: %s", fault.error)
        else:
            self._storage.copies.taken(time.monotonic() - began)

    def drain(self, devices: Iterable[str]) -> None:
        """Leave devices that work: states are carried off, weights freed.

        Raises:
            HotplugError: one of them failed at it, and no other may take over.
        """
        for device in devices:
            self._carry_or_set_aside(device)
            if device not in self._fleet.members:
                continue
            frees = self._kept.take_all()
            self._fleet.give_back([free for free in frees if free[0] != device])
            mine = [free for free in frees if free[0] == device]
            self._fleet.leave(device, mine + self._storage.leave(device))
            self.tell(EventKind.DEVICE_REMOVED, device, "it was drained")

    def settle_anew(self) -> None:
        """Let weights and states be placed anew: there are other devices than before.

        Raises:
            HotplugError: a device failed at it, and no other may take over.
        """
        self._fleet.give_back(self._kept.take_all())
        for device in tuple(self._fleet.members):
            self._carry_or_set_aside(device)
        self._fleet.give_back(self._storage.unload(tuple(self._fleet.members)))

    def _carry_or_set_aside(self, device: str) -> None:
        if self._storage.states_on(device):
            try:
                self._fleet.ask(device, partial(self._storage.carry_from, device))
            except DeviceFault as fault:
                with contextlib.suppress(StatesLostError):  # the next run tells of it
                    self.set_aside(fault, changed=False)

    def _warn(self, what: str) -> None:
        _log.info("%s", what)
        if self.fallback == "warn" and what not in self._warned:
            self._warned.add(what)  # once is enough
            warnings.warn(what, FallbackWarning, stacklevel=2)
