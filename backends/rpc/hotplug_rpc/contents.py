"""Hashes of weights: BLAKE3, by all cores, of memory."""

from __future__ import annotations

import blake3

__all__ = ["Hasher", "digest_of"]

_LARGE = 1 << 20
"""Bytes from which several threads pay."""


def digest_of(data: memoryview) -> str:
    """64 hexadecimal digits that stand for the bytes."""
    threads = blake3.blake3.AUTO if data.nbytes >= _LARGE else 1
    return blake3.blake3(data, max_threads=threads).hexdigest()


class Hasher:
    """A digest of bytes that come one after the other."""

    def __init__(self) -> None:
        self._hash = blake3.blake3(max_threads=blake3.blake3.AUTO)

    def add(self, data: memoryview) -> None:
        """Take in what comes next."""
        self._hash.update(data)

    def digest(self) -> str:
        """Of all so far."""
        return self._hash.hexdigest()
