"""Tensors of model files that a server has anyway, by hash.

Hashing a large file takes a while, so what was found is kept beside the cache of weights, with the
file's size and time; a file that has changed is hashed anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hotplug import progress, sealed
from hotplug.errors import FormatError, UsageError
from hotplug.formats.gguf import GGUFFile
from hotplug_rpc.contents import digest_of

__all__ = ["Place", "index_models"]

_log = logging.getLogger("hotplug.rpc")


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a file a tensor's bytes lie."""

    path: Path
    offset: int
    nbytes: int


def index_models(models: Iterable[Path], folder: Path | None) -> dict[str, Place]:
    """Hash -> place of all tensors of GGUF files, or of those in folders.

    Raises:
        UsageError: a path is neither.
    """
    found: dict[str, Place] = {}
    for path in _gguf_files(models):
        try:
            rows = _rows(path, folder)
        except (FormatError, UsageError, OSError) as error:
            _log.warning("%s is passed over: %s", path, error)
            continue
        found.update(rows)
    return found


def _gguf_files(models: Iterable[Path]) -> Iterator[Path]:
    for path in models:
        if path.is_dir():
            yield from sorted(path.rglob("*.gguf"))
        elif path.is_file():
            yield path
        else:
            raise UsageError(f"{path} is neither a model file nor a folder of them")


def _rows(path: Path, folder: Path | None) -> list[tuple[str, Place]]:
    state = path.stat()
    place = str(path.resolve())
    stamp = [place, state.st_size, state.st_mtime_ns]
    number = hashlib.sha256(place.encode("utf-8", "replace")).hexdigest()[:16]
    kept = folder and folder / f"{path.name}.{number}.index"
    known = _kept_rows(kept, stamp)
    if known is None:
        known = _hashed(path)
        rows = [[digest, str(at.path), at.offset, at.nbytes] for digest, at in known]
        sealed.write(kept, json.dumps({"stamp": stamp, "rows": rows}).encode())
    return known


def _kept_rows(path: Path | None, stamp: list[Any]) -> list[tuple[str, Place]] | None:
    content = sealed.read(path)
    index = json.loads(content) if content else {}
    if index.get("stamp") != stamp:
        return None
    return [(digest, Place(Path(file), *where)) for digest, file, *where in index["rows"]]


def _hashed(path: Path) -> list[tuple[str, Place]]:
    rows = []
    with GGUFFile.open(path) as file, progress.task(f"hash {path.name}", file.size) as advance:
        done = 0
        for name, info in file.tensors.items():
            digest = digest_of(file.tensor(name).data.data)
            rows.append((digest, Place(info.path, info.offset, info.nbytes)))
            done += info.nbytes
            advance(done)
    return rows
