"""Opening a model: one file, or the shards of a split one, mapped into memory."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Self

import numpy as np
import numpy.typing as npt

from hotplug.errors import FormatError, ModelError, UsageError
from hotplug.formats.gguf.fields import Fields
from hotplug.formats.gguf.header import Header, TensorInfo, read_header
from hotplug.formats.gguf.metadata import Metadata
from hotplug.formats.mapping import map_file
from hotplug.tensor import HostTensor

__all__ = ["GGUFFile", "TensorInfo"]

_SHARD_NAME = re.compile(r"-(\d{5})-of-(\d{5})\.gguf")
_SHARD_NUMBER = "split.no"
_SHARD_COUNT = "split.count"
_SHARD_TENSORS = "split.tensors.count"


@dataclass(frozen=True, slots=True)
class _Shard:
    """One mapped file."""

    path: Path
    data: npt.NDArray[np.uint8]
    header: Header

    @property
    def metadata(self) -> Metadata:
        return Metadata(self.data.data, self.header.entries)

    def split_field(self, key: str, default: int) -> int:
        """A number about the split.

        Raises:
            FormatError: it is no integer.
        """
        try:
            return Fields(self.metadata, source=str(self.path)).get(key, int, default)
        except ModelError as exc:
            raise FormatError(str(exc), path=str(self.path)) from exc


class GGUFFile:
    """A model file that is open for reading; a context manager.

    Tensors and arrays are read-only views of the mapped file. They keep it mapped after `close`,
    so closing is always safe. A file that shrinks while it is mapped is not: the system kills a
    process that touches the missing part.

    Attributes:
        path: the file that was opened.
        paths: all files of the model: `path`, or every shard.
        version: of the format, 2 or 3.
        alignment: of tensor data, in bytes.
        data_offset: byte position in `path` where tensor data begins.
        size: bytes of all files together.
        metadata: key -> value; a split model has its first shard's, without the keys about the
            split.
        tensors: name -> where it is, in file order.
    """

    def __init__(self, shards: tuple[_Shard, ...]) -> None:
        first = shards[0]
        self.path = first.path
        self.paths = tuple(shard.path for shard in shards)
        self.version = first.header.version
        self.alignment = first.header.alignment
        self.data_offset = first.header.data_offset
        self.size = sum(shard.data.nbytes for shard in shards)
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(_merge_tensors(shards))
        self._metadata = _merge_metadata(shards)
        self._mapped = {shard.path: shard.data for shard in shards}

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Map a file, and the other shards if it is the first of a split model.

        Raises:
            UsageError: there is no such file, it cannot be read, or it is a later shard.
            FormatError: it is no GGUF file, or a broken one.
        """
        return cls(_open_shards(Path(path)))

    @property
    def metadata(self) -> Metadata:
        """Key -> value.

        Raises:
            UsageError: the file is closed.
        """
        self._require_open()
        return self._metadata

    def fields(self, prefix: str = "") -> Fields:
        """Checked access to the metadata whose keys start with `prefix`."""
        return Fields(self.metadata, prefix, source=str(self.path))

    def tensor(self, name: str) -> HostTensor:
        """A tensor over the mapped file; no bytes are copied.

        Raises:
            ModelError: there is no such tensor.
            UsageError: the file is closed.
        """
        self._require_open()
        info = self.tensors.get(name)
        if info is None:
            raise ModelError(f"{self.path}: there is no tensor {name!r}", key=name)
        mapped = self._mapped[info.path]
        return HostTensor(info.type, mapped[info.offset : info.offset + info.nbytes])

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return not self._mapped

    def close(self) -> None:
        """Let go of the mapping; it ends with the last array that was handed out."""
        self._mapped = {}
        self._metadata = Metadata(memoryview(b""), {})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self.tensors)} tensors"
        return f"<GGUFFile {str(self.path)!r}, {state}>"

    def _require_open(self) -> None:
        if self.closed:
            raise UsageError(f"{self.path} is closed")


def _open_shards(path: Path) -> tuple[_Shard, ...]:
    first = _open_shard(path)
    count = first.split_field(_SHARD_COUNT, 1)
    number = first.split_field(_SHARD_NUMBER, 0)
    if count > 1 and number:
        raise UsageError(
            f"{path} is shard {number + 1} of {count}",
            remedy=f"open {_shard_path(path, 1, count).name}",
        )
    others = [_open_shard(_shard_path(path, i, count), i, count) for i in range(2, count + 1)]
    return (first, *others)


def _open_shard(path: Path, number: int = 0, count: int = 0) -> _Shard:
    """Map one file; a later shard must also be the one that its name says."""
    data = map_file(path)
    shard = _Shard(path, data, read_header(data.data, path))
    if number:
        said = (shard.split_field(_SHARD_NUMBER, -1), shard.split_field(_SHARD_COUNT, -1))
        if said != (number - 1, count):
            raise FormatError(f"{path}: this is not shard {number} of {count}", path=str(path))
    return shard


def _shard_path(path: Path, number: int, count: int) -> Path:
    """Path of another shard of the model that `path` belongs to; shards count from 1."""
    match = _SHARD_NAME.search(path.name)
    if match is None or int(match[2]) != count or match.end() != len(path.name):
        raise FormatError(
            f"{path}: this is one of {count} shards, but its name does not end as theirs do",
            path=str(path),
            remedy=f"name it MODEL-00001-of-{count:05d}.gguf, and the others likewise",
        )
    return path.with_name(f"{path.name[: match.start()]}-{number:05d}-of-{count:05d}.gguf")


def _merge_tensors(shards: tuple[_Shard, ...]) -> dict[str, TensorInfo]:
    merged: dict[str, TensorInfo] = {}
    for shard in shards:
        twice = merged.keys() & shard.header.tensors.keys()
        if twice:
            raise FormatError(
                f"{shard.path}: tensor {min(twice)!r} is in another shard too", path=str(shard.path)
            )
        merged |= shard.header.tensors
    promised = shards[0].split_field(_SHARD_TENSORS, len(merged))
    if len(shards) > 1 and promised != len(merged):
        raise FormatError(
            f"{shards[0].path}: {promised} tensors are promised, and the shards hold {len(merged)}",
            path=str(shards[0].path),
        )
    return merged


def _merge_metadata(shards: tuple[_Shard, ...]) -> Metadata:
    entries = shards[0].header.entries
    if len(shards) > 1:
        entries = {key: entry for key, entry in entries.items() if not key.startswith("split.")}
    return Metadata(shards[0].data.data, entries)
