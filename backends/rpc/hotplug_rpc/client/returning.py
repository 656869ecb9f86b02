"""Servers that were lost: looked for now and then, until they are back."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable

from hotplug_rpc.addresses import Address

__all__ = ["Watcher"]

_log = logging.getLogger("hotplug.rpc")

_CONNECT_SECONDS = 2.0


class Watcher:
    """Looks for lost servers, in a thread that is there only while some are lost.

    Args:
        back: called when one is back.
        seconds: between two looks.
    """

    def __init__(self, back: Callable[[], object], seconds: float) -> None:
        self._back = back
        self._seconds = seconds
        self._lost: dict[str, Address] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, server: Address) -> None:
        """Look for a server from now on."""
        with self._lock:
            self._lost[server.server] = server
            if self._thread is None and not self._ended.is_set():
                self._thread = threading.Thread(
                    target=self._watch, name="hotplug-rpc-watcher", daemon=True
                )
                self._thread.start()

    def end(self) -> None:
        """Look for none any more."""
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(self._seconds):
            with self._lock:
                lost = list(self._lost.values())
            found = [server for server in lost if _listens(server)]
            with self._lock:
                for server in found:
                    self._lost.pop(server.server, None)
                if not self._lost:
                    self._thread = None
            for server in found:
                _log.info("%s is back", server.server)
            if found:
                self._back()
            if not self._thread:
                return


def _listens(server: Address) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection((server.host, server.port), _CONNECT_SECONDS).close()
        return True
    return False
