"""What happens to backends and devices, for whoever wants to be told."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from hotplug.registry.guard import guarded, reason_of

__all__ = ["Event", "EventKind", "Listener", "Listeners"]

_log = logging.getLogger("hotplug.registry")


class EventKind(Enum):
    """What has happened."""

    FOUND = "found"
    """A backend was installed or registered."""
    REMOVED = "removed"
    """A backend is no longer installed."""
    LOADED = "loaded"
    FAILED = "failed"
    """Loading a backend came to nothing; the reason says why."""
    UNPLUGGING = "unplugging"
    """A backend is to be unloaded: whoever holds its devices and can do without lets them go."""
    UNLOADED = "unloaded"
    DEVICE_ADDED = "device added"
    """A device of a loaded backend appeared, or is usable again."""
    DEVICE_REMOVED = "device removed"
    """A device of a loaded backend is gone, or was set aside; the reason says why."""
    QUARANTINED = "quarantined"
    """A session does without a device that failed; the reason says why."""
    RESTORED = "restored"
    """A session has brought a device back from its quarantine."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    Attributes:
        backend: the backend's name.
        device: the device's id, if it is about one device.
        reason: why, if there is something to say.
    """

    kind: EventKind
    backend: str
    device: str | None = None
    reason: str = ""


Listener: TypeAlias = Callable[[Event], None]


class Listeners:
    """Who wants to be told. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Tell `listener` of everything from now on; call what is returned to end that."""
        with self._lock:
            self._listeners.append(listener)
        return lambda: self._drop(listener)

    def _drop(self, listener: Listener) -> None:
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)

    def tell(self, event: Event) -> None:
        """Tell everyone, one after the other, in the thread in which it happened."""
        with self._lock:
            listeners = tuple(self._listeners)
        _log.debug("%s: %s %s %s", event.backend, event.kind.value, event.device, event.reason)
        for listener in listeners:
            outcome = guarded(lambda tell=listener: tell(event))  # type: ignore[misc]
            if outcome.error is not None:  # one listener's trouble is not the others'
                _log.error("a listener failed at %s: %s", event, reason_of(outcome.error))
                _log.debug("%s", outcome.trace)
