"""Files that nobody else may change, or read: what their modes say, and locks between processes."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from hotplug_rpc.errors import KeyFileError

__all__ = ["READ_OR_WRITE", "WRITE", "check_private", "locked"]

WRITE = 0o022
READ_OR_WRITE = 0o077
"""Bits of a mode that are for others."""


def check_private(path: Path, forbidden: int) -> None:
    """Refuse what other users can change or, of a secret, read.

    Raises:
        FileNotFoundError: it is not there.
        KeyFileError: as said.
    """
    try:
        state = path.stat()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}") from error
    if sys.platform == "win32":  # the mode says nothing there; the user's folder is private
        return
    if state.st_uid not in {os.geteuid(), 0}:
        raise KeyFileError(f"{path} belongs to another user", remedy=f"chown $(id -u) {path}")
    if stat.S_IMODE(state.st_mode) & forbidden:
        can = "write to" if forbidden == WRITE else "read"
        remedy = f"chmod go-{'w' if forbidden == WRITE else 'rwx'} {path}"
        raise KeyFileError(f"others can {can} {path}", remedy=remedy)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, which is made and stays; who else wants it waits. It ends with its process.

    Raises:
        OSError: it cannot be opened, or locked.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    with open(os.open(path, flags, 0o600), "r+b") as file:  # noqa: PTH123 - of a descriptor
        _lock(file.fileno())
        yield  # closing it gives the lock back


def _lock(handle: int) -> None:
    if sys.platform == "win32":
        import msvcrt  # noqa: PLC0415 - there alone

        msvcrt.locking(handle, msvcrt.LK_LOCK, 1)
    else:
        import fcntl  # noqa: PLC0415 - not on Windows

        fcntl.flock(handle, fcntl.LOCK_EX)
