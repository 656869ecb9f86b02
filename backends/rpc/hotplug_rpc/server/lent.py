"""Files that clients on this machine lend: descriptors, by a socket that only the user reaches.

A client hands a descriptor over under a name that it made up, and then says by its session, which
proves who it is, what to read from it. Nothing is mapped, so that a file which is cut meanwhile is
an error and no crash; and what is read is hashed, as what is sent is.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import stat
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from hotplug_rpc.errors import SessionError

__all__ = ["Lent"]

_log = logging.getLogger("hotplug.rpc")

_TOKEN_BYTES = 32
_MOST = 16
_SECONDS = 10.0
_PATIENCE = 1.0
_FLAGS = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Lent:
    """Descriptors that nobody has claimed yet, and the thread that takes them in.

    Attributes:
        door: path of the socket; empty where the system has no such thing.
    """

    def __init__(self) -> None:
        self.door = ""
        self._held: dict[str, tuple[int, float]] = {}
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        if not (hasattr(socket, "recv_fds") and hasattr(os, "getuid")):
            return
        try:
            self._open(Path(tempfile.mkdtemp(prefix="hotplug-rpc-")))  # readable by its owner alone
        except OSError as error:
            _log.info("files cannot be lent to this server: %s", error)

    def _open(self, folder: Path) -> None:
        self._folder = folder
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(str(folder / "door"))
            listener.listen()
        except OSError:
            listener.close()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._listener, self.door = listener, str(folder / "door")
        self._thread = threading.Thread(target=self._serve, name="hotplug-rpc-lent", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        assert self._listener is not None
        while True:
            try:
                end, _ = self._listener.accept()
            except OSError:  # closed
                return
            with end, contextlib.suppress(OSError):
                end.settimeout(_PATIENCE)
                end.send(b"+" if self._take(end) else b"-")

    def _take(self, end: socket.socket) -> bool:
        token, descriptors, _, _ = socket.recv_fds(end, _TOKEN_BYTES, 1, _FLAGS)
        sound = len(token) == _TOKEN_BYTES and len(descriptors) == 1 and _is_own(end)
        if (
            sound
            and stat.S_ISREG(os.fstat(descriptors[0]).st_mode)
            and self._keep(token.hex(), descriptors[0])
        ):
            return True
        for descriptor in descriptors:
            os.close(descriptor)
        return False

    def _keep(self, token: str, descriptor: int) -> bool:
        now = time.monotonic()
        with self._lock:
            for old in [name for name, (_, until) in self._held.items() if until < now]:
                os.close(self._held.pop(old)[0])
            if len(self._held) >= _MOST or token in self._held:
                return False
            self._held[token] = descriptor, now + _SECONDS
            return True

    @contextlib.contextmanager
    def claimed(self, token: str) -> Iterator[int]:
        """The descriptor of a name, which is closed afterwards.

        Raises:
            SessionError: nothing was lent under that name.
        """
        with self._lock:
            descriptor, _ = self._held.pop(token, (-1, 0.0))
        if descriptor < 0:
            raise SessionError("nothing was lent under this name")
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """End the thread, close what nobody claimed, and remove the socket."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._thread.join(2 * _PATIENCE)
            shutil.rmtree(self._folder, ignore_errors=True)
        with self._lock:
            held, self._held = self._held, {}
        for descriptor, _ in held.values():
            os.close(descriptor)


def _is_own(end: socket.socket) -> bool:
    """Whether a process of the same user is at the other end; the folder says so everywhere."""
    if sys.platform != "linux":
        return True
    _, user, _ = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return bool(user == os.getuid())
