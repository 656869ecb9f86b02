"""Compiled kernels on disk, for all backends: where their files lie, and how many may.

The directory that the settings name has one folder a backend, and that one file a kernel, named by
a hash of all that could change what is in it; `hotplug.sealed` says what the files are. Their times
tell to a day when they were last used. All together take `HOTPLUG_CACHE_BYTES` at most, or a little
more for a minute: those go first that were not used for longest, so that what other versions left
does not stay.

Any number of processes may read, write and remove at once. Whoever finds a file gone compiles.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hotplug import sealed
from hotplug.settings import settings

__all__ = ["Entry", "entries", "evict", "folder", "path", "read", "write"]

_log = logging.getLogger(__name__)
_DAY = 86400.0
_BETWEEN_EVICTIONS = 60.0  # seconds, in one process
# The directory is the user's choice and may hold other files, which none of this may touch.
_KERNEL = re.compile(r"\w[^/]*-[0-9a-f]{32}\.[a-z]+")

_evicted: dict[Path, float] = {}
"""When this process last looked through a directory, by `time.monotonic`."""


class Entry(NamedTuple):
    """A file of the cache.

    Attributes:
        path: where it lies.
        nbytes: its size.
        used: when it was last used, to a day; seconds since the epoch.
        whole: False while it is being written, or if whoever wrote it died.
    """

    path: Path
    nbytes: int
    used: float
    whole: bool


def folder(backend: str) -> Path | None:
    """The folder of a backend's kernels, or None where the settings say that nothing is kept."""
    now = settings()
    return now.cache_directory / backend if now.cache else None


def path(folder: Path | None, kernel: str, key: str, suffix: str) -> Path | None:
    """Where a kernel's file lies or would lie.

    Args:
        folder: of the backend; None where nothing is kept.
        kernel: its name, for people who look at the files.
        key: all that could change what is in the file.
        suffix: small letters that say what the file is.
    """
    digest = hashlib.sha256(key.encode()).hexdigest()[:32]
    return folder and folder / f"{kernel}-{digest}.{suffix}"


def read(path: Path | None) -> bytes | None:
    """A file's content, or None if there is no whole one, or none is kept at all."""
    content = sealed.read(path)
    if path is not None and content is not None:
        with contextlib.suppress(OSError):  # another process removed it, or it is another user's
            _mark_used(path)
    return content


def write(path: Path | None, content: bytes) -> None:
    """Keep content, if there is any and it can be kept; now and then remove what is too much."""
    sealed.write(path, content)
    if path is None:
        return
    directory = path.parent.parent
    last = _evicted.get(directory)
    if last is None or time.monotonic() - last >= _BETWEEN_EVICTIONS:
        _evicted[directory] = time.monotonic()
        evict(directory, settings().cache_bytes)


def entries(directory: Path) -> Iterator[Entry]:
    """All files of the cache in a directory, and nothing else that lies there.

    Raises:
        OSError: the directory, or a folder in it, cannot be read.
    """
    for backend in _listed(directory):
        if backend.is_dir():
            for file in _listed(backend.path):
                # Other processes remove files meanwhile.
                with contextlib.suppress(FileNotFoundError):
                    yield from _entry(file)


def evict(directory: Path, most_bytes: int) -> None:
    """Remove what takes the files beyond a size, and what was left half written a day ago."""
    now = time.time()
    try:
        found = list(entries(directory))
    except OSError as error:
        _log.info("compiled kernels cannot be listed: %s", error)
        return
    for entry in _superfluous(found, most_bytes, now):
        with contextlib.suppress(OSError):  # in use, on systems that mind, or another user's
            entry.path.unlink(missing_ok=True)


def _superfluous(found: list[Entry], most_bytes: int, now: float) -> Iterator[Entry]:
    total = 0
    for entry in sorted(found, key=lambda entry: _age(entry.used, now)):
        if entry.whole:
            total += entry.nbytes
        if (total > most_bytes) if entry.whole else (_age(entry.used, now) > _DAY):
            yield entry


def _age(used: float, now: float) -> float:
    """Seconds. A time to come is a wrong clock's, and no sign that a file is used."""
    return abs(now - used)


def _mark_used(path: Path) -> None:
    """Set a file's time to now, at most once a day: reading shall not write."""
    if _age(path.stat().st_mtime, time.time()) > _DAY:
        os.utime(path)


def _listed(directory: Path | str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as found:
            return sorted(found, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _entry(file: os.DirEntry[str]) -> Iterator[Entry]:
    whole = _KERNEL.fullmatch(file.name) is not None
    if not whole and sealed.UNFINISHED.fullmatch(file.name) is None:
        return
    # A link is not followed: what it leads to is not the cache's.
    state = file.stat(follow_symlinks=False)
    if stat.S_ISREG(state.st_mode):
        yield Entry(Path(file.path), state.st_size, state.st_mtime, whole)
