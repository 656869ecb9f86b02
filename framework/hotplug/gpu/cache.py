"""Compiled kernels on disk, for all GPU backends.

One file a kernel, named by a hash of all that could change what is in it: the source with its
definitions, device, driver and compiler, our version. A file begins with the SHA-256 of the rest;
one that does not fit is a miss. Files appear by an atomic rename, readable by their owner alone.
Where nothing can be written, the cache works without remembering anything.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hotplug.settings import settings

__all__ = ["FORMAT", "BinaryCache"]

_log = logging.getLogger("hotplug.gpu")
_DIGEST_BYTES = 32

FORMAT = 1
"""Part of every key; a change makes all files misses."""


@dataclass(frozen=True, slots=True)
class BinaryCache:
    """Binaries of one device's kernels.

    Attributes:
        directory: where they lie; None keeps nothing.
        identity: device, driver and compiler.
    """

    directory: Path | None
    identity: str

    @classmethod
    def open(cls, backend: str, identity: str) -> BinaryCache:
        """The cache that the settings name."""
        now = settings()
        return cls(now.cache_directory / backend if now.cache else None, identity)

    def path(self, kernel: str, source: str) -> Path | None:
        """Where a kernel's file lies or would lie."""
        if self.directory is None:
            return None
        key = "\0".join((str(FORMAT), self.identity, kernel, source))
        return self.directory / f"{kernel}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.bin"

    def get(self, kernel: str, source: str) -> bytes | None:
        """A kernel's binary, or None if there is no whole one."""
        path = self.path(kernel, source)
        try:
            data = path.read_bytes() if path else b""
        except OSError:
            return None
        digest, binary = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if not binary or hashlib.sha256(binary).digest() != digest:
            return None
        return binary

    def put(self, kernel: str, source: str, binary: bytes) -> None:
        """Keep a kernel's binary if that is possible."""
        path = self.path(kernel, source)
        if path is None or not binary:
            return
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_atomically(path, hashlib.sha256(binary).digest() + binary)
        except OSError as error:
            _log.info("compiled kernels are not kept: %s", error)


def _write_atomically(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
