"""Decode, encode and cast whole tensors of any dtype in the table.

Tensors are worked through in pieces of `_PIECE` elements, so that temporaries stay small, and in
the cache, however large the tensor is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from hotplug.dtypes import DType
from hotplug.errors import DTypeError, UnsupportedDTypeError
from hotplug.quants import codebook, fp4, kquants, legacy, lowbit, nonlinear, plain, ternary
from hotplug.quants.blocks import BlockCodec, Bytes, Floats, Records

__all__ = ["can_encode", "cast", "decode", "encode"]

_CODECS: dict[str, BlockCodec] = {
    **legacy.CODECS,
    **kquants.CODECS,
    **nonlinear.CODECS,
    **codebook.CODECS,
    **ternary.CODECS,
    **lowbit.CODECS,
    **fp4.CODECS,
}

# A multiple of every block length.
_PIECE = 1 << 18


def can_encode(dtype: DType) -> bool:
    """Whether `encode` writes this dtype."""
    return not dtype.quantised or _encoder(dtype) is not None


def decode(data: Bytes, dtype: DType, shape: tuple[int, ...]) -> Floats:
    """The elements of a contiguous tensor as float32, rounded once where float32 is too narrow.

    Args:
        data: the tensor's bytes, of any alignment; it may be read-only.
        dtype: what the bytes hold.
        shape: row-major; a quantised dtype is packed along the last axis.

    Returns:
        A new array of `shape`.

    Raises:
        DTypeError: `data` or the last axis does not fit the dtype.
    """
    flat = _checked_bytes(data, dtype, shape)
    values = np.empty(math.prod(shape), np.float32)
    with np.errstate(all="ignore"):
        for piece in _pieces(values.size):
            values[piece] = _load(flat[_byte_range(piece, dtype)], dtype)
    return values.reshape(shape)


def encode(values: npt.NDArray[Any], dtype: DType) -> Bytes:
    """The bytes that hold `values`, packed along their last axis.

    Plain dtypes follow the rules of `hotplug.quants.plain`. Quantised ones give the bytes that the
    reference encoder of ggml gives; where one differs, its module says so.

    Args:
        values: floats, integers or bools of any strides; none may be NaN or infinite if `dtype` is
            quantised.
        dtype: what the bytes are to hold.

    Returns:
        A new flat array.

    Raises:
        DTypeError: the elements are no numbers, the last axis is no whole number of blocks, or a
            quantised dtype cannot hold a value.
        UnsupportedDTypeError: hotplug cannot write this dtype.
    """
    if values.dtype.kind not in "fiub":
        raise DTypeError(f"{values.dtype} elements are no real numbers", dtype=str(values.dtype))
    _require_encoder(dtype)
    _check_shape(dtype, values.shape)
    flat = values.reshape(-1)
    data = np.empty(dtype.nbytes(flat.size), np.uint8)
    with np.errstate(all="ignore"):
        for piece in _pieces(flat.size):
            data[_byte_range(piece, dtype)] = _store(flat[piece], dtype)
    return data


def cast(data: Bytes, source: DType, target: DType, shape: tuple[int, ...]) -> Bytes:
    """A contiguous tensor's bytes in another dtype.

    Plain numbers are converted in one step, never by way of float32; quantised ones are decoded to
    float32. The same dtype gives a copy.

    Raises:
        DTypeError: as for `decode` and `encode`.
        UnsupportedDTypeError: hotplug cannot write `target`.
    """
    flat = _checked_bytes(data, source, shape)
    if source == target:
        return flat.copy()
    _require_encoder(target)
    _check_shape(target, shape)
    size = math.prod(shape)
    result = np.empty(target.nbytes(size), np.uint8)
    with np.errstate(all="ignore"):
        for piece in _pieces(size):
            values = _load(flat[_byte_range(piece, source)], source)
            result[_byte_range(piece, target)] = _store(values, target)
    return result


def _encoder(dtype: DType) -> Callable[[Floats], Records] | None:
    codec = _CODECS.get(dtype.name)
    return codec.encode if codec else None


def _require_encoder(dtype: DType) -> None:
    if not can_encode(dtype):
        raise UnsupportedDTypeError(
            f"hotplug cannot encode {dtype}",
            dtype=dtype.name,
            remedy="encode to q8_0, q5_1 or iq4_xs, or quantise the file with llama.cpp",
        )


def _checked_bytes(data: Bytes, dtype: DType, shape: tuple[int, ...]) -> Bytes:
    _check_shape(dtype, shape)
    needed = dtype.nbytes(math.prod(shape))
    if data.dtype != np.uint8 or data.size != needed:
        raise DTypeError(
            f"{dtype}{list(shape)} is {needed} bytes of uint8, given {data.size} of {data.dtype}",
            dtype=dtype.name,
        )
    return np.ascontiguousarray(data).reshape(-1)


def _check_shape(dtype: DType, shape: tuple[int, ...]) -> None:
    if dtype.quantised and (not shape or shape[-1] % dtype.block):
        raise DTypeError(
            f"{dtype} packs {dtype.block} elements a block along the last axis, "
            f"which shape {shape} does not divide into",
            dtype=dtype.name,
        )


def _pieces(size: int) -> Iterator[slice]:
    return (slice(start, min(start + _PIECE, size)) for start in range(0, size, _PIECE))


def _byte_range(piece: slice, dtype: DType) -> slice:
    return slice(dtype.nbytes(piece.start), dtype.nbytes(piece.stop))


def _load(data: Bytes, dtype: DType) -> npt.NDArray[Any]:
    """Flat numbers: float32 from a quantised dtype, else what holds them exactly."""
    if not dtype.quantised:
        return plain.load(data, dtype)
    codec = _CODECS[dtype.name]
    return codec.decode(data.view(codec.layout)).reshape(-1)


def _store(values: npt.NDArray[Any], dtype: DType) -> Bytes:
    """Flat bytes of flat numbers."""
    if not dtype.quantised:
        return plain.store(values, dtype)
    blocks = values.astype(np.float32, copy=False).reshape(-1, dtype.block)
    if not np.isfinite(blocks).all():
        raise DTypeError(f"{dtype} holds no NaN and no infinity", dtype=dtype.name)
    encoder = _encoder(dtype)
    assert encoder is not None, "_require_encoder comes first"
    records = encoder(blocks)
    if not _scales_are_finite(records):
        largest = np.abs(blocks).max()
        raise DTypeError(
            f"values of magnitude {largest:.3g} are too large for the 16-bit scales of {dtype}",
            dtype=dtype.name,
            remedy="encode to bf16 or f32",
        )
    data: Bytes = records.view(np.uint8)
    return data


def _scales_are_finite(records: Records) -> bool:
    fields = (records[name] for name in records.dtype.names or ())
    return all(np.isfinite(field).all() for field in fields if field.dtype.kind == "f")
