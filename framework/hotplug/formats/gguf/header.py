"""Reading a header: everything before the tensor data, checked once and completely."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from hotplug import dtypes
from hotplug.errors import DTypeError, FormatError
from hotplug.formats.gguf.cursor import CUT_SHORT, Cursor
from hotplug.formats.gguf.metadata import Entry
from hotplug.formats.gguf.sniff import resembles
from hotplug.formats.gguf.values import (
    ALIGNMENT_KEY,
    DEFAULT_ALIGNMENT,
    MAGIC,
    MAX_DIMENSIONS,
    MAX_TEXT,
    U32,
)
from hotplug.tensor import TensorType

__all__ = ["Header", "TensorInfo", "read_header"]

_VERSIONS = (2, 3)
_MAX_ENTRIES = 1 << 16
_MAX_TENSORS = 1 << 17  # the largest models with one tensor for each expert have some 50,000
_MAX_TENSOR_NAME = 1024  # ggml stops at 63; tools built with longer names exist
_MIN_ENTRY = 8 + 1 + 4 + 1  # bytes of the shortest key, its type and its value
_MIN_TENSOR = 8 + 1 + 4 + 4 + 8
_MAX_ELEMENTS = (1 << 63) - 1  # ggml counts elements in int64


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor is and what it holds.

    Attributes:
        name: its name.
        type: dtype and row-major shape (files list dimensions innermost first).
        offset: byte position of its data in the file `path`.
        nbytes: bytes of its data.
        path: the file, one of the shards of a split model.
    """

    name: str
    type: TensorType
    offset: int
    nbytes: int
    path: Path


@dataclass(frozen=True, slots=True)
class Header:
    """One file's header.

    Attributes:
        version: of the format, 2 or 3.
        alignment: of tensor data, in bytes.
        data_offset: byte position where tensor data begins.
        entries: where each metadata value is.
        tensors: name -> tensor, in file order.
    """

    version: int
    alignment: int
    data_offset: int
    entries: dict[str, Entry]
    tensors: dict[str, TensorInfo]


@dataclass(frozen=True, slots=True)
class _Record:
    """A tensor as the file lists it: its offset counts from where data begins."""

    name: str
    type: TensorType
    offset: int
    position: int


