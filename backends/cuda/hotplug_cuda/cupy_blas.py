"""cuBLAS over CuPy, where it is installed: CuPy's wheels do not bring it along."""

from __future__ import annotations

import ctypes
import logging
import os
import weakref
from typing import Any

from cupy.cuda import runtime

from hotplug_cuda.runtime import OUT_OF_MEMORY, Matrices

try:
    from cupy_backends.cuda.libs import cublas
except ImportError as error:
    cublas = None
    _missing = str(error).strip().partition("\n")[0]

__all__ = ["ERRORS", "CupyBlas", "products"]

ERRORS: tuple[type[Exception], ...] = (cublas.CUBLASError,) if cublas else ()

_log = logging.getLogger(__name__)

_TYPES = {"f32": 0, "f16": 2, "bf16": 14}  # cudaDataType
_F32 = _TYPES["f32"]
_AMPERE, _HOPPER = 8, 9  # compute capabilities' first number
_ALLOCATION_FAILED = 3  # cublasStatus_t
_one, _zero = ctypes.c_float(1), ctypes.c_float(0)


def products(major: int) -> frozenset[str]:
    """Dtypes that cuBLAS multiplies with the units of a device; none if it is not there.

    Args:
        major: first number of the device's compute capability.
    """
    if cublas is None:
        _log.info("products of many rows are hotplug's own, since cuBLAS is missing: %s", _missing)
        return frozenset()
    return frozenset({"f32", "f16", *(["bf16"] if major >= _AMPERE else [])})


class CupyBlas:
    """A handle of cuBLAS with working memory of its own.

    Left to itself cuBLAS would allocate some inside of every graph that is captured.

    Args:
        stream: address of a stream.
        major: first number of the device's compute capability.
    """

    def __init__(self, stream: int, major: int) -> None:
        try:
            self._handle = cublas.create()
        except cublas.CUBLASError as error:
            if error.status != _ALLOCATION_FAILED:
                raise
            raise runtime.CUDARuntimeError(OUT_OF_MEMORY) from error
        weakref.finalize(self, cublas.destroy, self._handle).atexit = False
        cublas.setStream(self._handle, stream)
        nbytes = (32 if major >= _HOPPER else 8) << 20  # what NVIDIA advises
        set_workspace = _library(cublas.getVersion(self._handle)).cublasSetWorkspace_v2
        self._workspace = runtime.malloc(nbytes)
        set_workspace(
            ctypes.c_void_p(self._handle), ctypes.c_void_p(self._workspace), ctypes.c_size_t(nbytes)
        )

    def gemm(
        self,
        dtype: str,
        sizes: tuple[int, int, int],
        a: Matrices,
        b: Matrices,
        c: Matrices,
        batch: int,
    ) -> None:
        """cublasGemmStridedBatchedEx; f32 is not rounded to TF32, which has to be asked for."""
        kind = _TYPES[dtype]
        cublas.gemmStridedBatchedEx(
            self._handle, int(a.transposed), int(b.transposed), *sizes, ctypes.addressof(_one),
            a.address, kind, a.leading, a.stride, b.address, kind, b.leading, b.stride,
            ctypes.addressof(_zero), c.address, _F32, c.leading, c.stride, batch,
            cublas.CUBLAS_COMPUTE_32F, cublas.CUBLAS_GEMM_DEFAULT,
        )  # fmt: skip


def _library(version: int) -> Any:
    """The library itself, which CuPy has loaded, for the one call that CuPy lacks."""
    major = version // 10000
    return ctypes.CDLL(f"cublas64_{major}.dll" if os.name == "nt" else f"libcublas.so.{major}")
