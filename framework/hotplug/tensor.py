"""A tensor's type, and a tensor that lies in host memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hotplug.dtypes import DType
from hotplug.errors import DTypeError, GraphError, UnsupportedDTypeError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["HostTensor", "TensorType"]


@dataclass(frozen=True, slots=True)
class TensorType:
    """Dtype and row-major shape. Quantised dtypes are packed along the last axis."""

    dtype: DType
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if any(n < 0 for n in self.shape):
            raise GraphError(f"shape {self.shape} has a negative length")
        if self.dtype.block > 1 and (not self.shape or self.shape[-1] % self.dtype.block):
            raise DTypeError(
                f"{self.dtype} packs {self.dtype.block} elements a block along the last axis, "
                f"which shape {self.shape} does not divide into",
                dtype=self.dtype.name,
            )

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes when stored contiguously."""
        return self.dtype.nbytes(self.size)

    @property
    def row_bytes(self) -> int:
        """Bytes of one run along the last axis."""
        return self.dtype.nbytes(self.shape[-1]) if self.shape else self.dtype.block_bytes

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


@dataclass(frozen=True, slots=True, eq=False)
class HostTensor:
    """Contiguous tensor bytes in host memory, often a slice of a memory-mapped file.

    Attributes:
        type: dtype and shape.
        data: the bytes, a flat uint8 array that may be read-only. It is never copied here.
    """

    type: TensorType
    data: npt.NDArray[np.uint8]

    def __post_init__(self) -> None:
        if self.data.nbytes != self.type.nbytes:
            raise GraphError(
                f"{self.type} needs {self.type.nbytes} bytes, given {self.data.nbytes}"
            )

    @property
    def dtype(self) -> DType:
        """Dtype of the elements."""
        return self.type.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Row-major shape."""
        return self.type.shape

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.type.nbytes

    def part(self, axis: int, start: int, stop: int) -> HostTensor:
        """A run of an axis; over the same memory where that lies in one piece there.

        Raises:
            GraphError: the tensor has no such run.
            DTypeError: it begins or ends within a block.
        """
        if not (0 <= axis < len(self.shape) and 0 <= start <= stop <= self.shape[axis]):
            raise GraphError(f"{self.type} has no elements {start} to {stop} of axis {axis}")
        shape = (*self.shape[:axis], stop - start, *self.shape[axis + 1 :])
        before, after = math.prod(self.shape[:axis]), math.prod(self.shape[axis + 1 :])
        first, last = self.dtype.nbytes(start * after), self.dtype.nbytes(stop * after)
        runs = self.data.reshape(before, -1)[:, first:last]
        return HostTensor(TensorType(self.dtype, shape), runs.reshape(-1))

    def array(self) -> npt.NDArray[Any]:
        """The elements as a NumPy array over the same memory.

        Raises:
            UnsupportedDTypeError: NumPy has no such element (quantised dtypes, bf16); see
                `hotplug.quants.decode`.
        """
        if self.dtype.numpy is None:
            raise UnsupportedDTypeError(
                f"NumPy holds no {self.dtype}", dtype=self.dtype.name, remedy="decode it to f32"
            )
        return self.data.view(self.dtype.numpy).reshape(self.shape)
