"""Weights on their way in: pieces in order, kept on disk where that is possible, resumed later.

An unfinished file bears the hash and the client's key, so that a client that comes back goes on
where it was, and nobody can spoil another's transfer.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path

from hotplug_rpc.contents import Hasher, digest_of
from hotplug_rpc.errors import ContentError, LimitError
from hotplug_rpc.server.unfinished import claim, own_name, shared_name

__all__ = ["Transfer", "Transfers"]

_log = logging.getLogger("hotplug.rpc")

_MOST_OPEN = 64
"""Unfinished files that are open; of others only the name is kept."""

_PIECE = 16 << 20

_MOST_EXPECTED = 65_536
"""Weights that a client was told to send and has not."""


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
        self._file: io.FileIO | None = None
        self._kept = True  # whether the file stays for the next time
        self._ended = False
        self._memory = bytearray() if path is None else None
        self._hasher: Hasher | None = None
        self._lock = threading.Lock()
        if path is not None and path.exists():
            with contextlib.suppress(OSError):
                self._resume(path)

    def _resume(self, path: Path) -> None:
        """Go on with what an earlier attempt left, unless somebody else does."""
        self._file = claim(path)
        size = 0 if self._file is None else os.fstat(self._file.fileno()).st_size
        if self._file is None or size >= self.nbytes:  # all of it, and yet without its name
            self._begin_own(path)
        else:
            self.held = size

    def _begin_own(self, path: Path) -> None:
        self.let_go()
        self._path = path.with_name(own_name(self.digest))
        self._kept = False

    def add(self, offset: int, data: memoryview) -> bool:
        """Take a piece; one that is there already is passed over.

        Returns:
            Whether that was the last one.

        Raises:
            ContentError: there is a gap before it, it is more than was said, or the end has come.
        """
        with self._lock:
            if self._ended:
                raise ContentError("this weight was not asked for")
            if offset > self.held or offset + data.nbytes > self.nbytes:
                raise ContentError(
                    f"bytes {offset} to {offset + data.nbytes} do not go on from {self.held} of "
                    f"{self.nbytes}"
                )
            fresh = data[self.held - offset :]
            if fresh.nbytes:
                # What an earlier attempt left has to be read for its hash; what comes now need not.
                if not self.held:
                    self._hasher = Hasher()
                self._append(fresh)
                self.held += fresh.nbytes
                if self._hasher is not None:
                    self._hasher.add(fresh)
            return self.held == self.nbytes

    def _append(self, data: memoryview) -> None:
        if self._memory is None:
            try:
                self._file = self._file or self._opened()
                _write_at(self._file, self.held, data)
            except OSError as error:
                _log.warning("weights are kept in memory: %s", error)
                self._move_to_memory()
            else:
                return
        assert self._memory is not None
        self._memory += data

    def _opened(self) -> io.FileIO:
        assert self._path is not None
        file = claim(self._path, ours=self.held > 0)
        if file is None and not self.held:
            self._begin_own(self._path)
            file = claim(self._path)
        if file is None or os.fstat(file.fileno()).st_size < self.held:
            raise OSError(errno.ESTALE, "the unfinished file is not there any more")
        return file

    def _move_to_memory(self) -> None:
        self._memory = bytearray()
        with contextlib.suppress(OSError):
            if self._file is not None:
                self._file.seek(0)
                self._memory += self._file.read(self.held)
        self.drop()
        if len(self._memory) < self.held:
            self.held, self._memory = 0, bytearray()
            raise ContentError("the server could not keep what it had; send it again")

    def check(self) -> None:
        """Compare the hash of what was received.

        Raises:
            ContentError: it is wrong; all of it is dropped.
        """
        with self._lock:
            digest = self._digest()
            if digest != self.digest:
                self.drop()
                raise ContentError(f"{self.nbytes} bytes have the hash {digest}, not {self.digest}")

    def _digest(self) -> str:
        if self._hasher is not None:
            return self._hasher.digest()
        if self._memory is not None:
            return digest_of(memoryview(self._memory))
        return self._digest_of_file()

    def _digest_of_file(self) -> str:
        hasher = Hasher()
        try:
            self._file = self._file or self._opened()
            self._file.seek(0)
            while piece := self._file.read(_PIECE):
                hasher.add(memoryview(piece))
        except OSError as error:
            raise ContentError(f"the server could not read what it had: {error}") from error
        return hasher.digest()

    def keep_as(self, path: Path) -> bool:
        """Give the file its name; False if there is none, or it cannot be renamed."""
        if self._path is None or self._file is None:
            return False
        if os.name == "nt":  # where open files are not renamed
            self.let_go()
        try:
            self._path.replace(path)
        except OSError as error:
            _log.warning("weights are kept in memory: %s", error)
            return False
        self.let_go()
        return True

    def content(self) -> bytes | bytearray:
        """All of it, for where it has no file of its own; there is none afterwards.

        Raises:
            OSError: the file cannot be read.
        """
        if self._memory is not None:
            return self._memory
        assert self._path is not None
        file = self._file or io.FileIO(self._path)
        with file:
            file.seek(0)
            data = file.read()
        self.drop()
        return data

    def let_go(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def drop(self) -> None:
        """Remove the file."""
        file, self._file = self._file, None
        if self._path is not None and (file is not None or self.held):
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
        if file is not None:
            file.close()

    def pause(self) -> None:
        """Nothing more comes for now; what is there stays for the next time."""
        with self._lock:
            self._ended = True
            if self._kept:
                self.let_go()
            else:
                self.drop()

    def rest(self) -> None:
        """Close the file until the next piece, as too many are open."""
        with self._lock:
            self.let_go()


def _write_at(file: io.FileIO, offset: int, data: memoryview) -> None:
    file.seek(offset)
    rest = data
    while rest.nbytes:
        rest = rest[file.write(rest) :]
    file.truncate()


class Transfers:
    """All that are under way.

    Args:
        folder: where files go; None keeps everything in memory.
        most_bytes: what is larger has no file.
    """

    def __init__(self, folder: Path | None, most_bytes: int = 1 << 62) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._running: dict[str, dict[str, Transfer]] = {}
        self._open: OrderedDict[Transfer, None] = OrderedDict()  # the longest unused first
        self._lock = threading.Lock()

    def expect(self, client: str, digest: str, nbytes: int) -> int:
        """A client is told that a weight is missing and may send it; returns the bytes held.

        Raises:
            LimitError: it was told so of very many, and sent none of them.
        """
        with self._lock:
            running = self._running.setdefault(client, {})
            found = running.get(digest)
            if found is not None and found.nbytes != nbytes:
                self._end(running.pop(digest))
                found = None
            if found is None:
                if len(running) >= _MOST_EXPECTED:
                    raise LimitError(
                        f"{len(running)} weights are expected already", limit=_MOST_EXPECTED
                    )
                found = running[digest] = Transfer(
                    digest, nbytes, self._path(client, digest, nbytes)
                )
            return found.held

    def _path(self, client: str, digest: str, nbytes: int) -> Path | None:
        if self._folder is None or nbytes > self._most_bytes:
            return None
        return self._folder / shared_name(digest, client)

    def outstanding(self, client: str, besides: Collection[str] = ()) -> int:
        """Bytes of what a client was told to send, besides some."""
        with self._lock:
            running = self._running.get(client, {})
            return sum(t.nbytes for digest, t in running.items() if digest not in besides)

    def get(self, client: str, digest: str, nbytes: int) -> Transfer:
        """What was expected, and is used now.

        Raises:
            ContentError: it was not.
        """
        with self._lock:
            found = self._running.get(client, {}).get(digest)
            if found is None or found.nbytes != nbytes:
                raise ContentError("this weight was not asked for")
            self._open[found] = None
            self._open.move_to_end(found)
            if len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)[0].rest()
            return found

    def take_out(self, client: str, transfer: Transfer) -> None:
        """All of a weight has come."""
        with self._lock:
            self._running.get(client, {}).pop(transfer.digest, None)
            self._open.pop(transfer, None)

    def forget(self, client: str) -> None:
        """End all transfers of a client; unfinished files stay for the next time."""
        with self._lock:
            for transfer in self._running.pop(client, {}).values():
                self._end(transfer)

    def _end(self, transfer: Transfer) -> None:
        self._open.pop(transfer, None)
        transfer.pause()
