"""The devices of a session: opened, called, left, and brought back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from hotplug.backend import Device, DeviceInfo, DeviceType
from hotplug.errors import DeviceHungError, DeviceLostError, HotplugError, UsageError
from hotplug.registry import DeviceHandle, Registry, default
from hotplug.session.control import Control
from hotplug.session.faults import DeviceFault, at_device
from hotplug.session.storage import Frees
from hotplug.session.turns import Turn, join
from hotplug.session.worker import Worker, give_back

__all__ = ["Fleet", "Member", "Quarantine"]

_log = logging.getLogger("hotplug.session")

_SLOWEST_OPERATIONS, _SLOWEST_BYTES = 1e9, 1e7
"""A second: what any device computes, and what any link carries. Large work has more time."""

_COMPILING = 10
"""Compilers are slow: how much more time they have."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A device that a session does without, until it is brought back.

    Attributes:
        device: its id.
        error: what it raised.
        at: when that was, in seconds since the epoch.
        stuck: whether a thread is still in a call to it.
        nbytes: what the session held there and cannot give back before that call returns.
    """

    device: str
    error: HotplugError
    at: float
    stuck: bool = False
    nbytes: int = 0


@dataclass(slots=True)
class Member:
    """A device in use.

    Attributes:
        device: what to call.
        worker: who calls it, where it may hang.
        turn: to be taken where other sessions use it, too.
        handle: the claim on it; None if it was given to the session open.
        near: whether it is the host itself, which is called without a limit.
    """

    device: Device
    worker: Worker
    turn: Turn
    handle: DeviceHandle | None
    near: bool

    def let_go(self) -> None:
        """Give up the claim."""
        if self.handle is not None:
            self.handle.close()


class Fleet:
    """Devices by id, in order of preference.

    Args:
        registry: where they come from; None takes the process' own.
        holder: for whom they are opened, as `unload` calls them.
        timeout: seconds after which a device that gives no answer is given up; None for never.

    Attributes:
        members: those in use.
        timeout: as above.
    """

    def __init__(self, registry: Registry | None, holder: str, timeout: float | None) -> None:
        if timeout is not None and not timeout > 0:
            raise UsageError(f"device_timeout is a number of seconds above 0, not {timeout}")
        self.members: dict[str, Member] = {}
        self.timeout = timeout
        self._given = registry
        self._holder = holder
        self._quarantined: dict[str, tuple[Quarantine, Worker, Device | None, int]] = {}

    @property
    def registry(self) -> Registry:
        """Where devices come from."""
        return self._given or default()

    @property
    def devices(self) -> list[Device]:
        """The devices in use, in order of preference."""
        return [member.device for member in self.members.values()]

    @property
    def quarantined(self) -> dict[str, Quarantine]:
        """Device id -> why it is not in use."""
        return {
            device: replace(held, stuck=True) if worker.stuck else replace(held, nbytes=0)
            for device, (held, worker, _, _) in self._quarantined.items()
        }

    # Coming and going

    def open(self, infos: Iterable[DeviceInfo]) -> list[str]:
        """Claim devices that are neither in use nor in quarantine; returns their ids."""
        wanted = [i for i in infos if i.id not in self.members and i.id not in self._quarantined]
        for info in wanted:
            handle = self.registry.open(info, holder=self._holder)
            self._enter(handle.device, handle)
        return [info.id for info in wanted]

    def take(self, device: Device) -> list[str]:
        """Use a device that is open already, if it is neither in use nor in quarantine."""
        if device.id in self.members or device.id in self._quarantined:
            return []
        self._enter(device, None)
        return [device.id]

    def _enter(self, device: Device, handle: DeviceHandle | None) -> None:
        near = device.info.type is DeviceType.CPU and device.buffers.is_host
        self.members[device.id] = Member(device, Worker(device.id), join(device), handle, near)

    def leave(self, device: str, frees: Frees) -> None:
        """Do without a device, once what the session has there is given back."""
        member = self.members[device]
        member.turn.leave()
        self._give_back(member, [*(free for _, free in frees), member.let_go])
        del self.members[device]
        member.worker.close()

    def quarantine(self, fault: DeviceFault, frees: Frees, nbytes: int) -> None:
        """Leave a device because of what it did. Where it is gone for all, all are told.

        Args:
            fault: what it did.
            frees: what gives back what the session has there.
            nbytes: how much that is.
        """
        member = self.members[fault.device]
        place = list(self.members).index(fault.device)
        held = Quarantine(fault.device, fault.error, time.time(), nbytes=nbytes)
        given = member.device if member.handle is None else None
        self._quarantined[fault.device] = held, member.worker, given, place
        revoked = member.handle is not None and bool(member.handle.revoked)
        self.leave(fault.device, frees)
        if isinstance(fault.error, DeviceLostError) and given is None and not revoked:
            self.registry.set_aside(fault.device, str(fault.error))

    def bring_back(self, device: str) -> int:
        """Use a device from the quarantine again; returns where it stood before.

        Raises:
            KeyError: it is in no quarantine.
            DeviceHungError: the call that did not come back is still on its way.
            DeviceUnavailableError: it cannot be opened.
        """
        held, worker, given, place = self._quarantined[device]
        if given is None:
            self.registry.bring_back(device)
            # A driver that hung may do so again.
            opening = partial(self.registry.open, device, self._holder)
            handle = Worker(device).call(opening, self.patience(compiling=True))
            self._enter(handle.device, handle)
        elif worker.stuck:
            raise DeviceHungError(f"{device} still gives no answer: {held.error}", device=device)
        else:
            self._enter(given, None)
        del self._quarantined[device]
        return place

    def move(self, device: str, place: int) -> None:
        """Change a device's place in the order of preference."""
        order = [name for name in self.members if name != device]
        order.insert(place, device)
        self.members = {name: self.members[name] for name in order}

    def forgive(self, device: str) -> None:
        """A device in quarantine may be taken in again, if something finds it."""
        self._quarantined.pop(device, None)

    def natural_place(self, device: str) -> int:
        """Where a device belongs by its type: before those of types that are chosen later."""
        ranks = {kind: rank for rank, kind in enumerate(DeviceType)}
        mine = ranks[self.members[device].device.info.type]
        others = [m for name, m in self.members.items() if name != device]
        return sum(ranks[member.device.info.type] <= mine for member in others)

    # Calls

    def call(
        self,
        device: str,
        work: Callable[[], T],
        *,
        limit: float | None = None,
        control: Control | None = None,
        stop: Callable[[], object] | None = None,
        aside: bool = False,
    ) -> T:
        """Have a device do something: by its worker, if there is something to watch.

        Args:
            device: its id.
            work: what to do; whatever it raises is passed on.
            limit: seconds after which the device counts as hung, see `patience`.
            control: what ends the run.
            stop: asks the device to end the work early.
            aside: let the worker do it even where the device cannot hang.

        Raises:
            DeviceHungError: it gave no answer.
            RunCancelledError: the run was ended.
        """
        member = self.members[device]
        if (member.near or limit is None) and control is None and not aside:
            return work()
        return member.worker.call(work, None if member.near else limit, control, stop)

    def ask(self, device: str, work: Callable[[], T]) -> T:
        """Have a device do something small; what goes wrong is its fault.

        Raises:
            DeviceFault: see above.
        """
        with at_device(device):
            return self.call(device, work, limit=self.patience())

    def patience(
        self, operations: float = 0, nbytes: float = 0, *, compiling: bool = False
    ) -> float | None:
        """Seconds that a device has for so much work; None for no limit."""
        if self.timeout is None:
            return None
        slow = operations / _SLOWEST_OPERATIONS + nbytes / _SLOWEST_BYTES
        return self.timeout * (_COMPILING if compiling else 1) + slow

    def give_back(self, frees: Frees) -> None:
        """Free things on several devices, of which some may fail or hang at it."""
        for device in dict.fromkeys(device for device, _ in frees):
            mine = [free for name, free in frees if name == device]
            if device in self.members:
                self._give_back(self.members[device], mine)
            else:
                give_back(mine)

    def _give_back(self, member: Member, frees: Sequence[Callable[[], object]]) -> None:
        if not frees or member.worker.leave_to(frees):
            return
        limit = self.patience()
        if member.near or limit is None or member.worker.abandoned:
            give_back(frees)
            return
        try:
            member.worker.call(partial(give_back, frees), limit)
        except DeviceHungError as error:
            _log.warning("giving memory back: %s", error)

    def hung(self) -> list[str]:
        """Ids of devices with a call that was given up."""
        return [device for device, member in self.members.items() if member.worker.abandoned]

    def await_return(self, device: str, control: Control | None) -> None:
        """Wait for a call that was given up, for as long as it might have taken had it not been.

        If it comes back, the device can be used again.

        Raises:
            RunCancelledError: whoever waits is to do so no longer.
        """
        member = self.members[device]
        patience = self.timeout if member.near else member.worker.patience
        if member.worker.abandoned and member.worker.returned(patience, control):
            member.worker = Worker(device)

    def blame(self, caller: str, culprit: str) -> None:
        """A call by one device's worker hangs at another device, from which it copies."""
        if caller == culprit:
            return
        stuck, self.members[caller].worker = self.members[caller].worker, Worker(caller)
        self.members[culprit].worker.close()
        self.members[culprit].worker = stuck

    def forget(self) -> None:
        """Start anew in a forked child, which has none of the threads."""
        for member in self.members.values():
            member.worker = Worker(member.device.id)
