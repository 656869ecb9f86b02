"""cuBLAS's products by NumPy, for simulated devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from hotplug import dtypes
from hotplug.dtypes import DType
from hotplug.quants.plain import load
from hotplug.testing.ptx import Machine
from hotplug_cuda.runtime import Matrices

__all__ = ["SimulatedBlas", "SimulatedBlasError"]

_INVALID_VALUE = 7
_F32 = dtypes.get("f32")


class SimulatedBlasError(RuntimeError):
    """What cuBLAS would report.

    Attributes:
        status: cublasStatus_t.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class SimulatedBlas:
    """cuBLAS on one stream.

    Args:
        machine: whose memory it is.
        queue: adds work to the stream.
    """

    def __init__(self, machine: Machine, queue: Callable[[Callable[[], None]], None]) -> None:
        self._machine = machine
        self._queue = queue

    def gemm(
        self,
        dtype: str,
        sizes: tuple[int, int, int],
        a: Matrices,
        b: Matrices,
        c: Matrices,
        batch: int,
    ) -> None:
        """Check arguments, as cuBLAS does at once, and queue the products."""
        m, n, k = sizes
        shapes = ((k, m) if a.transposed else (m, k), (n, k) if b.transposed else (k, n), (m, n))
        for matrices, (rows, _) in zip((a, b, c), shapes, strict=True):
            if matrices.leading < max(1, rows) or min(*sizes, batch) < 0:
                raise SimulatedBlasError(_INVALID_VALUE, f"{matrices} for {rows} rows")
        of = dtypes.get(dtype)

        def multiply() -> None:
            for index in range(batch):
                left = self._fetch(a, index, shapes[0], of)
                right = self._fetch(b, index, shapes[1], of)
                self._put(c, index, left @ right)

        self._queue(multiply)

    def _fetch(
        self, matrices: Matrices, index: int, shape: tuple[int, int], dtype: DType
    ) -> npt.NDArray[np.float32]:
        address = matrices.address + dtype.nbytes(index * matrices.stride)
        data = self._machine.read(address, dtype.nbytes(_span(matrices, shape)))
        values = load(np.frombuffer(data, np.uint8), dtype).astype(np.float32)
        matrix = _columns(values, matrices, shape)
        return matrix.T if matrices.transposed else matrix

    def _put(self, matrices: Matrices, index: int, result: npt.NDArray[np.float32]) -> None:
        """Bytes between columns stay as they are."""
        address = matrices.address + _F32.nbytes(index * matrices.stride)
        data = self._machine.read(address, _F32.nbytes(_span(matrices, result.shape)))
        values = np.frombuffer(data, np.float32).copy()
        _columns(values, matrices, result.shape)[:] = result
        self._machine.write(address, values)


def _span(matrices: Matrices, shape: tuple[int, ...]) -> int:
    """Elements from the first to the last of a matrix."""
    rows, columns = shape
    return (columns - 1) * matrices.leading + rows


def _columns(
    values: npt.NDArray[Any], matrices: Matrices, shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    """A matrix that lies column by column, over the same memory."""
    size = values.itemsize
    return np.lib.stride_tricks.as_strided(values, shape, (size, size * matrices.leading))
