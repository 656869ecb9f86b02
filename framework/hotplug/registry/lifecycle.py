"""One backend on its way through the stages."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

from hotplug.backend import Backend, Device, DeviceInfo
from hotplug.errors import BackendLoadError, DeviceUnavailableError, HotplugError, SettingsError
from hotplug.registry.compatibility import (
    check_device,
    check_infos,
    check_requirements,
    to_backend,
)
from hotplug.registry.discovery import Source
from hotplug.registry.guard import Outcome, guarded, probe_in_child, reason_of
from hotplug.registry.status import BackendStatus, Rejected, Stage, StageRecord, State
from hotplug.settings import Settings

__all__ = ["Entry"]

_log = logging.getLogger("hotplug.registry")

IMPORT_TIMEOUT = 30.0
"""Seconds that importing may take where HOTPLUG_PROBE_TIMEOUT does not give more: large vendor
libraries on a slow disk take their time, and are still on their way."""

_USABLE = frozenset({State.READY, State.NO_DEVICE, State.UNAVAILABLE})

T = TypeVar("T")


class Entry:
    """A backend's source and what became of it. Safe to use from several threads.

    Attributes:
        backend: the imported object, from the stage "imported" on.
        devices: what the probe found.
        device_faults: device id -> why that one cannot be used now.
        lock: held while a stage runs.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        # One lock per backend, so that one that hangs in its probe keeps nobody from the others.
        self.lock = threading.RLock()
        self.forget()

    @property
    def name(self) -> str:
        """The backend's name."""
        return self.source.name

    @property
    def loaded(self) -> bool:
        """Whether its devices can be used."""
        return self.state is State.READY

    @property
    def answers(self) -> bool:
        """Whether its probe tells what is there, be it nothing."""
        return self.state in {State.READY, State.NO_DEVICE, State.UNAVAILABLE}

    @property
    def priority(self) -> int:
        """The backend's own, or the contract's default."""
        value = getattr(self.backend, "priority", Backend.priority)
        return value if isinstance(value, int) else Backend.priority

    def forget(self, state: State = State.DISCOVERED) -> None:
        """Go back to the start, as if nothing had been tried."""
        self.state = state
        self.reason = ""
        self.remedy: str | None = None
        self.error: BaseException | None = None
        self.trace: str | None = None
        self.backend: Backend | None = None
        self.devices: tuple[DeviceInfo, ...] = ()
        self.device_faults: dict[str, str] = {}
        self._stages: dict[Stage, StageRecord] = {
            Stage.DISCOVERED: StageRecord(Stage.DISCOVERED, True, 0.0)
        }

    def status(self) -> BackendStatus:
        """A snapshot of all this."""
        return BackendStatus(
            self.name,
            self.state,
            self.source.provenance,
            self.reason,
            self.remedy,
            self.priority,
            tuple(self._stages.values()),
            self.devices,
            dict(self.device_faults),
            self.error,
            self.trace,
        )

    def load(self, settings: Settings) -> bool:
        """Go through the stages up to "probed", unless that was done already.

        Returns:
            Whether the backend became ready by this call.
        """
        with self.lock:
            if self.state is State.DISABLED:  # the environment may have changed
                self.forget()
            if self.state is not State.DISCOVERED:
                return False
            try:
                self._load(settings)
            except Rejected as rejection:
                self._reject(rejection)
                return False
            self.state = State.READY
            _log.debug("%s: %d device(s)", self.name, len(self.devices))
            return True

    def _load(self, settings: Settings) -> None:
        self._pass(Stage.ALLOWED, lambda: self._check_allowed(settings))
        self._pass(Stage.COMPATIBLE, lambda: check_requirements(self.source))
        self.backend = self._pass(Stage.IMPORTED, lambda: self._import(settings))
        self.devices = self._pass(Stage.PROBED, lambda: self._probe(settings))

    def _pass(self, stage: Stage, step: Callable[[], T]) -> T:
        """Run one stage and record how it went."""
        started = time.perf_counter()
        try:
            value = step()
        except Rejected as rejection:
            seconds = time.perf_counter() - started
            self._stages[stage] = StageRecord(
                stage, False, seconds, rejection.reason, rejection.remedy
            )
            raise
        self._stages[stage] = StageRecord(stage, True, time.perf_counter() - started)
        return value

    def _reject(self, rejection: Rejected) -> None:
        self.state = rejection.state
        self.reason = rejection.reason
        self.remedy = rejection.remedy
        self.error = rejection.cause
        self.trace = rejection.trace
        level = logging.WARNING if rejection.state.is_fault else logging.DEBUG
        _log.log(level, "backend %s cannot be used: %s", self.name, self.reason)
        if self.trace:
            _log.debug("%s", self.trace)

    def _check_allowed(self, settings: Settings) -> None:
        if self.source.fault:
            state, reason = self.source.fault
            raise Rejected(state, reason)
        if not settings.allows(self.name):
            raise Rejected(
                State.DISABLED,
                "HOTPLUG_BACKENDS leaves it out",
                remedy=f"add {self.name} to HOTPLUG_BACKENDS, or unset it",
            )

    def _import(self, settings: Settings) -> Backend:
        limit = max(IMPORT_TIMEOUT, settings.probe_timeout)
        found = self._call(self.source.load, State.IMPORT_FAILED, "importing it failed", limit)
        return self._call(
            lambda: to_backend(found, self.source), State.INVALID, "setting it up failed", limit
        )

    def _call(self, call: Callable[[], T], state: State, what: str, limit: float) -> T:
        outcome = guarded(call, limit)
        if outcome.timed_out:
            raise self._timeout("importing it came to no end", limit)
        if outcome.error is not None:
            raise self._rejection(outcome, state, what)
        return cast("T", outcome.value)

    def _rejection(self, outcome: Outcome[T], state: State, what: str) -> Rejected:
        error = outcome.error
        assert error is not None
        if isinstance(error, Rejected):
            return error
        remedy = error.remedy if isinstance(error, HotplugError) else None
        return Rejected(
            state,
            f"{what}: {reason_of(error)}",
            remedy=remedy or (None if isinstance(error, SettingsError) else self._repair()),
            cause=error,
            trace=outcome.trace,
        )

    def _timeout(self, what: str, limit: float) -> Rejected:
        return Rejected(
            State.TIMEOUT,
            f"{what} within {limit:g} s",
            remedy=f"raise HOTPLUG_PROBE_TIMEOUT; HOTPLUG_BACKENDS=-{self.name} leaves it out",
        )

    def _repair(self) -> str:
        distribution = self.source.provenance.distribution
        skip = f"HOTPLUG_BACKENDS=-{self.name} leaves it out"
        if distribution:
            return f"pip install --upgrade --force-reinstall {distribution}; {skip}"
        return skip

    def probe_again(self, settings: Settings) -> None:
        """Look anew which devices there are, and give those set aside another chance.

        A probe that breaks changes nothing: devices in use are better evidence than it is.
        """
        with self.lock:
            try:
                if self.loaded:
                    self.devices = self._probe(settings)
                else:
                    self.devices = self._pass(Stage.PROBED, lambda: self._probe(settings))
            except Rejected as rejection:
                if rejection.state is State.NO_DEVICE or not self.loaded:
                    self.devices = ()
                    self._reject(rejection)
                else:
                    _log.warning("looking for devices of %s: %s", self.name, rejection.reason)
                return
            self.state, self.reason, self.remedy = State.READY, "", None
            self.error = self.trace = None
            self.device_faults.clear()

    def _probe(self, settings: Settings) -> tuple[DeviceInfo, ...]:
        outcome = self._timed_probe(settings)
        if outcome.timed_out or isinstance(outcome.error, TimeoutError):
            raise self._timeout("its probe gave no answer", settings.probe_timeout)
        if isinstance(outcome.error, BackendLoadError):
            raise Rejected(
                State.UNAVAILABLE,
                reason_of(outcome.error),
                remedy=outcome.error.remedy,
                cause=outcome.error,
                trace=outcome.trace,
            )
        if outcome.error is not None:
            raise self._rejection(outcome, State.PROBE_FAILED, "its probe failed")
        infos = check_infos(outcome.value, self.name)
        if not infos:
            raise Rejected(State.NO_DEVICE, "it works, but there is no device for it here")
        return infos

    def _timed_probe(self, settings: Settings) -> Outcome[Sequence[DeviceInfo]]:
        backend, target, limit = self.backend, self.source.importable, settings.probe_timeout
        assert backend is not None
        # A frozen program's executable is no Python, and an object has no name to import it by.
        if settings.probe == "process" and target and not getattr(sys, "frozen", False):
            return guarded(lambda: probe_in_child(target, limit))
        return guarded(backend.probe, limit)

    def find(self, address: str, settings: Settings) -> list[DeviceInfo]:
        """Devices at an address, which count as the backend's own from then on.

        A backend that found no device by itself may find some there. Where it fails, the reason is
        kept in `device_faults` under the selector.
        """
        backend, selector = self.backend, f"{self.name}://{address}"
        ask = getattr(backend, "find", None)  # it need not derive from the contract's class
        if backend is None or ask is None or self.state not in _USABLE:
            return [i for i in self.devices if i.properties.get("address") == address]
        outcome = guarded(lambda: check_infos(ask(address), self.name), settings.probe_timeout)
        if outcome.value is None:
            self.device_faults[selector] = _find_reason(outcome, settings.probe_timeout)
            return []
        found = list(outcome.value)
        self.device_faults.pop(selector, None)
        known = {info.id: info for info in (*self.devices, *found)}
        self.devices = tuple(known.values())
        if found:
            self.state, self.reason, self.remedy = State.READY, "", None
        return found

    def open(self, info: DeviceInfo) -> Device:
        """Bring up a device.

        Raises:
            DeviceUnavailableError: the backend cannot; the reason is kept with the device.
        """
        with self.lock:
            backend = self.backend
            assert backend is not None
            outcome = guarded(lambda: check_device(backend.open(info), info))
            ok = outcome.error is None
            reason = "" if outcome.error is None else _open_reason(outcome.error)
            self._stages[Stage.OPENED] = StageRecord(Stage.OPENED, ok, outcome.seconds, reason)
            if outcome.value is not None:
                self.device_faults.pop(info.id, None)
                return outcome.value
            self.device_faults[info.id] = reason
            raise DeviceUnavailableError(
                f"{info.id} {info.name!r} cannot be opened: {reason}",
                device=info.id,
                remedy=getattr(outcome.error, "remedy", None),
            ) from outcome.error

    def close(self) -> None:
        """Let the backend go; what it raises is logged, since it is gone for us all the same."""
        with self.lock:
            if self.backend is not None and hasattr(self.backend, "close"):
                outcome = guarded(self.backend.close)
                if outcome.error is not None:
                    _log.warning("closing %s failed: %s", self.name, reason_of(outcome.error))


def _find_reason(outcome: Outcome[T], limit: float) -> str:
    if outcome.error is None:
        return f"no answer within {limit:g} s"
    error = outcome.error
    return str(error) if isinstance(error, HotplugError) else reason_of(error)


def _open_reason(error: BaseException) -> str:
    if isinstance(error, HotplugError) and error.args:
        return str(error.args[0])
    return reason_of(error)
