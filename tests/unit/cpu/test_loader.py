"""Kernels by name: from the cache without Numba, compiled where they are missing."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading

import pytest

from hotplug import progress
from hotplug.errors import GraphError, KernelCompileError
from hotplug_cpu.catalog import KernelSpec, kernel
from hotplug_cpu.jit import build, loader
from hotplug_cpu.jit.cache import COMPILER, ObjectCache, kernel_modules


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HOTPLUG_CACHE_DIR", str(tmp_path))
    return ObjectCache.open()


@pytest.fixture
def nothing_loaded(monkeypatch):
    monkeypatch.setattr(loader, "_ADDRESSES", {})


def run_python(text, **environment):
    return subprocess.run(
        [sys.executable, "-c", text],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_a_warm_cache_needs_no_numba():
    loader.load(["add"])
    text = (
        "import sys; from hotplug_cpu.jit import loader; loader.load(['add']);"
        "print('numba' in sys.modules, 'numpy' in sys.modules)"
    )
    assert run_python(text).split() == ["False", "False"]


def test_an_address_stays():
    first = loader.load(["add"])
    assert first["add"] != 0
    assert loader.load(["add", "quantise"])["add"] == first["add"]


def test_an_unknown_kernel_is_refused():
    with pytest.raises(GraphError, match="no compiled kernel is named 'no_such'"):
        loader.load(["no_such"])


def test_what_is_put_is_got(cache):
    spec = kernel("add")
    assert cache.get(spec) is None
    cache.put(spec, b"code")
    assert cache.get(spec) == b"code"
    assert cache.get(kernel("quantise")) is None


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: b"", lambda data: b"x" + data[1:]]
)
def test_a_damaged_file_is_a_miss(cache, damage):
    spec = kernel("add")
    cache.put(spec, b"code")
    path = cache.path(spec)
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get(spec) is None


def test_a_place_that_cannot_be_written_is_no_error(cache, tmp_path):
    (tmp_path / "cpu").write_text("a file where the directory should be")
    cache.put(kernel("add"), b"code")
    assert cache.get(kernel("add")) is None


def test_the_cache_can_be_off(monkeypatch):
    monkeypatch.setenv("HOTPLUG_CACHE", "off")
    off = ObjectCache.open()
    off.put(kernel("add"), b"code")
    assert off.get(kernel("add")) is None


def test_other_processors_and_modules_have_other_files(cache):
    other = ObjectCache(cache.directory, "another machine")
    assert other.path(kernel("add")) != cache.path(kernel("add"))


@pytest.mark.parametrize("module", ["matvec", "gemm", "gemm_wide", "attention_split", "walk"])
def test_a_kernel_is_known_by_all_the_source_that_it_is_made_of(module):
    name = f"hotplug_cpu.kernels.{module}"
    imported = run_python(f"import sys, {name}; print(*sys.modules)").split()
    used = {found for found in imported if found.startswith("hotplug_cpu.kernels.")}
    assert used == kernel_modules(name)
    compiler = {found for found in imported if found.startswith("hotplug_cpu.jit.")}
    assert compiler <= {f"hotplug_cpu.jit.{part}" for part in (*COMPILER, "arm")}


def test_missing_kernels_are_compiled_kept_and_counted(cache, nothing_loaded):
    told = []

    class Listener:
        def start(self, label, total):
            told.append((label, total))

        def advance(self, label, done):
            told.append((label, done))

        def stop(self, label):
            told.append((label, "end"))

    assert loader.missing(["quantise"]) == ["quantise"]
    with progress.listen(Listener()):
        assert loader.load(["quantise"])["quantise"]
    assert told == [("compile kernels", 1), ("compile kernels", 1), ("compile kernels", "end")]
    assert cache.get(kernel("quantise"))
    assert loader.missing(["quantise"]) == []


def test_without_numba_a_cold_cache_says_what_to_install(cache, nothing_loaded, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(KernelCompileError, match="Numba is missing") as caught:
        loader.load(["add"])
    assert "pip install" in str(caught.value.remedy)


def test_without_llvmlite_nothing_is_loaded(nothing_loaded, monkeypatch):
    monkeypatch.setattr(loader, "llvmlite_missing", lambda: "no module named llvmlite")
    with pytest.raises(KernelCompileError, match="llvmlite cannot be used"):
        loader.load(["add"])


@pytest.mark.slow
def test_a_second_process_takes_a_share(cache, nothing_loaded):
    names = ["add", "quantise", "swiglu", "rms_norm"]
    addresses = loader.load(names)
    assert set(addresses) == set(names)
    assert all(cache.get(kernel(name)) for name in names)


REFUSED = """
from hotplug_cpu.jit import simd


@simd.inline
def scaled(thread, threads, x):
    simd.store_f32(x, no_such_function(simd.load_f32(x)))


KERNELS = {"scaled": scaled}
"""


@pytest.fixture
def refused_kernels(tmp_path, monkeypatch):
    (tmp_path / "refused_kernels.py").write_text(REFUSED)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "refused_kernels"
    sys.modules.pop("refused_kernels", None)


def test_a_refused_kernel_tells_the_cause_and_the_whole_log(refused_kernels):
    with pytest.raises(
        KernelCompileError, match=r"scaled: NameError: .*no_such_function"
    ) as caught:
        build.compile_kernel(KernelSpec("scaled", refused_kernels, ("x",)))
    assert "File" in str(caught.value.log)


def test_a_kernel_that_only_the_catalog_has_is_named(refused_kernels):
    with pytest.raises(KernelCompileError, match="KERNELS of refused_kernels lacks shifted"):
        build.compile_kernel(KernelSpec("shifted", refused_kernels, ("x",)))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_while_another_thread_loads_can_load_too(in_a_child):
    held, done = threading.Event(), threading.Event()

    def load_for_long():
        with loader._lock:
            held.set()
            done.wait(30)

    thread = threading.Thread(target=load_for_long)
    thread.start()
    held.wait()
    try:
        assert in_a_child(lambda: loader.load(["ticks"]))
    finally:
        done.set()
        thread.join()
