"""Files as memory, and which file memory is of."""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hotplug.errors import FormatError, UsageError

__all__ = ["Origin", "Stamp", "map_file", "origin_of"]


class Stamp(NamedTuple):
    """What changes when a file is another, or has been written to."""

    device: int
    inode: int
    nbytes: int
    modified_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """Of a file's status."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where bytes in memory come from.

    Attributes:
        path: of the file, as it was opened.
        stamp: of the file when it was mapped.
        offset: of the bytes in it.
    """

    path: Path
    stamp: Stamp
    offset: int


def map_file(path: Path) -> npt.NDArray[np.uint8]:
    """The bytes of a file, read-only; the array alone keeps the mapping alive.

    Raises:
        UsageError: it cannot be opened, or is no regular file.
        FormatError: it is empty.
    """
    try:
        # A look before opening: opening a pipe would wait for somebody to write to it.
        status = path.stat()
        mapped = _map_regular(path) if stat.S_ISREG(status.st_mode) and status.st_size else None
    except FileNotFoundError as exc:
        raise UsageError(f"there is no file {path}") from exc
    except (OSError, ValueError) as exc:
        raise UsageError(f"{path} cannot be opened: {exc}") from exc
    if mapped is not None:
        return mapped
    if stat.S_ISREG(status.st_mode):
        raise FormatError(f"{path}: the file is empty", path=str(path), offset=0)
    kind = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
    raise UsageError(f"{path} is {kind}")


_maps: weakref.WeakValueDictionary[Stamp, npt.NDArray[np.uint8]] = weakref.WeakValueDictionary()
"""Files that are mapped now. Whoever opens one of them again gets the same bytes at the same
addresses, by which devices know that they have a weight already."""

_paths: dict[Stamp, Path] = {}
"""Of files that are mapped now."""


def _map_regular(path: Path) -> npt.NDArray[np.uint8]:
    with path.open("rb") as file:
        stamp = Stamp.of(os.fstat(file.fileno()))
        held = _maps.get(stamp)
        if held is not None and stamp.inode:
            return held
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # Where the file system has large folios, Linux then reads the file in pages of 2 MB, and
        # every later reading of it is some percent faster: docs/decisions/0012. It may refuse.
        with contextlib.suppress(OSError):
            mapped.madvise(mmap.MADV_HUGEPAGE)
    data = np.frombuffer(mapped, np.uint8)
    _maps[stamp], _paths[stamp] = data, path.absolute()
    weakref.finalize(data, _paths.pop, stamp, None).atexit = False
    return data


def origin_of(data: memoryview) -> Origin | None:
    """Which file bytes in memory are of; None if they are of none that `map_file` mapped."""
    address = _address(np.frombuffer(data, np.uint8)) if data.nbytes else 0
    for stamp, mapped in tuple(_maps.items()):
        offset = address - _address(mapped)
        path = _paths.get(stamp)
        if path is not None and 0 <= offset <= mapped.nbytes - data.nbytes:
            return Origin(path, stamp, offset)
    return None


def _address(data: npt.NDArray[np.uint8]) -> int:
    return int(data.__array_interface__["data"][0])
