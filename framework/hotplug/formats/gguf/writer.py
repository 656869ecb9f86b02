"""Writing a model file."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hotplug.errors import UsageError
from hotplug.formats.gguf.encode import encode, encode_text
from hotplug.formats.gguf.metadata import Metadata
from hotplug.formats.gguf.values import (
    ALIGNMENT_KEY,
    DEFAULT_ALIGNMENT,
    MAGIC,
    MAX_DIMENSIONS,
    MAX_TEXT,
    U32,
    U64,
    Typed,
)
from hotplug.tensor import HostTensor, TensorType

__all__ = ["write"]

_VERSION = 3
_MIN_ALIGNMENT = 8  # the specification wants a multiple of 8
_MAX_NAME = 63  # bytes of a tensor's name that ggml can hold


def write(
    path: str | os.PathLike[str],
    metadata: Mapping[str, Any],
    tensors: Mapping[str, HostTensor],
    *,
    alignment: int | None = None,
) -> None:
    """Write a version 3 file: complete, or not at all.

    The bytes go to a temporary file beside `path`, which then takes its place in one step. Tensors
    are written one after the other; none is copied in memory. The `metadata` of an open file is
    copied byte for byte; for plain values see `hotplug.formats.gguf.encode`.

    Args:
        path: where to write; a file that is there is replaced.
        metadata: key -> value.
        tensors: name -> tensor, read twice: for types, then for data.
        alignment: of tensor data, in bytes: a power of two of at least 8. If it is None, that of
            the key general.alignment or 32.

    Raises:
        UsageError: something that the format cannot hold, or the file cannot be written.
    """
    path = Path(path)
    alignment = _settle_alignment(metadata, alignment)
    head = _encode_head(_with_alignment(metadata, alignment), tensors, alignment)
    with _replacing(path) as file:
        _write_padded(file, head, alignment)
        for tensor in tensors.values():
            _write_padded(file, np.ascontiguousarray(tensor.data).data, alignment)


def _settle_alignment(metadata: Mapping[str, Any], alignment: int | None) -> int:
    stated = metadata.get(ALIGNMENT_KEY, alignment)
    stated = stated.value if isinstance(stated, Typed) else stated
    chosen = DEFAULT_ALIGNMENT if stated is None else stated
    if alignment not in (None, chosen):
        raise UsageError(f"alignment is {alignment}, but {ALIGNMENT_KEY} is {chosen}")
    if not isinstance(chosen, int) or chosen < _MIN_ALIGNMENT or chosen.bit_count() != 1:
        raise UsageError(f"alignment {chosen!r} is no power of two of at least {_MIN_ALIGNMENT}")
    return chosen


def _with_alignment(metadata: Mapping[str, Any], alignment: int) -> dict[str, Any]:
    """The values to encode; the alignment is said wherever it is not the default."""
    if isinstance(metadata, Metadata):
        values: dict[str, Any] = {key: metadata.encoded(key) for key in metadata}
    else:
        values = dict(metadata)
    if ALIGNMENT_KEY in values or alignment != DEFAULT_ALIGNMENT:
        values[ALIGNMENT_KEY] = Typed(alignment, "u32")
    return values


def _encode_head(
    metadata: Mapping[str, Any], tensors: Mapping[str, HostTensor], alignment: int
) -> bytes:
    parts = [MAGIC, U32.pack(_VERSION), U64.pack(len(tensors)), U64.pack(len(metadata))]
    for key, value in metadata.items():
        parts.append(_encode_name("metadata key", key, MAX_TEXT))
        parts.append(encode(key, value))
    offset = 0
    for name, tensor in tensors.items():
        parts.append(_encode_name("tensor name", name, _MAX_NAME))
        parts.append(_encode_type(name, tensor.type))
        parts.append(U64.pack(offset))
        offset += _padded(tensor.nbytes, alignment)
    return b"".join(parts)


def _encode_name(what: str, name: str, limit: int) -> bytes:
    encoded = encode_text(name)
    if not 0 < len(encoded) - U64.size <= limit:
        raise UsageError(f"{what} {name[:80]!r} does not have 1 to {limit} bytes")
    return encoded


def _encode_type(name: str, tensor_type: TensorType) -> bytes:
    number = tensor_type.dtype.gguf_id
    if number is None:
        raise UsageError(f"tensor {name}: the format has no {tensor_type.dtype}")
    shape = tensor_type.shape
    if len(shape) > MAX_DIMENSIONS or 0 in shape:
        raise UsageError(
            f"tensor {name}: shape {list(shape)} has a length of 0 or over {MAX_DIMENSIONS} axes"
        )
    innermost_first = b"".join(map(U64.pack, reversed(shape)))
    return U32.pack(len(shape)) + innermost_first + U32.pack(number)


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _write_padded(file: BinaryIO, data: bytes | memoryview, alignment: int) -> None:
    file.write(data)
    file.write(bytes(_padded(len(data), alignment) - len(data)))


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` at the end, or vanishes if anything fails."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as exc:
        raise UsageError(f"{path} cannot be written: {exc.strerror or exc}") from exc
    finally:
        temporary.unlink(missing_ok=True)
