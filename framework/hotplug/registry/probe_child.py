"""The child process of `probe_in_child`: prints what a backend's probe found, one JSON line."""

from __future__ import annotations

import json
import sys
from typing import Any

from hotplug.errors import BackendLoadError
from hotplug.registry.discovery import load_target
from hotplug.registry.guard import guarded, info_to_json, reason_of


def main(target: str) -> None:
    """Probe the backend at "module:object" and print the answer."""

    def probe() -> list[dict[str, object]]:
        found: Any = load_target(target)
        backend = found() if isinstance(found, type) else found
        return [info_to_json(info) for info in backend.probe()]

    outcome = guarded(probe)
    answer: dict[str, object] = {"devices": outcome.value}
    if outcome.error is not None:
        answer = {
            "reason": reason_of(outcome.error),
            "remedy": getattr(outcome.error, "remedy", None),
            "unavailable": isinstance(outcome.error, BackendLoadError),
        }
    sys.stdout.write("\n" + json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
