"""CuPy takes the calls as they are made. Without a GPU each ends in an error, but one of CUDA's."""

from __future__ import annotations

import contextlib
import types

import pytest

pytest.importorskip("cupy", reason="CuPy is not installed")

from hotplug_cuda import cupy_blas
from hotplug_cuda.cupy_runtime import CupyRuntime
from hotplug_cuda.runtime import Direction, Matrices

STREAM = types.SimpleNamespace(ptr=0)
FUNCTION = types.SimpleNamespace(ptr=0)

CALLS = {
    "memory": (),
    "allocate": (16, STREAM),
    "free": (0, STREAM),
    "pinned": (64,),
    "copy": (0, 0, 4, Direction.TO_HOST, STREAM),
    "copy_peer": (0, 0, 1, 4, STREAM),
    "fill": (0, 0, 4, STREAM),
    "function": (b"no image", "kernel"),
    "launch": (FUNCTION, (1, 1), 32, 0, STREAM),
    "event": (),
    "elapsed": (STREAM, STREAM),
    "reach": (1,),
    "blas": (STREAM,),
}


@pytest.fixture(params=[True, False], ids=["pool", "no pool"])
def runtime(request):
    runtime = CupyRuntime.__new__(CupyRuntime)
    runtime._index = 0
    runtime._context = 0
    runtime._pooled = request.param
    runtime._major = 9
    return runtime


@pytest.mark.parametrize("name", CALLS)
def test_arguments_are_what_cupy_takes(runtime, name):
    # CuPy's RuntimeError is also what says that libcuda is missing; a wrong call is a TypeError.
    with contextlib.suppress(RuntimeError):
        getattr(runtime, name)(*CALLS[name])


def test_a_context_is_asked_for(runtime):
    with contextlib.suppress(RuntimeError), runtime.current():
        pass
    with contextlib.suppress(RuntimeError):
        CupyRuntime(0)


def test_streams_and_events_have_the_methods_that_are_called():
    import cupy

    for name in ("synchronize", "wait_event", "begin_capture", "end_capture"):
        assert callable(getattr(cupy.cuda.Stream, name))
    for name in ("record", "synchronize"):
        assert callable(getattr(cupy.cuda.Event, name))
    assert callable(cupy.cuda.Graph.launch)


def test_errors_carry_cuda_s_number():
    assert CupyRuntime.errors[0](700).status == 700


needs_cublas = pytest.mark.skipif(not cupy_blas.ERRORS, reason="cuBLAS is not installed")


@needs_cublas
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_arguments_of_a_product_are_what_cupy_takes(dtype):
    blas = cupy_blas.CupyBlas.__new__(cupy_blas.CupyBlas)
    blas._handle = 0
    matrices = Matrices(0, 4, 16, transposed=True)
    with contextlib.suppress(RuntimeError):
        blas.gemm(dtype, (4, 4, 4), matrices, matrices, matrices, 2)


@needs_cublas
def test_working_memory_is_given_by_the_library_itself():
    library = cupy_blas._library(
        12_08_00 if cupy_blas.runtime.runtimeGetVersion() < 13000 else 13_00_00
    )
    assert library.cublasSetWorkspace_v2(None, None, 0) == 1  # CUBLAS_STATUS_NOT_INITIALIZED


@needs_cublas
def test_what_is_multiplied_depends_on_the_device():
    assert cupy_blas.products(7) == {"f32", "f16"}
    assert cupy_blas.products(9) == {"f32", "f16", "bf16"}


def test_without_cublas_there_are_no_products(monkeypatch):
    monkeypatch.setattr(cupy_blas, "cublas", None)
    monkeypatch.setattr(cupy_blas, "_missing", "no library", raising=False)
    assert cupy_blas.products(9) == frozenset()
