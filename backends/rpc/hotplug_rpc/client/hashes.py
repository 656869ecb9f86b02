"""Hashes of weights. Those of weights that lie in files are kept, so that a file is hashed once.

A kept hash counts while the file's size, time and inode are those of when it was hashed. A model
that the server has is then opened without being read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hotplug import sealed
from hotplug.formats.mapping import Origin, Stamp, origin_of
from hotplug.settings import settings
from hotplug_rpc.contents import digest_of

__all__ = ["digests_of"]

_MOST_FILES = 1000


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


def digests_of(data: Sequence[memoryview], advance: Callable[[int], object]) -> list[str]:
    """Hashes of read-only memories; `advance` is told the bytes that are done."""
    files: dict[Stamp, _File] = {}
    found, done = [], 0
    for item in data:
        origin = _unchanged(origin_of(item))
        if origin is None:
            found.append(digest_of(item))
        else:
            if origin.stamp not in files:
                files[origin.stamp] = _File.of(origin)
            found.append(files[origin.stamp].digest(origin, item))
        done += item.nbytes
        advance(done)
    for file in files.values():
        file.keep()
    return found


def _make_room(folder: Path) -> None:
    """Remove what was written longest ago, where there are too many files."""
    with contextlib.suppress(OSError):
        files = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
        for path in files[: max(0, len(files) + 1 - _MOST_FILES)]:
            path.unlink()


def _unchanged(origin: Origin | None) -> Origin | None:
    """The origin, unless the file was written to since it was mapped."""
    with contextlib.suppress(OSError):
        if origin is not None and Stamp.of(origin.path.stat()) == origin.stamp:
            return origin
    return None


def _kept(place: Path, stamp: Stamp) -> dict[tuple[int, int], str]:
    content = sealed.read(place)
    index = json.loads(content) if content else {}
    if index.get("stamp") != list(stamp):
        return {}
    return {(offset, nbytes): digest for offset, nbytes, digest in index["rows"]}
