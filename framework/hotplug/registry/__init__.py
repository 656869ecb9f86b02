"""Backends: found, checked, loaded, watched, let go.

    discovered -> allowed -> compatible -> imported -> probed -> opened

Every stage runs when it is first needed, is recorded with its time and reason, and a plug-in that
fails in one costs its own devices and nothing else. `default()` is the registry of the process.

    status        what is known of a backend: state, reason, remedy, stages, provenance
    known         what the project offers, for the advice given where it is absent
    discovery     where backends come from, and which of two with one name counts
    compatibility versions and members, checked before they can hurt
    guard         calls into plug-ins: every exception kept, time limited, a child process if asked
    lifecycle     one backend on its way through the stages
    selectors     the grammar of "cuda:1", "gpu,cpu", "uuid:..."
    choice        from a selector to devices, in order, with reasons
    handles       opened devices and who holds them
    reports       what is said of those that are not here or failed
    events        what happens to them, for whoever wants to be told
    registry      all of it together
    watching      looking again and again
"""

from __future__ import annotations

from hotplug.registry.choice import Selection
from hotplug.registry.events import Event, EventKind
from hotplug.registry.handles import DeviceHandle
from hotplug.registry.registry import Registry, default
from hotplug.registry.status import BackendStatus, Provenance, Stage, StageRecord, State
from hotplug.registry.watching import watch

__all__ = [
    "BackendStatus",
    "DeviceHandle",
    "Event",
    "EventKind",
    "Provenance",
    "Registry",
    "Selection",
    "Stage",
    "StageRecord",
    "State",
    "default",
    "watch",
]
