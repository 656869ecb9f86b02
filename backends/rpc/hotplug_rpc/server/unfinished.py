"""Files of weights that are still coming in: each is written by one transfer at a time.

Several servers of a user share a folder, and a client may send all of them the same weight at once.
Where the system has locks that end with their process, a file is locked while it is written, and
what a dead server left is gone on with. Elsewhere a file that is there is another's.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import secrets
import sys
from pathlib import Path

__all__ = ["NAME", "claim", "own_name", "shared_name"]

NAME = re.compile(r"\.part-[0-9a-f]{64}-[0-9a-f]{16}")
"""Names of such files."""

_CLIENT_DIGITS = 16
_FLAGS = (
    os.O_RDWR | os.O_CREAT
    | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
)  # fmt: skip


def shared_name(digest: str, client: str) -> str:
    """Of the file with which a client that comes back goes on."""
    return f".part-{digest}-{client[:_CLIENT_DIGITS]:0<{_CLIENT_DIGITS}}"


def own_name(digest: str) -> str:
    """Of a file that nobody else ever opens."""
    return f".part-{digest}-{secrets.token_hex(_CLIENT_DIGITS // 2)}"


def claim(path: Path, *, ours: bool = False) -> io.FileIO | None:
    """A file, made if need be, for one writer alone; None if another one has it.

    Args:
        path: its name.
        ours: whether it is one that this writer made before.

    Raises:
        OSError: it can be neither made nor opened.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if sys.platform == "win32":
        return _only_new(path) if not ours else io.FileIO(path, "r+b")
    handle = os.open(path, _FLAGS, 0o600)
    if _locked(handle) and _is_still(handle, path):
        return io.FileIO(handle, "r+b")
    os.close(handle)
    return None


def _only_new(path: Path) -> io.FileIO | None:
    with contextlib.suppress(FileExistsError):
        return io.FileIO(os.open(path, _FLAGS | os.O_EXCL, 0o600), "r+b")
    return None


def _locked(handle: int) -> bool:
    if sys.platform == "win32":
        return False
    import fcntl  # noqa: PLC0415 - not on Windows

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # it is another's, or the file system has no locks
        return False
    return True


def _is_still(handle: int, path: Path) -> bool:
    """Whether what was locked still has this name, and not that of a finished file."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat(follow_symlinks=False))
    except OSError:
        return False
