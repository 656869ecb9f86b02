"""Compiled kernels on disk, for all GPU backends.

One file a kernel, named by a hash of all that could change what is in it: the source with its
definitions, device, driver and compiler, our version. `hotplug.sealed` says what the files are.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from hotplug import sealed
from hotplug.settings import settings

__all__ = ["FORMAT", "BinaryCache"]


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
        return sealed.read(self.path(kernel, source))

    def put(self, kernel: str, source: str, binary: bytes) -> None:
        """Keep a kernel's binary if that is possible."""
        sealed.write(self.path(kernel, source), binary)
