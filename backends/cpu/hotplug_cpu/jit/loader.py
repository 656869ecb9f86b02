"""Kernel names -> addresses of machine code.

What the cache holds is loaded by llvmlite alone, in milliseconds. What it lacks is compiled first,
which imports Numba; where there is much of that, other processes do it side by side, and this one
never holds the memory that a compiler takes.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from hotplug import progress
from hotplug.errors import KernelCompileError
from hotplug_cpu.catalog import KernelSpec, kernel, symbol
from hotplug_cpu.jit.cache import ObjectCache
from hotplug_cpu.jit.target import host_target, llvmlite_missing

__all__ = ["load", "missing", "require_compiler"]

_log = logging.getLogger(__name__)
_ADDRESSES: dict[str, int] = {}
_ENGINES: list[Any] = []  # they own the code; letting go of one would unmap it
_lock = threading.RLock()
_SHARED_FROM = 4  # kernels; importing Numba costs about as much as compiling one
_MOST_PROCESSES = 4
_REMEDY = 'pip install "numba>=0.61" "llvmlite>=0.44"'


def load(names: Iterable[str]) -> dict[str, int]:
    """Addresses of kernels by name; those not yet compiled are compiled and kept.

    Raises:
        KernelCompileError: llvmlite is missing; or a kernel is not in the cache and Numba is
            missing or refused it. `remedy` says what to install.
        GraphError: there is no kernel of a name.
    """
    specs = {name: kernel(name) for name in names}
    with _lock:
        wanted = [spec for name, spec in specs.items() if name not in _ADDRESSES]
        if wanted:
            require_loader()
            _ADDRESSES.update(_link(_objects(wanted)))
        return {name: _ADDRESSES[name] for name in specs}


def _renew_lock() -> None:
    """In a forked child: another thread may have held it, and stayed in the parent."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def missing(names: Iterable[str]) -> list[str]:
    """The kernels that `load` would have to compile."""
    require_loader()
    cache = ObjectCache.open()
    return [name for name in names if name not in _ADDRESSES and not cache.get(kernel(name))]


def require_loader() -> None:
    """Raise KernelCompileError where llvmlite cannot be used."""
    reason = llvmlite_missing()
    if reason is not None:
        raise KernelCompileError(f"llvmlite cannot be used: {reason}", remedy=_REMEDY)


def require_compiler() -> None:
    """Raise KernelCompileError where Numba is missing. Does not import it."""
    require_loader()
    if importlib.util.find_spec("numba") is None:
        raise KernelCompileError("Numba is missing, which compiles the CPU kernels", remedy=_REMEDY)


def _objects(specs: Sequence[KernelSpec]) -> dict[KernelSpec, bytes]:
    cache = ObjectCache.open()
    found = {spec: cache.get(spec) for spec in specs}
    absent = [spec for spec, code in found.items() if code is None]
    if absent:
        require_compiler()
        found.update(_compile(absent, cache))
    return {spec: code for spec, code in found.items() if code is not None}


def _compile(specs: Sequence[KernelSpec], cache: ObjectCache) -> dict[KernelSpec, bytes]:
    """Compile in other processes where there is much of it, else here; all end up in the cache."""
    with progress.task("compile kernels", len(specs)) as advance:
        count = _Counter(advance)
        with contextlib.ExitStack() as processes:
            for share in _shares(specs, cache):
                processes.enter_context(_process(share, count))
        # What other processes could not do, whatever the reason, fails or succeeds here.
        return {spec: cache.get(spec) or _compile_one(spec, cache, count) for spec in specs}


def _compile_one(spec: KernelSpec, cache: ObjectCache, count: _Counter) -> bytes:
    from hotplug_cpu.jit.build import compile_kernel  # noqa: PLC0415 - imports Numba

    code = compile_kernel(spec)
    cache.put(spec, code)
    count.add()
    return code


def _shares(specs: Sequence[KernelSpec], cache: ObjectCache) -> list[Sequence[KernelSpec]]:
    """What each of some other processes is to compile; nothing where they would be of no use.

    A frozen program's executable is no Python: started, it would be the program once more.
    """
    frozen = getattr(sys, "frozen", False) or not sys.executable
    if cache.directory is None or frozen or len(specs) < _SHARED_FROM:
        return []
    count = min(os.cpu_count() or 1, _MOST_PROCESSES, len(specs) // 2)
    return [specs[number::count] for number in range(count)]


@contextlib.contextmanager
def _process(specs: Sequence[KernelSpec], count: _Counter) -> Iterator[None]:
    """Have specs compiled into the cache meanwhile; a failure of it is only logged."""
    command = [sys.executable, "-m", "hotplug_cpu.jit.build", *(spec.name for spec in specs)]
    # The environment may have changed since this process settled for an instruction set.
    environment = {**os.environ, "HOTPLUG_CPU_ISA": host_target().isa}
    try:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        _log.info("no process to compile kernels: %s", error)
        yield
        return
    reader = threading.Thread(target=_count_lines, args=(process, count), daemon=True)
    reader.start()
    try:
        yield
    except BaseException:
        process.kill()
        raise
    finally:
        reader.join()
        status = process.wait()
        if status:
            _log.info("a process that compiles kernels ended with status %d", status)


def _count_lines(process: subprocess.Popen[bytes], count: _Counter) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for _ in lines:
            count.add()


class _Counter:
    """Counts up from two threads and tells of it."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell
        self._done = 0
        self._lock = threading.Lock()

    def add(self) -> None:
        with self._lock:
            self._done += 1
            self._tell(self._done)


def _link(objects: dict[KernelSpec, bytes]) -> dict[str, int]:
    """Make object files executable, all in one engine."""
    import llvmlite.binding as llvm  # noqa: PLC0415 - 35 ms

    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
    for code in objects.values():
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _ENGINES.append(engine)
    return {spec.name: int(engine.get_function_address(symbol(spec))) for spec in objects}


@functools.cache
def _initialised() -> None:
    import llvmlite.binding as llvm  # noqa: PLC0415 - 35 ms

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


def _machine() -> Any:
    """A new machine each time: the engine takes it over."""
    import llvmlite.binding as llvm  # noqa: PLC0415 - 35 ms

    _initialised()
    target = host_target()
    family = llvm.Target.from_triple(target.triple)
    return family.create_target_machine(cpu=target.cpu, features=target.features, jit=True)
