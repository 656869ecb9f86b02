"""Calls into plug-ins: whatever they raise is kept, and they may be given a time limit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from hotplug.backend import DeviceInfo, DeviceType
from hotplug.errors import BackendLoadError, SettingsError

__all__ = ["Outcome", "guarded", "info_from_json", "info_to_json", "probe_in_child", "reason_of"]

T = TypeVar("T")

_LONGEST_REASON = 500  # characters; drivers may put whole build logs into their messages


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What came of a call.

    Attributes:
        value: what it returned, if it returned.
        error: what it raised, if it raised.
        trace: the traceback's text.
        seconds: how long it took.
        timed_out: whether it was given up; it may still be running.
    """

    value: T | None
    error: BaseException | None
    trace: str | None
    seconds: float
    timed_out: bool = False


def guarded(call: Callable[[], T], limit: float | None = None) -> Outcome[T]:
    """Run a plug-in's code.

    KeyboardInterrupt passes through, and so does SettingsError: what the user set is wrong, and to
    go on without the plug-in would hide that. SystemExit does not: a plug-in that calls `sys.exit`
    must not end its host.

    Args:
        call: what to run.
        limit: seconds after which to give up; None for no limit. With a limit the call runs in a
            daemon thread, which cannot be stopped, only left behind.
    """
    outcome = _outcome(call) if limit is None else _limited(call, limit)
    if isinstance(outcome.error, SettingsError):
        raise outcome.error
    return outcome


def _limited(call: Callable[[], T], limit: float) -> Outcome[T]:
    results: list[Outcome[T]] = []
    thread = threading.Thread(
        target=lambda: results.append(_outcome(call, (BaseException,))),
        name="hotplug-guarded",
        daemon=True,
    )
    started = time.perf_counter()
    thread.start()
    thread.join(limit)
    if results:
        return results[0]
    return Outcome(None, None, None, time.perf_counter() - started, timed_out=True)


def _outcome(
    call: Callable[[], T], kept: tuple[type[BaseException], ...] = (Exception, SystemExit)
) -> Outcome[T]:
    started = time.perf_counter()
    try:
        value = call()
    except kept as error:
        return Outcome(None, error, _trace_of(error), time.perf_counter() - started)
    return Outcome(value, None, None, time.perf_counter() - started)


def reason_of(error: BaseException) -> str:
    """One line that says what an exception says."""
    if isinstance(error, BackendLoadError) and error.args:
        return str(error.args[0])
    text = " ".join(_text_of(error).split())
    if len(text) > _LONGEST_REASON:
        text = text[:_LONGEST_REASON] + "..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a plug-in's exceptions may be as broken as it is
        return ""


def _trace_of(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001 - as above
        return "".join(traceback.format_tb(error.__traceback__))


def probe_in_child(target: str, limit: float) -> Sequence[DeviceInfo]:
    """Run a backend's probe in another process, so that a crashing driver takes only that with it.

    Args:
        target: "module:object" of the backend.
        limit: seconds until the child is killed.

    Raises:
        TimeoutError: it was killed.
        BackendLoadError: it crashed, or the probe raised; the text says which.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "hotplug.registry.probe_child", target]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"no answer within {limit:g} s") from error
    # A driver may print; the answer is the last line.
    answer = _last_json(done.stdout)
    if answer is None:
        raise RuntimeError(f"probing in a child process ended with {_ending(done)}")
    if "reason" in answer:
        kind = BackendLoadError if answer["unavailable"] else RuntimeError
        error_ = kind(str(answer["reason"]))
        if isinstance(error_, BackendLoadError):
            error_.remedy = answer["remedy"]
        raise error_
    return [info_from_json(item) for item in answer["devices"]]


def _last_json(text: str) -> dict[str, Any] | None:
    try:
        answer = json.loads(text.splitlines()[-1])
    except (IndexError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None


def _ending(done: subprocess.CompletedProcess[str]) -> str:
    last = done.stderr.strip().splitlines()[-1:] or [""]
    if done.returncode < 0:
        return f"signal {signal.Signals(-done.returncode).name}"
    return f"exit code {done.returncode}" + (f": {last[0]}" if last[0] else "")


def info_to_json(info: DeviceInfo) -> dict[str, object]:
    """A device's description as plain values."""
    values = {name: getattr(info, name) for name in DeviceInfo.__dataclass_fields__}
    return {**values, "type": info.type.value, "properties": dict(info.properties)}


def info_from_json(values: dict[str, object]) -> DeviceInfo:
    """Inverse of `info_to_json`.

    Raises:
        TypeError: a field is missing or not known.
        ValueError: the type is not known.
    """
    return DeviceInfo(**{**values, "type": DeviceType(values["type"])})  # type: ignore[arg-type]
