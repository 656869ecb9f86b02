"""Hashes of weights: BLAKE3, by all cores, of memory or of files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import blake3

__all__ = ["digest_of", "digest_of_file", "digests_of"]

_LARGE = 1 << 20
"""Bytes from which several threads pay."""


def digest_of(data: memoryview) -> str:
    """64 hexadecimal digits that stand for the bytes."""
    threads = blake3.blake3.AUTO if data.nbytes >= _LARGE else 1
    return blake3.blake3(data, max_threads=threads).hexdigest()


def digests_of(items: Iterable[memoryview]) -> list[str]:
    """Of each of several."""
    return [digest_of(item) for item in items]


def digest_of_file(path: Path) -> str:
    """Of a file's content.

    Raises:
        OSError: it cannot be read.
    """
    return blake3.blake3(max_threads=blake3.blake3.AUTO).update_mmap(path).hexdigest()
