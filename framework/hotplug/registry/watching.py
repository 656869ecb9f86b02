"""Looking for devices again and again."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable

from hotplug.errors import HotplugError
from hotplug.registry.registry import Registry

__all__ = ["watch"]

_log = logging.getLogger("hotplug.registry")


def watch(registry: Registry, every: float = 5.0) -> Callable[[], None]:
    """Refresh a registry again and again, so that sessions with `hot_plug` need not be told.

    Looking takes tens of milliseconds of Python's time, in which other threads compute less.

    Args:
        registry: it is not kept alive by this.
        every: seconds between two looks.

    Returns:
        What ends it; it returns when no look is on its way any more.
    """
    done = threading.Event()
    place = weakref.ref(registry)

    def look() -> None:
        while not done.wait(every):
            held = place()
            if held is None:
                return
            try:
                held.refresh()
            except HotplugError as error:
                _log.warning("looking for devices: %s", error)
            del held

    thread = threading.Thread(target=look, name="hotplug-watch", daemon=True)
    thread.start()

    def end() -> None:
        done.set()
        if thread is not threading.current_thread():
            thread.join()

    return end