def read_header(data: memoryview, path: Path) -> Header:
    """Read and check the header of a mapped file.

    Args:
        data: the whole file.
        path: the file, for messages.

    Raises:
        FormatError: anything in it is not as the format has it, or data lies outside the file.
    """
    version = _read_version(data, path)
    cursor = Cursor(data, str(path))
    cursor.skip(8)
    tensor_count = cursor.u64()
    entry_count = cursor.u64()
    entries = _read_entries(cursor, entry_count)
    alignment = _read_alignment(cursor, data, entries)
    records = _read_records(cursor, tensor_count)
    data_offset = -(-cursor.position // alignment) * alignment
    tensors = {
        record.name: _locate(cursor, record, alignment, data_offset, data.nbytes, path)
        for record in records
    }
    return Header(version, alignment, data_offset, entries, tensors)


def _read_version(data: memoryview, path: Path) -> int:
    start = data[:512].tobytes()
    if not start.startswith(MAGIC):
        likeness = resembles(start)
        looks = f"; it looks like {likeness}" if likeness else ""
        raise FormatError(f"{path}: this is no GGUF file{looks}", path=str(path), offset=0)
    if len(start) < 8:
        raise FormatError(
            f"{path}: the file ends inside the header, at byte {len(start)}",
            path=str(path),
            offset=4,
            remedy=CUT_SHORT,
        )
    version: int = U32.unpack_from(start, 4)[0]
    if version not in _VERSIONS:
        trouble, remedy = _explain_version(version)
        raise FormatError(f"{path}: {trouble}", path=str(path), offset=4, remedy=remedy)
    return version


def _explain_version(version: int) -> tuple[str, str | None]:
    if version and version & 0xFFFF == 0:
        return "this GGUF file is big-endian", "convert it with gguf_convert_endian of gguf-py"
    known = " and ".join(map(str, _VERSIONS))
    if version == 1:
        return f"this is GGUF version 1; versions {known} are read", "convert the model anew"
    return f"this is GGUF version {version}; versions {known} are read", None


def _read_entries(cursor: Cursor, count: int) -> dict[str, Entry]:
    if count > _MAX_ENTRIES or count * _MIN_ENTRY > cursor.remaining:
        raise cursor.error(f"the file cannot hold {count} metadata entries", 16)
    entries: dict[str, Entry] = {}
    for _ in range(count):
        cursor.context = "a metadata key"
        start = cursor.position
        key = cursor.text(MAX_TEXT)
        if key in entries:
            raise cursor.error(f"metadata key {key!r} occurs twice", start)
        cursor.context = f"the value of metadata key {key!r}"
        value_type = cursor.value_type()
        begin = cursor.position
        cursor.strings = None
        cursor.skip_value(value_type)
        entries[key] = Entry(value_type, begin, cursor.position, cursor.strings)
    return entries


def _read_alignment(cursor: Cursor, data: memoryview, entries: dict[str, Entry]) -> int:
    entry = entries.get(ALIGNMENT_KEY)
    if entry is None:
        return DEFAULT_ALIGNMENT
    if entry.type.name != "u32":
        raise cursor.error(f"{ALIGNMENT_KEY} is {entry.type}, not u32", entry.start)
    alignment: int = U32.unpack_from(data, entry.start)[0]
    if alignment.bit_count() != 1:
        raise cursor.error(f"{ALIGNMENT_KEY} is {alignment}, no power of two", entry.start)
    return alignment


def _read_records(cursor: Cursor, count: int) -> list[_Record]:
    if count > _MAX_TENSORS or count * _MIN_TENSOR > cursor.remaining:
        raise cursor.error(f"the file cannot hold {count} tensors", 8)
    seen: set[str] = set()
    records = []
    for _ in range(count):
        record = _read_record(cursor)
        if record.name in seen:
            raise cursor.error(f"tensor {record.name!r} occurs twice", record.position)
        seen.add(record.name)
        records.append(record)
    return records


def _read_record(cursor: Cursor) -> _Record:
    position = cursor.position
    cursor.context = "a tensor's name"
    name = cursor.text(_MAX_TENSOR_NAME)
    cursor.context = f"the description of tensor {name!r}"
    dimensions = cursor.u32()
    if dimensions > MAX_DIMENSIONS:
        raise cursor.error(
            f"tensor {name!r} has {dimensions} dimensions; at most {MAX_DIMENSIONS} are allowed",
            position,
        )
    shape = cursor.u64s(dimensions)[::-1]
    if 0 in shape or math.prod(shape) > _MAX_ELEMENTS:
        raise cursor.error(f"tensor {name!r} has impossible shape {list(shape)}", position)
    number = cursor.u32()
    offset = cursor.u64()
    try:
        tensor_type = TensorType(dtypes.from_gguf(number), shape)
    except DTypeError as exc:
        raise cursor.error(f"tensor {name!r} cannot be read: {exc}", position) from exc
    return _Record(name, tensor_type, offset, position)


def _locate(
    cursor: Cursor, record: _Record, alignment: int, data_offset: int, size: int, path: Path
) -> TensorInfo:
    if record.offset % alignment:
        raise cursor.error(
            f"tensor {record.name!r} lies at data offset {record.offset}, "
            f"no multiple of the alignment {alignment}",
            record.position,
        )
    offset = data_offset + record.offset
    nbytes = record.type.nbytes
    if offset + nbytes > size:
        raise cursor.error(
            f"tensor {record.name!r} ends at byte {offset + nbytes}, "
            f"but the file has only {size} bytes",
            record.position,
            CUT_SHORT,
        )
    return TensorInfo(record.name, record.type, offset, nbytes, path)
