"""Hashes of weights. Those of weights that lie in files are kept, so that a file is hashed once.

A kept hash counts while the file's size, time and inode are those of when it was hashed. A model
that the server has is then opened without being read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hotplug import sealed
from hotplug.formats.mapping import Origin, Stamp, origin_of
from hotplug.settings import settings
from hotplug_rpc.contents import digest_of

__all__ = ["Hashes"]

_MOST_FILES = 1000
_SWITCH_SECONDS = 0.0005


class _Turns:
    """Has threads that compute in Python yield sooner: each hash waits for that once."""

    def __init__(self) -> None:
        self._inside = 0
        self._before = 0.0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(min(self._before, _SWITCH_SECONDS))
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                sys.setswitchinterval(self._before)


_turns = _Turns()


@dataclass(slots=True)
class _File:
    """Hashes of one file's parts, by offset and bytes."""

    place: Path
    stamp: Stamp
    known: dict[tuple[int, int], str]
    fresh: dict[tuple[int, int], str] = field(default_factory=dict)

    @classmethod
    def of(cls, origin: Origin) -> _File:
        name = hashlib.sha256(str(origin.path).encode("utf-8", "replace")).hexdigest()[:32]
        place = settings().cache_directory / "rpc-hashes" / name
        return cls(place, origin.stamp, _kept(place, origin.stamp))

    def digest(self, origin: Origin, data: memoryview) -> str:
        part = origin.offset, data.nbytes
        if part not in self.known:
            self.known[part] = self.fresh[part] = digest_of(data)
        return self.known[part]

    def keep(self) -> None:
        if self.fresh:
            rows = [[*part, digest] for part, digest in self.known.items()]
            _make_room(self.place.parent)
            sealed.write(self.place, json.dumps({"stamp": self.stamp, "rows": rows}).encode())
            self.fresh.clear()


class Hashes:
    """Hashes of memory that does not change, computed once."""

    def __init__(self) -> None:
        self._files: dict[Stamp, _File | None] = {}

    def of(self, data: Sequence[memoryview], advance: Callable[[int], object]) -> list[str]:
        """Of read-only memories; `advance` is told the bytes that are done."""
        found, done = [], 0
        with _turns:
            for item in data:
                found.append(self._digest(item))
                done += item.nbytes
                advance(done)
        return found

    def keep(self) -> None:
        """Keep those of files for other processes."""
        for file in filter(None, self._files.values()):
            file.keep()

    def _digest(self, data: memoryview) -> str:
        origin = origin_of(data)
        file = None if origin is None else self._file(origin)
        return digest_of(data) if file is None or origin is None else file.digest(origin, data)

    def _file(self, origin: Origin) -> _File | None:
        """The file of some memory, unless it was written to since it was mapped."""
        if origin.stamp not in self._files:
            now = None
            with contextlib.suppress(OSError):
                now = Stamp.of(origin.path.stat())
            self._files[origin.stamp] = _File.of(origin) if now == origin.stamp else None
        return self._files[origin.stamp]


def _make_room(folder: Path) -> None:
    """Remove what was written longest ago, where there are too many files."""
    with contextlib.suppress(OSError):
        files = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
        for path in files[: max(0, len(files) + 1 - _MOST_FILES)]:
            path.unlink()


def _kept(place: Path, stamp: Stamp) -> dict[tuple[int, int], str]:
    content = sealed.read(place)
    index = json.loads(content) if content else {}
    if index.get("stamp") != list(stamp):
        return {}
    return {(offset, nbytes): digest for offset, nbytes, digest in index["rows"]}
