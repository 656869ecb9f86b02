"""Files that are whole or not there: what caches are made of.

A file begins with the SHA-256 of its name and of the rest, and one that does not fit counts as
absent: so does one that lies under another's name. Files appear by an atomic rename, readable by
their owner alone. Where nothing can be written, nothing is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import tempfile
from pathlib import Path

__all__ = ["UNFINISHED", "read", "write"]

_log = logging.getLogger(__name__)
_DIGEST_BYTES = 32

UNFINISHED = re.compile(r"\.new-[a-z0-9_]{8}")
"""Names of files that are being written, or whose writer died."""


def read(path: Path | None) -> bytes | None:
    """A file's content, or None if there is no whole one, or none is kept at all."""
    try:
        data = path.read_bytes() if path else b""
    except OSError:
        return None
    digest, content = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if not path or not content or _digest(path, content) != digest:
        return None
    return content


def write(path: Path | None, content: bytes) -> None:
    """Keep content, if there is any and it can be kept."""
    if path is None or not content:
        return
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_atomically(path, _digest(path, content) + content)
    except OSError as error:
        _log.info("%s is not kept: %s", path.name, error)


def _digest(path: Path, content: bytes) -> bytes:
    digest = hashlib.sha256(path.name.encode() + b"\0")
    digest.update(content)
    return digest.digest()


def _write_atomically(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        temporary.replace(path)
    except BaseException:  # Ctrl-C too shall leave nothing behind
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
