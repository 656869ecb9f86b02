"""Compiled kernels on disk, for all GPU backends.

One file a kernel, named by a hash of all that could change what is in it: the source with its
definitions, device, driver and compiler, our version. `hotplug.kernel_cache` keeps the files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hotplug import kernel_cache

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
        return cls(kernel_cache.folder(backend), identity)

    def path(self, kernel: str, source: str) -> Path | None:
        """Where a kernel's file lies or would lie."""
        key = "\0".join((str(FORMAT), self.identity, kernel, source))
        return kernel_cache.path(self.directory, kernel, key, "bin")

    def get(self, kernel: str, source: str) -> bytes | None:
        """A kernel's binary, or None if there is no whole one."""
        return kernel_cache.read(self.path(kernel, source))

    def put(self, kernel: str, source: str, binary: bytes) -> None:
        """Keep a kernel's binary if that is possible."""
        kernel_cache.write(self.path(kernel, source), binary)
