"""CuPy takes the calls as they are made. Without a GPU each ends in an error, but one of CUDA's."""

from __future__ import annotations

import contextlib
import types

import pytest

pytest.importorskip("cupy", reason="CuPy is not installed")

from hotplug_cuda.cupy_runtime import CupyRuntime
from hotplug_cuda.runtime import Direction

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
}


@pytest.fixture(params=[True, False], ids=["pool", "no pool"])
def runtime(request):
    runtime = CupyRuntime.__new__(CupyRuntime)
    runtime._index = 0
    runtime._context = 0
    runtime._pooled = request.param
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
