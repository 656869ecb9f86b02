"""A link between two ends on one machine that has latency, can be cut, and can fall silent.

Systems differ in how links are slowed down, if a user may do so at all; this works on every one. It
forwards TCP connections through threads of the calling process.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from typing import Self

__all__ = ["Link"]

_PIECE = 1 << 16
_MOST_PIECES = 1024


class Link:
    """Forwards connections to a port of this machine; a context manager.

    Attributes:
        port: where to connect instead.
        seconds: one-way latency; may be changed at any time.
    """

    def __init__(self, target: int, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.target = target
        self._silent = threading.Event()
        self._ends: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections; new ones can be made."""
        with self._lock:
            ends, self._ends = self._ends, set()
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def silence(self, *, silent: bool) -> None:
        """Let nothing through any more, without a word to either end; or let it through again."""
        (self._silent.set if silent else self._silent.clear)()

    def close(self) -> None:
        """End everything."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:  # closed
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target), 5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._ends |= {near, far}
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, sink in ((near, far), (far, near)):
                pieces: queue.Queue[tuple[float, bytes]] = queue.Queue(_MOST_PIECES)
                for work in (self._take, self._give):
                    end = source if work == self._take else sink
                    threading.Thread(target=work, args=(end, pieces), daemon=True).start()

    def _take(self, source: socket.socket, pieces: queue.Queue[tuple[float, bytes]]) -> None:
        data = b"x"
        while data:
            try:
                data = source.recv(_PIECE)
            except OSError:
                data = b""
            pieces.put((time.perf_counter() + self.seconds, data))

    def _give(self, sink: socket.socket, pieces: queue.Queue[tuple[float, bytes]]) -> None:
        while True:
            due, data = pieces.get()
            wait = due - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            while self._silent.is_set():
                time.sleep(0.01)
            try:
                if data:
                    sink.sendall(data)
                else:
                    sink.shutdown(socket.SHUT_RDWR)
            except OSError:
                data = b""
            if not data:
                with self._lock:
                    self._ends.discard(sink)
                sink.close()
                return
