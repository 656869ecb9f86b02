"""`hotplug backends`: every backend, who brought it, and how far it has come."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys

from hotplug.cli.render import console, table
from hotplug.registry import BackendStatus, default

__all__ = ["BackendsCommand", "command"]


class BackendsCommand:
    """Loads every backend and shows the stages that it went through."""

    name = "backends"
    help = "list backends and how far each has come"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.add_argument(
            "--trace", action="store_true", help="print the traceback of each that failed"
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """List; 0, even where one failed."""
        with contextlib.redirect_stdout(sys.stderr):  # plug-ins may print
            statuses = default().load_all()
        if arguments.json:
            print(json.dumps({"backends": [status.to_json() for status in statuses]}))
            return 0
        headings = ("backend", "state", "from", "priority", "devices", "time", "reason", "remedy")
        rows = [_row(status) for status in statuses]
        console().print(table("", headings, rows, ("priority", "time")))
        for status in statuses:
            if arguments.trace and status.traceback:
                print(f"\n{status.name}:\n{status.traceback}")
        return 0


def _row(status: BackendStatus) -> tuple[str, ...]:
    return (
        status.name,
        status.state.value,
        str(status.provenance or ""),
        str(status.priority) if status.stages else "",
        ", ".join(info.id for info in status.devices),
        f"{1000 * status.seconds:.0f} ms" if status.stages else "",
        "; ".join([status.reason, *status.device_faults.values()]).removeprefix("; "),
        status.remedy or "",
    )


command = BackendsCommand()
