"""All backends of a process: found, loaded on demand, chosen from, opened, let go."""

from __future__ import annotations

import importlib
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence

from hotplug.backend import Backend, DeviceInfo, MemoryInfo
from hotplug.errors import (
    BackendInUseError,
    DeviceUnavailableError,
    UsageError,
)
from hotplug.registry import choice
from hotplug.registry.choice import Selection
from hotplug.registry.compatibility import check_memory
from hotplug.registry.discovery import (
    ENTRY_POINT,
    RESERVED,
    Source,
    from_object,
    from_path,
    installed,
    merge,
)
from hotplug.registry.events import Event, EventKind, Listener, Listeners
from hotplug.registry.handles import DeviceHandle, Handles
from hotplug.registry.known import KNOWN
from hotplug.registry.lifecycle import Entry
from hotplug.registry.reports import absent, duplicate, load_error, not_found
from hotplug.registry.status import BackendStatus, State
from hotplug.settings import Settings, settings

__all__ = ["Registry", "default"]

_log = logging.getLogger("hotplug.registry")


class Registry:
    """Backends and their devices. Safe to use from several threads.

    Nothing is looked for before the first question, and nothing is imported before it is needed.
    In a forked child everything begins anew: what the parent opened cannot be used there.

    Args:
        discover: finds the installed backends. `Registry(list)` knows only what is registered.
        read_settings: gives the settings of this moment.
    """

    def __init__(
        self,
        discover: Callable[[], Iterable[Source]] = installed,
        read_settings: Callable[[], Settings] = settings,
    ) -> None:
        self._discover = discover
        self._settings = read_settings
        self._registered: list[Source] = []
        self._handles = Handles()
        self._begin()
        _registries.add(self)

    def _begin(self) -> None:
        # Order of locks: an entry's, then this one. Plug-ins are never called under this one.
        self._lock = threading.RLock()
        self._entries: dict[str, Entry] | None = None
        self._left_out: list[tuple[Source, Source]] = []
        self._told: set[str] = set()
        self._listeners = Listeners()

    def _restart(self) -> None:
        lost = self._handles.abandon("the process has forked since; open it again")
        self._handles = Handles()
        self._begin()
        if lost:
            _log.warning("forked while %s were open; the child must open them anew", lost)

    # Backends

    def register(self, backend: Backend | type[Backend] | str, name: str | None = None) -> None:
        """Add a backend that is not installed, as in a frozen program or a test.

        It counts before installed backends of the same name; of two registered, the first counts.

        Args:
            backend: the object, its class, or "module:object".
            name: the backend's name; needed with a text.

        Raises:
            UsageError: there is no name.
            BackendInUseError: an installed backend of that name is loaded already.
        """
        name = name or (None if isinstance(backend, str) else getattr(backend, "name", None))
        if not name:
            raise UsageError(f"the backend {backend!r} has no name; give one")
        if isinstance(backend, str):
            source = from_path(name, backend, "register()")
        else:
            source = from_object(name, backend)
        with self._lock:
            if self._entries is None:  # nobody has asked yet: what else there is can wait
                self._registered.append(source)
                return
            entry = self._entries.get(name)
            if entry is not None and entry.loaded and entry.source not in self._registered:
                raise BackendInUseError(
                    f"{name} of {entry.source.provenance} is loaded already",
                    backend=name,
                    remedy=f"unload({name!r}) first",
                )
            self._registered.append(source)
        self._tell(self._rescan(retry=False))

    def names(self) -> list[str]:
        """Names of the backends there are, loaded or not, as far as selectors can name them."""
        return [name for name in self._all() if name not in RESERVED]

    def load(self, name: str) -> BackendStatus:
        """Bring a backend up, if it is not.

        What has failed once stays so until `refresh`.

        Raises:
            BackendNotFoundError: there is none of that name.
            BackendLoadError: it cannot be brought up.
            IncompatibleBackendError: it is made for another version.
            SettingsError: a HOTPLUG_* variable is not understood.
        """
        entry = self._entry(name)
        with entry.lock:
            if entry.state is State.UNLOADED:
                entry.forget()
        self._load([entry])
        status = entry.status()
        if not entry.loaded:
            raise load_error(status) from status.error
        return status

    def load_all(self) -> list[BackendStatus]:
        """Bring up every backend that can be and return the statuses of all; see `statuses`.

        Raises:
            SettingsError: a HOTPLUG_* variable is not understood.
        """
        self._load(self._all().values())
        return self.statuses()

    def unload(self, name: str, *, force: bool = False) -> None:
        """Let a backend go. It stays away until `load` names it.

        Holders that can do without its devices, as sessions with others can, leave them first.

        Args:
            name: which one.
            force: take its devices from whoever holds them; they get `DeviceLostError`.

        Raises:
            BackendNotFoundError: there is none of that name.
            BackendInUseError: somebody holds its devices; the text says who.
        """
        entry = self._entry(name)
        if not force:
            self._tell([Event(EventKind.UNPLUGGING, name)])
        with entry.lock:
            users = self._handles.holders(name)
            if users and not force:
                raise BackendInUseError(
                    f"{name} is in use by {', '.join(users)}",
                    backend=name,
                    users=users,
                    remedy="close them first, or unload with force",
                )
            gone = [info.id for info in entry.devices]
            self._handles.revoke(name, f"the backend {name} was unloaded")
            entry.close()
            entry.forget(State.UNLOADED)
            entry.reason = "it was unloaded"
            entry.remedy = f"load({name!r}) brings it back"
        removed = [Event(EventKind.DEVICE_REMOVED, name, device, entry.reason) for device in gone]
        self._tell([*removed, Event(EventKind.UNLOADED, name)])

    def refresh(self) -> list[Event]:
        """Look again: for backends installed or removed meanwhile, for devices come or gone.

        Backends that failed and devices that were set aside get another chance. An upgraded backend
        that is loaded stays as it is, since Python cannot replace a module's objects.

        Returns:
            What has changed, as the subscribers are told.
        """
        importlib.invalidate_caches()
        events = self._rescan(retry=True)
        for entry in self._all().values():
            if entry.answers:  # one that is just being loaded, or hangs at it, is not waited for
                events += self._probe_again(entry)
        return self._tell(events)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Tell `listener` of everything that happens; call what is returned to end that.

        It is called in the thread in which it happens, and must not take long.
        """
        return self._listeners.subscribe(listener)

    def status(self, name: str) -> BackendStatus:
        """How one backend stands. Loads nothing.

        Raises:
            BackendNotFoundError: it is neither there nor one of this project's.
        """
        entry = self._all().get(name)
        if entry is not None:
            return entry.status()
        if name in KNOWN:
            return absent(name)
        raise not_found(name)

    def statuses(self) -> list[BackendStatus]:
        """How all backends stand, by name, with this project's that are absent. Loads nothing."""
        entries = self._all()
        rows = [entry.status() for entry in entries.values()]
        rows += [duplicate(*pair) for pair in self._left_out]
        rows += [absent(name) for name in KNOWN if name not in entries]
        return sorted(rows, key=lambda status: status.name)

    # Devices

    def select(self, selector: str) -> Selection:
        """Devices that a selector names, best first.

        Raises:
            SelectorError: the selector is not of the grammar.
            DeviceNotFoundError: it names nothing here; the text says why and what is here.
            SettingsError: a HOTPLUG_* variable is not understood.
        """
        selection = choice.select(self, selector)
        text = selection.explain()
        if selection.automatic and text not in self._told:
            self._told.add(text)
            _log.info("%s", text)
        return selection

    def open(self, device: DeviceInfo | str, holder: str | None = None) -> DeviceHandle:
        """Claim a device, bringing it up if nobody has.

        Args:
            device: what to open; of a selector, the best match.
            holder: who it is for, as `unload` shall call them.

        Raises:
            SelectorError, DeviceNotFoundError: as for `select`.
            DeviceUnavailableError: it cannot be opened.
        """
        info = device if isinstance(device, DeviceInfo) else self.select(device).devices[0]
        holder = holder or f"thread {threading.current_thread().name}"
        entry = self._entry(info.backend)
        self._load([entry])
        with entry.lock:
            if not entry.loaded:
                raise DeviceUnavailableError(
                    f"{info.id} cannot be opened: {entry.reason or 'it was unloaded meanwhile'}",
                    device=info.id,
                    remedy=entry.remedy,
                )
            return self._handles.acquire(info, holder, lambda: entry.open(info))

    def memory(self, info: DeviceInfo) -> MemoryInfo:
        """A device's memory at this moment. It is brought up only if its backend cannot tell.

        Raises:
            DeviceUnavailableError: it cannot be opened.
            TypeError: what is told is no `MemoryInfo`. The backend may raise anything else, too.
        """
        # A backend need not derive from the contract's class, which has this method.
        ask = getattr(self._entry(info.backend).backend, "memory", None)
        told: object = ask(info) if ask is not None else None
        if told is not None:
            return check_memory(told, info.id)
        with self.open(info, "a list of devices") as handle:
            return check_memory(handle.device.memory(), info.id)

    def set_aside(self, device: str, reason: str) -> None:
        """Keep a device from being chosen until `refresh` or `bring_back`, as after it was lost.

        Who holds it keeps it; whoever opens it later gets it opened anew.

        Raises:
            BackendNotFoundError: it belongs to no backend that is here.
        """
        name = device.partition(":")[0]
        self._entry(name).device_faults[device] = reason
        self._handles.retire(device)
        self._tell([Event(EventKind.DEVICE_REMOVED, name, device, reason)])

    def bring_back(self, device: str) -> None:
        """Let a device that was set aside be chosen again.

        Raises:
            BackendNotFoundError: it belongs to no backend that is here.
        """
        name = device.partition(":")[0]
        if self._entry(name).device_faults.pop(device, None) is not None:
            self._tell([Event(EventKind.DEVICE_ADDED, name, device)])

    def devices_of(self, name: str) -> Sequence[DeviceInfo]:
        """Usable devices of one backend, which is loaded; none if it is not there or cannot be."""
        entry = self._all().get(name)
        if entry is None:
            return []
        self._load([entry])
        return _usable(entry)

    def everything(self) -> Sequence[DeviceInfo]:
        """Usable devices of all backends, loaded for it unless HOTPLUG_AUTOLOAD is off."""
        entries = self._all().values()
        automatic = self._settings().autoload
        self._load(e for e in entries if automatic or e.source.provenance.source != ENTRY_POINT)
        return [info for entry in entries for info in _usable(entry)]

    def at_address(self, name: str, address: str) -> Sequence[DeviceInfo]:
        """Devices that a backend finds at an address; `problem` of "name://..." says why none."""
        entry = self._all().get(name)
        if entry is None:
            return []
        self._load([entry])
        with entry.lock:
            return entry.find(address, self._settings())

    def problem(self, name: str) -> str:
        """Why a backend, or a device such as "cuda:0", cannot be used; empty if it can."""
        backend, colon, _ = name.partition(":")
        entry = self._all().get(backend)
        if entry is None:
            status = absent(backend)
            return f"{status.reason} ({status.remedy})" if status.remedy else status.reason
        if colon:
            return entry.device_faults.get(name, "")
        if not entry.loaded:
            reason = entry.reason or "it is not loaded, and HOTPLUG_AUTOLOAD is off"
            return f"{reason} ({entry.remedy})" if entry.remedy else reason
        if _usable(entry):
            return ""
        return "; ".join(f"{device}: {why}" for device, why in entry.device_faults.items())

    def priority(self, name: str) -> int:
        """A backend's priority."""
        return self._entry(name).priority

    # Within

    def _all(self) -> dict[str, Entry]:
        """Entries by name, looked for at the first need; a copy."""
        with self._lock:
            if self._entries is None:
                sources, self._left_out = self._sources()
                self._entries = {name: Entry(source) for name, source in sources.items()}
            return dict(self._entries)

    def _sources(self) -> tuple[dict[str, Source], list[tuple[Source, Source]]]:
        path = self._settings().backend_path
        named = [from_path(name, target, "HOTPLUG_BACKEND_PATH") for name, target in path]
        return merge(self._registered, named, self._discover())

    def _entry(self, name: str) -> Entry:
        entry = self._all().get(name)
        if entry is None:
            raise not_found(name)
        return entry

    def _load(self, entries: Iterable[Entry]) -> None:
        now = self._settings()
        for entry in entries:
            with entry.lock:
                before = entry.state
                ready = entry.load(now)
                after, reason = entry.state, entry.reason
            if after is not before:
                kind = EventKind.LOADED if ready else EventKind.FAILED
                self._tell([Event(kind, entry.name, reason=reason)])

    def _rescan(self, *, retry: bool) -> list[Event]:
        """Take in what is there now, keeping what is loaded."""
        with self._lock:
            old = self._all()
            sources, self._left_out = self._sources()
            entries = {name: _kept(old.get(name), sources[name], retry) for name in sources}
            removed = [entry for name, entry in old.items() if name not in sources]
            # Removed from disk, but its code is in memory, and somebody computes with it.
            held = [entry for entry in removed if self._handles.holders(entry.name)]
            self._entries = entries | {entry.name: entry for entry in held}
        for entry in removed:
            if entry not in held:
                entry.close()
        found = [Event(EventKind.FOUND, name) for name in sources if name not in old]
        return found + [Event(EventKind.REMOVED, entry.name) for entry in removed]

    def _probe_again(self, entry: Entry) -> list[Event]:
        with entry.lock:
            if not entry.answers:  # another thread has unloaded it meanwhile
                return []
            before = {info.id for info in _usable(entry)}
            entry.probe_again(self._settings())
            after = {info.id for info in _usable(entry)}
        added = [Event(EventKind.DEVICE_ADDED, entry.name, i) for i in sorted(after - before)]
        gone = sorted(before - after)
        why = "it is no longer there"
        return added + [Event(EventKind.DEVICE_REMOVED, entry.name, i, why) for i in gone]

    def _tell(self, events: list[Event]) -> list[Event]:
        for event in events:
            self._listeners.tell(event)
        return events


def _kept(entry: Entry | None, source: Source, retry: bool) -> Entry:
    """The entry there was, if its state shall last; else a new one."""
    if entry is None:
        return Entry(source)
    if entry.source != source:
        return entry if entry.loaded else Entry(source)
    lasting = entry.answers or entry.state is State.UNLOADED
    return entry if lasting or not retry else Entry(source)


def _usable(entry: Entry) -> list[DeviceInfo]:
    return [info for info in entry.devices if entry.loaded and info.id not in entry.device_faults]


_registries: weakref.WeakSet[Registry] = weakref.WeakSet()


def _after_fork() -> None:
    for registry in tuple(_registries):
        registry._restart()  # noqa: SLF001 - threads and devices stay behind in the parent


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_after_fork)

_default = Registry()


def default() -> Registry:
    """The registry of this process."""
    return _default
