"""Devices that are offered, and how much of their memory is given away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeAlias

from hotplug.backend import Device, MemoryInfo
from hotplug.errors import OutOfDeviceMemoryError
from hotplug.registry.guard import info_to_json
from hotplug_rpc.server.desk import Desk, Job
from hotplug_rpc.server.idle import Idle

__all__ = ["Offer", "Others"]

Others: TypeAlias = "Callable[[int], int]"
"""Told what is taken of a device here, tells what is taken elsewhere."""

_ASK_SECONDS = 0.1

_PATIENCE = 1.0
"""Seconds for which a thread waits for another one that asks a device just now, which may hang."""


class Offer:
    """One device.

    Attributes:
        device: the opened device.
        desk: the thread that works on it.
        idle: what no session uses at present.
        taken: bytes that sessions hold on it.
        others: what other processes have taken of it, which must be told what is taken here.
    """

    def __init__(
        self, device: Device, budget: int | None = None, idle_seconds: float = 0.0
    ) -> None:
        self.device = device
        self.others: Others = _nobody
        self.desk = Desk(f"hotplug-rpc-{device.id}")
        self.idle = Idle(idle_seconds)
        self.taken = 0
        self._budget = budget
        self._asked = -_ASK_SECONDS
        self._seen: tuple[int | None, int] = (None, 0)  # bytes that were free, and held then
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._silent = False  # somebody has asked the device and waited in vain for its answer

    @property
    def id(self) -> str:
        """The device's id here."""
        return self.device.id

    def memory(self) -> MemoryInfo:
        """The device's memory, as far as it is offered; what is idle counts as free."""
        memory = self._device_memory()
        if memory.free is not None:
            memory = MemoryInfo(memory.total, memory.free + self.idle.nbytes)
        if self._budget is None:
            return memory
        left = max(0, self._budget - self.taken - self.others(self.taken))
        return MemoryInfo(_least(memory.total, self._budget), _least(memory.free, left))

    def _device_memory(self) -> MemoryInfo:
        """What the device says; nothing is known while it does not answer somebody else."""
        if not self._asking.acquire(timeout=0.0 if self._silent else _PATIENCE):
            self._silent = True
            return MemoryInfo(None, None)
        try:
            return self.device.memory()
        finally:
            self._silent = False
            self._asking.release()

    def take(self, nbytes: int) -> None:
        """Give so many bytes away.

        Raises:
            OutOfDeviceMemoryError: the device has no room for them, or its budget does not.
        """
        self._look()  # before the lock is taken, as a device that hangs would hold it for ever
        with self._lock:
            elsewhere = self.others(self.taken + nbytes)
            room = self._room(elsewhere)
            while room is not None and nbytes > room and self.idle.drop_oldest():
                self._asked = -_ASK_SECONDS
                self._look()
                room = self._room(elsewhere)
            if room is not None and nbytes > room:
                self.others(self.taken)
                raise OutOfDeviceMemoryError(
                    f"{self.id} has {room} bytes left to give, {nbytes} needed",
                    device=self.id,
                    requested=nbytes,
                    free=room,
                )
            self.taken += nbytes

    def _look(self) -> None:
        """Ask the device, but only now and then, since asking may take long."""
        now = time.monotonic()
        if now - self._asked > _ASK_SECONDS:
            before, free = self._held, self._device_memory().free
            # What others take or give back meanwhile, the device may have told of or not.
            self._asked, self._seen = now, (free, min(before, self._held))

    def _room(self, elsewhere: int) -> int | None:
        """Bytes left, by what the device said last."""
        left = None if self._budget is None else self._budget - self._held - elsewhere
        free, held = self._seen
        free = None if free is None else free - (self._held - held)
        room = free if left is None else _least(free, left)
        return room if room is None else max(0, room)

    @property
    def _held(self) -> int:
        return self.taken + self.idle.nbytes

    def give_back(self, nbytes: int) -> None:
        """Undo `take`."""
        with self._lock:
            self.taken -= nbytes
            self.others(self.taken)

    def expire_idle(self) -> None:
        """Have what was idle for too long freed, by the device's thread: its driver may hang."""
        if not self.desk.serves(self.idle):
            self.desk.submit(self.idle, Job(0, self.idle.expire))

    def describe(self) -> dict[str, Any]:
        """What HELLO tells of it."""
        buffers = self.device.buffers
        memory = self.memory()
        return {
            "info": info_to_json(self.device.info),
            "alignment": buffers.alignment,
            "max_bytes": buffers.max_bytes,
            "total": memory.total,
            "free": memory.free,
        }


def _nobody(taken: int) -> int:
    del taken
    return 0


def _least(one: int | None, other: int) -> int:
    return other if one is None else min(one, other)
