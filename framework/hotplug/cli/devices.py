"""`hotplug devices`: what can be computed on, and why nothing else can."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from dataclasses import dataclass
from typing import Any

from hotplug.backend import DeviceInfo, MemoryInfo
from hotplug.cli.render import amount, console, table
from hotplug.devices import group, list_devices
from hotplug.registry import BackendStatus, default
from hotplug.registry.guard import guarded, reason_of
from hotplug.settings import settings

__all__ = ["DevicesCommand", "command"]

_HEADINGS = (
    "id", "name", "type", "threads", "memory", "free", "instruction set", "kernels", "note",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Listed:
    """A device as it is listed.

    Attributes:
        memory: at this moment, as far as it is known.
        problem: why it did not answer; empty if it did.
        twin: id of the device used instead, where that is the same hardware.
    """

    info: DeviceInfo
    memory: MemoryInfo
    problem: str
    twin: str | None

    def to_json(self) -> dict[str, Any]:
        """Plain values; None for what is unknown."""
        info = self.info
        return {
            "id": info.id,
            "backend": info.backend,
            "name": info.name,
            "type": info.type.value,
            "threads": info.units,
            "memory_total": self.memory.total,
            "memory_free": self.memory.free,
            "instruction_set": info.architecture,
            "kernels": info.kernels,
            "driver": info.driver,
            "uuid": info.uuid,
            "pci": info.pci,
            "properties": dict(info.properties),
            "same_device_as": self.twin,
            "problem": self.problem,
        }


class DevicesCommand:
    """Loads every backend, asks every device, and shows both."""

    name = "devices"
    help = "list devices, and why a backend has none"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def run(self, arguments: argparse.Namespace) -> int:
        """List; 0, even where there is no device."""
        # Asked for here, whatever HOTPLUG_AUTOLOAD says. Plug-ins and drivers may print.
        with contextlib.redirect_stdout(sys.stderr):
            default().load_all()
            listed = _listed()
            statuses = default().statuses()
        if arguments.json:
            devices = [row.to_json() for row in listed]
            backends = [status.to_json() for status in statuses]
            print(json.dumps({"devices": devices, "backends": backends}))
        else:
            _print(listed, statuses)
        return 0


def _listed() -> list[Listed]:
    twins = {info.id: mates[0].id for mates in group(list_devices()) for info in mates[1:]}
    return [_ask(info, twins.get(info.id)) for info in list_devices()]


def _ask(info: DeviceInfo, twin: str | None) -> Listed:
    limit = settings().probe_timeout  # a device that hangs must not keep the others from the list
    answer = guarded(lambda: default().memory(info), limit)
    problem = f"no answer within {limit:g} s" if answer.timed_out else ""
    if answer.error is not None:
        problem = reason_of(answer.error)
    return Listed(info, answer.value or MemoryInfo(None, None), problem, twin)


def _print(listed: list[Listed], statuses: list[BackendStatus]) -> None:
    screen = console()
    if listed:
        rows = [_row(row) for row in listed]
        noted = any(row[-1] for row in rows)  # a column that is empty everywhere is left away
        headings = _HEADINGS if noted else _HEADINGS[:-1]
        cells = [row[: len(headings)] for row in rows]
        screen.print(table("", headings, cells, ("threads", "memory", "free")))
    else:
        screen.print("No device can be used.")
    idle = [status for status in statuses if not status.devices]
    if idle:
        rows = [(s.name, s.state.value, s.reason, s.remedy or "") for s in idle]
        screen.print(table("", ("backend", "state", "reason", "remedy"), rows))


def _row(listed: Listed) -> tuple[str, ...]:
    info = listed.info
    return (
        info.id,
        info.name,
        info.type.value,
        str(info.units or ""),
        amount(listed.memory.total),
        amount(listed.memory.free),
        info.architecture or "",
        info.kernels or "",
        _note(listed),
    )


def _note(listed: Listed) -> str:
    notes = [
        _fact(key, value)
        for key, value in listed.info.properties.items()
        if key != "memory"  # has a column
    ]
    if listed.twin:
        notes.append(f"the same device as {listed.twin}")
    if listed.problem:
        notes.append(listed.problem)
    return "; ".join(notes)


def _fact(key: str, value: str | float | bool) -> str:
    words = key.removesuffix("_bytes").replace("_", " ")
    if isinstance(value, bool):
        return words if value else f"not {words}"
    if key.endswith("_bytes") and isinstance(value, int):
        return f"{words}: {amount(value)}"
    return f"{words}: {value}"


command = DevicesCommand()
