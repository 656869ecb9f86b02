"""Weights on their way in: pieces in order, kept on disk where that is possible, resumed later.

An unfinished file bears the hash and the client's key, so that a client that comes back goes on
where it was, and nobody can spoil another's transfer.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
from collections.abc import Collection
from pathlib import Path

from hotplug_rpc.contents import Hasher, digest_of, digest_of_file
from hotplug_rpc.errors import ContentError

__all__ = ["UNFINISHED", "Transfer", "Transfers"]

_log = logging.getLogger("hotplug.rpc")

UNFINISHED = re.compile(r"\.part-[0-9a-f]{64}-[0-9a-f]{16}")


class Transfer:
    """One weight. In a file, or in memory once that fails.

    Attributes:
        held: bytes that are there, from the beginning on.
    """

    def __init__(self, digest: str, nbytes: int, path: Path | None) -> None:
        self.digest = digest
        self.nbytes = nbytes
        self.held = 0
        self._path = path
        self._memory: bytearray | None = None
        self._lock = threading.Lock()
        if path is None:
            self._memory = bytearray()
        else:
            with contextlib.suppress(OSError):
                # A whole one whose sender was cut off before its end is received anew.
                self.held = size if (size := path.stat().st_size) < nbytes else 0
        # What an earlier attempt left has to be read for its hash; what comes now need not be.
        self._hasher = None if self.held else Hasher()

    def add(self, offset: int, data: memoryview) -> bool:
        """Take a piece; one that is there already is passed over.

        Returns:
            Whether that was the last one.

        Raises:
            ContentError: there is a gap before it, or it is more than was said.
        """
        with self._lock:
            if offset > self.held or offset + data.nbytes > self.nbytes:
                raise ContentError(
                    f"bytes {offset} to {offset + data.nbytes} do not go on from {self.held} of "
                    f"{self.nbytes}"
                )
            fresh = data[self.held - offset :]
            if fresh.nbytes:
                self._append(fresh)
                self.held += fresh.nbytes
                if self._hasher is not None:
                    self._hasher.add(fresh)
            return self.held == self.nbytes

    def _append(self, data: memoryview) -> None:
        if self._path is not None and self._memory is None:
            try:
                _append_to(self._path, self.held, data)
            except OSError as error:
                _log.warning("weights are kept in memory: %s", error)
                self._move_to_memory()
            else:
                return
        assert self._memory is not None
        self._memory += data

    def _move_to_memory(self) -> None:
        assert self._path is not None
        try:
            self._memory = bytearray(self._path.read_bytes()[: self.held])
        except OSError:
            self._memory = bytearray()
        short = len(self._memory) < self.held
        self.drop_file()
        if short:
            self.held = len(self._memory)
            self._hasher = None
            raise ContentError("the server could not keep what it had; send it again")

    def finish(self) -> bytearray | Path:
        """What was received, its hash checked: bytes in memory, or a file to be renamed.

        Raises:
            ContentError: the hash is wrong; all of it is dropped.
        """
        with self._lock:
            digest = self._digest()
            if digest != self.digest:
                self.drop_file()
                raise ContentError(f"{self.nbytes} bytes have the hash {digest}, not {self.digest}")
            return (
                self._path if self._memory is None and self._path else self._memory or bytearray()
            )

    def _digest(self) -> str:
        if self._hasher is not None:
            return self._hasher.digest()
        if self._memory is not None:
            return digest_of(memoryview(self._memory))
        assert self._path is not None
        return digest_of_file(self._path)

    def drop_file(self) -> None:
        """Remove the unfinished file."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)


def _append_to(path: Path, offset: int, data: memoryview) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
    with os.fdopen(handle, "wb", buffering=0) as file:
        file.seek(offset)
        rest = data
        while rest.nbytes:
            rest = rest[file.write(rest) :]
        file.truncate()


class Transfers:
    """All that are under way.

    Args:
        folder: where files go; None keeps everything in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._running: dict[tuple[str, str], Transfer] = {}
        self._lock = threading.Lock()

    def expect(self, client: str, digest: str, nbytes: int) -> int:
        """A client is told that a weight is missing and may send it; returns the bytes held."""
        key = client, digest
        with self._lock:
            found = self._running.get(key)
            if found is None or found.nbytes != nbytes:
                name = f".part-{digest}-{client[:16]}"
                path = self._folder and self._folder / name
                found = self._running[key] = Transfer(digest, nbytes, path)
            return found.held

    def outstanding(self, client: str, besides: Collection[str] = ()) -> int:
        """Bytes of what a client was told to send, besides some."""
        with self._lock:
            return sum(
                transfer.nbytes
                for (sender, digest), transfer in self._running.items()
                if sender == client and digest not in besides
            )

    def get(self, client: str, digest: str, nbytes: int) -> Transfer:
        """What was expected.

        Raises:
            ContentError: it was not.
        """
        with self._lock:
            found = self._running.get((client, digest))
        if found is None or found.nbytes != nbytes:
            raise ContentError("this weight was not asked for")
        return found

    def forget(self, client: str, digest: str | None = None) -> None:
        """End one transfer of a client, or all; unfinished files stay for the next time."""
        with self._lock:
            for key in [k for k in self._running if k[0] == client and digest in {None, k[1]}]:
                del self._running[key]
