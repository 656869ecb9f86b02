"""Long steps as progress bars on a terminal's standard error."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["ProgressBar"]


class ProgressBar:
    """A listener of `hotplug.progress`. Rich is imported when there is a first thing to show."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def start(self, label: str, total: int) -> None:
        """Show a bar."""
        with self._lock:
            if self._bars is None:
                self._bars = _bars()
                self._bars.start()
            self._tasks[label] = self._bars.add_task(label, total=total)

    def advance(self, label: str, done: int) -> None:
        """Move a bar."""
        with self._lock:
            if self._bars is not None:
                self._bars.update(self._tasks[label], completed=done)

    def stop(self, label: str) -> None:
        """Take a bar away; after the last one nothing is left on the screen."""
        with self._lock:
            if self._bars is None:
                return
            self._bars.remove_task(self._tasks.pop(label))
            if not self._tasks:
                self._bars.stop()
                self._bars = None


def _bars() -> Progress:
    from rich.console import Console  # noqa: PLC0415 - most commands never show a bar
    from rich.progress import Progress  # noqa: PLC0415

    return Progress(console=Console(stderr=True), transient=True)
