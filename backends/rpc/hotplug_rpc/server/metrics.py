"""Numbers about a server, and their text for Prometheus.

Source of the format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable

from hotplug_rpc.wire import Kind

__all__ = ["Metrics"]

_HELP = {
    "sessions": ("gauge", "Sessions that are open."),
    "sessions_total": ("counter", "Sessions that were opened."),
    "refused_total": ("counter", "Handshakes that were refused."),
    "requests_total": ("counter", "Requests by kind."),
    "failures_total": ("counter", "Answers that were errors, by class."),
    "received_bytes_total": ("counter", "Payload bytes that came in."),
    "sent_bytes_total": ("counter", "Payload bytes that went out."),
    "busy_seconds_total": ("counter", "Seconds of work on a device."),
    "device_taken_bytes": ("gauge", "Bytes of a device that sessions hold."),
    "device_idle_bytes": ("gauge", "Bytes of a device that stay ready for the next session."),
    "waiting": ("gauge", "Requests that wait for a device."),
}


class Metrics:
    """Counters by name and label. Safe to use from several threads."""

    def __init__(self) -> None:
        self._values: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._lock = threading.Lock()

    def add(self, name: str, amount: float = 1, label: str = "") -> None:
        """Count up; `label` is as in `kind="run"`."""
        with self._lock:
            self._values[name, label] += amount

    def count_request(self, kind: Kind, payload: Iterable[memoryview]) -> None:
        """A request came, with so much beside its head."""
        self.add("requests_total", 1, f'kind="{kind.name.lower()}"')
        nbytes = sum(frame.nbytes for frame in payload)
        if nbytes:
            self.add("received_bytes_total", nbytes)

    def put(self, name: str, value: float, label: str = "") -> None:
        """Set a value that goes up and down."""
        with self._lock:
            self._values[name, label] = value

    def get(self, name: str, label: str = "") -> float:
        """One value."""
        with self._lock:
            return self._values.get((name, label), 0.0)

    def text(self) -> str:
        """All of them as Prometheus reads them."""
        with self._lock:
            values = sorted(self._values.items())
        lines = []
        for name, (kind, help_text) in _HELP.items():
            rows = [(label, value) for (held, label), value in values if held == name]
            if not rows:
                continue
            full = f"hotplug_rpc_{name}"
            lines += [f"# HELP {full} {help_text}", f"# TYPE {full} {kind}"]
            # All digits of a count of bytes, or its rate is nothing, and then a leap.
            lines += [
                f"{full}{f'{{{label}}}' if label else ''} {value:.16g}" for label, value in rows
            ]
        return "\n".join(lines) + "\n"
