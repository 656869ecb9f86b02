"""A tensor somewhere in host memory, as the NumPy kernels see it.

NumPy holds neither bf16 nor blocks, so a `TensorView` pairs the stored elements with the type that
says what they mean:

    plain dtypes    an array of the same dtype and shape
    bf16            uint16, the same shape
    quantised       uint8 (..., row bytes): the last axis holds the bytes of a row's blocks
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hotplug import quants
from hotplug.dtypes import DType
from hotplug.layout import Layout
from hotplug.quants.plain import bf16_to_float32, float32_to_bf16
from hotplug.tensor import TensorType

__all__ = ["AnyArray", "TensorView", "constant", "convert", "storage_dtype", "storage_shape"]

AnyArray: TypeAlias = npt.NDArray[Any]

_BF16_STORAGE = "<u2"
_BYTES = "|u1"


def storage_dtype(dtype: DType) -> np.dtype[Any]:
    """What NumPy holds the elements of a dtype as."""
    if dtype.quantised:
        return np.dtype(_BYTES)
    return np.dtype(dtype.numpy or _BF16_STORAGE)


def storage_shape(type: TensorType) -> tuple[int, ...]:  # noqa: A002
    """Shape of the stored array: that of the tensor, with bytes along a quantised last axis."""
    if type.dtype.quantised:
        return (*type.shape[:-1], type.row_bytes)
    return type.shape


@dataclass(frozen=True, slots=True, eq=False)
class TensorView:
    """Elements and their type.

    Attributes:
        type: dtype and shape.
        array: the stored elements, see the module's text; of any strides, but the bytes of one row
            of blocks are consecutive.
    """

    type: TensorType
    array: AnyArray

    @classmethod
    def empty(cls, type: TensorType) -> TensorView:  # noqa: A002
        """New, contiguous, uninitialised."""
        return cls(type, np.empty(storage_shape(type), storage_dtype(type.dtype)))

    @classmethod
    def zeros(cls, type: TensorType) -> TensorView:  # noqa: A002
        """New, contiguous, all bytes zero."""
        return cls(type, np.zeros(storage_shape(type), storage_dtype(type.dtype)))

    @classmethod
    def from_array(cls, values: AnyArray, dtype: DType) -> TensorView:
        """Values converted to a dtype, in new memory unless nothing has to be done."""
        return cls(TensorType(dtype, values.shape), convert(values, dtype))

    @classmethod
    def over(
        cls, data: npt.NDArray[np.uint8], dtype: DType, layout: Layout, start: int = 0
    ) -> TensorView:
        """A layout over flat bytes.

        Args:
            data: the storage; a read-only one makes a read-only view.
            dtype: what the bytes hold.
            layout: where the elements lie, counted from `start`.
            start: byte at which the storage of the tensor begins.
        """
        kind = TensorType(dtype, layout.shape)
        if kind.size == 0:
            return cls.empty(kind)
        array: AnyArray = np.ndarray(
            storage_shape(kind),
            storage_dtype(dtype),
            buffer=data,
            offset=start + dtype.nbytes(layout.offset),
            strides=_byte_strides(dtype, layout),
        )
        return cls(kind, array)

    @property
    def dtype(self) -> DType:
        """Dtype of the elements."""
        return self.type.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Row-major shape, in elements."""
        return self.type.shape

    def numbers(self) -> AnyArray:
        """The elements to compute with: float32 for f16, bf16 and blocks, others as stored."""
        if self.dtype.quantised:
            return quants.decode(self.array.reshape(-1), self.dtype, self.shape)
        if self.dtype.name == "bf16":
            return bf16_to_float32(self.array)
        if self.dtype.name == "f16":
            return self.array.astype(np.float32)
        return self.array

    def float32(self) -> npt.NDArray[np.float32]:
        """The elements as float32; over the same memory if they are stored so."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self.numbers().astype(np.float32, copy=False)

    def store(self, values: AnyArray) -> None:
        """Write values of the same or a broadcastable shape, converted to this dtype."""
        if values.dtype == self.array.dtype and self.dtype.numpy is not None:
            np.copyto(self.array, values)
        elif self.dtype.quantised:
            np.copyto(self.array, convert(np.broadcast_to(values, self.shape), self.dtype))
        else:
            np.copyto(self.array, convert(values, self.dtype))

    def part(self, key: int | slice | tuple[int | slice, ...]) -> TensorView:
        """Some of the leading axes' indices; the last axis of a quantised tensor stays whole."""
        array = self.array[key]
        if self.dtype.quantised:
            shape = (*array.shape[:-1], self.shape[-1])
            return TensorView(TensorType(self.dtype, shape), array)
        return TensorView(TensorType(self.dtype, array.shape), array)

    def pieces(self, axis: int, limit: int) -> Iterator[slice]:
        """Ranges along an axis whose share of the tensor is at most `limit` elements, at least one.

        Args:
            axis: the axis to cut, counted from the front.
            limit: elements; what keeps temporaries small.
        """
        length = self.shape[axis]
        share = max(1, self.type.size // max(1, length))
        count = max(1, limit // share)
        return (slice(at, min(at + count, length)) for at in range(0, length, count))


def convert(values: AnyArray, dtype: DType) -> AnyArray:
    """Numbers as the stored elements of a dtype, by the rules of `hotplug.quants.plain`.

    The two conversions that every half-precision kernel ends with go straight; all others, which
    have corners, go through `hotplug.quants`.
    """
    stored = storage_dtype(dtype)
    if dtype.numpy is not None and values.dtype == stored:
        return values
    if dtype.name == "bf16" and values.dtype == np.float32:
        with np.errstate(over="ignore"):
            return float32_to_bf16(np.ascontiguousarray(values)).reshape(values.shape)
    if dtype.name in {"f16", "f32", "f64"}:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            return values.astype(stored)
    kind = TensorType(dtype, values.shape)
    return quants.encode(values, dtype).view(stored).reshape(storage_shape(kind))


def constant(value: float, dtype: DType) -> AnyArray:
    """A parameter as one stored element, a 0-d array; integers of 64 bits keep all their digits."""
    exact = isinstance(value, int) and -(2**63) <= value < 2**63
    return convert(np.array(value, np.int64 if exact else np.float64), dtype)


def _byte_strides(dtype: DType, layout: Layout) -> tuple[int, ...]:
    if not dtype.quantised:
        return tuple(stride * dtype.block_bytes for stride in layout.strides)
    lead = tuple(s * dtype.block_bytes // dtype.block for s in layout.strides[:-1])
    return (*lead, 1)
