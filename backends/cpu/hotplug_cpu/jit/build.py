"""Kernel -> object file. Importing this module imports Numba; nothing else of the backend does.

A kernel is a Python function over int64 words. Numba types it and makes LLVM code of it; what is
kept is that code alone, so that a process can load it without Numba.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from typing import Any

import llvmlite.binding as llvm
from numba import cfunc, types
from numba.core import config
from numba.core.codegen import JITCodeLibrary, JITCPUCodegen
from numba.core.compiler_lock import global_compiler_lock
from numba.core.errors import NumbaError
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from hotplug.errors import KernelCompileError
from hotplug_cpu.catalog import FIRST_ARGUMENT, ROW_WORDS, KernelSpec, symbol
from hotplug_cpu.jit.cache import ObjectCache
from hotplug_cpu.jit.target import kernel_target
from hotplug_cpu.jit.vectors import I64

__all__ = ["assembly", "compile_kernel", "main"]

_OPTIMISE = 3
_COUNTER = 8 * (ROW_WORDS - 1)  # bytes from a row's start


def compile_kernel(spec: KernelSpec) -> bytes:
    """Object file with one function, named `symbol(spec)`, for the present target.

    Raises:
        KernelCompileError: Numba or LLVM refused it, it does not take the words that the catalog
            says, or it needs something that only Numba's run time could give.
    """
    return bytes(_machine().emit_object(_module(spec)))


def assembly(spec: KernelSpec) -> str:
    """The same as text, with LLVM's comments on loops and on what it keeps on the stack."""
    return str(_machine().emit_assembly(_module(spec)))


def _module(spec: KernelSpec) -> Any:
    body = _source(spec)
    _check_arguments(spec, body.py_func)
    try:
        with _left_as_code():
            compiled = _entry(spec, body)
    except NumbaError as error:
        raise KernelCompileError(
            f"Numba refused the kernel {spec.name}: {_cause(str(error))}",
            kernel=spec.name,
            source=spec.module,
            log=str(error),
        ) from error
    module = _isolate(compiled, symbol(spec))
    _check_self_contained(spec, module)
    return module


class _Library(JITCodeLibrary):  # type: ignore[misc]
    """Functions that stay LLVM's code: nothing in this process calls them."""

    def get_pointer_to_function(self, _name: str) -> int:
        self._ensure_finalized()
        return 0

    def _finalize_specific(self) -> None:
        pass


class _Codegen(JITCPUCodegen):  # type: ignore[misc]
    _library_class = _Library

    def _add_module(self, module: Any) -> None:
        pass

    def set_env(self, env_name: str, env: Any) -> None:
        pass


@contextlib.contextmanager
def _left_as_code() -> Iterator[None]:
    """Have Numba leave its code as it is: `_isolate` optimises all of it, once, for its processor.

    Numba would optimise every function by itself and then what it is inlined into, and make this
    machine's code of each: for nothing, and impossible where kernels are for another processor.
    The lock keeps what other threads compile meanwhile as they want it.
    """
    with global_compiler_lock:
        context = cpu_target.target_context  # made by the first who asks, as things are then
        level, codegen = config.OPT, context._internal_codegen  # noqa: SLF001 - no public way
        config.OPT = type(level)(0)
        context._internal_codegen = _codegen()  # noqa: SLF001
        try:
            yield
        finally:
            config.OPT = level
            context._internal_codegen = codegen  # noqa: SLF001


@functools.cache
def _codegen() -> Any:
    return _Codegen("hotplug")


def _source(spec: KernelSpec) -> Any:
    kernels = importlib.import_module(spec.module).KERNELS
    if spec.name not in kernels:
        raise KernelCompileError(
            f"KERNELS of {spec.module} lacks {spec.name}, which the catalog has",
            kernel=spec.name,
            source=spec.module,
        )
    return kernels[spec.name]


def _cause(log: str) -> str:
    """The first line that says more than where Numba stood."""
    lines = (line.strip() for line in log.splitlines())
    return next((line for line in lines if line and not line.startswith("Failed in")), "unknown")


def _check_arguments(spec: KernelSpec, function: Any) -> None:
    leading: tuple[str, ...] = ("thread", "threads") if spec.in_plan else ()
    if _takes_counter(function):
        leading += ("counter",)
    found = tuple(inspect.signature(function).parameters)
    if found != leading + spec.arguments:
        raise KernelCompileError(
            f"kernel {spec.name} takes {found}, the catalog says {leading + spec.arguments}",
            kernel=spec.name,
            source=spec.module,
        )


def _entry(spec: KernelSpec, body: Any) -> Any:
    if not spec.in_plan:
        kind = types.int64(*[types.int64] * len(spec.arguments))
        return cfunc(kind, error_model="numpy", nogil=True)(body.py_func)
    words = _unpack(len(spec.arguments))

    def entry(row: int, thread: int, threads: int) -> None:
        body(thread, threads, *words(row))

    def entry_with_counter(row: int, thread: int, threads: int) -> None:
        body(thread, threads, row + _COUNTER, *words(row))

    kind = types.void(types.int64, types.int64, types.int64)
    return cfunc(kind, error_model="numpy", nogil=True)(
        entry_with_counter if _takes_counter(body.py_func) else entry
    )


def _takes_counter(function: Any) -> bool:
    return "counter" in inspect.signature(function).parameters


@functools.cache
def _unpack(count: int) -> Any:
    """A function: address of a plan's row -> its arguments as a tuple."""
    result = types.UniTuple(types.int64, count)

    def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        row = builder.inttoptr(values[0], I64.as_pointer())
        words = [
            builder.load(builder.gep(row, [I64(FIRST_ARGUMENT + index)])) for index in range(count)
        ]
        return context.make_tuple(builder, result, words)

    def define(_context: Any, _row: Any) -> Any:
        return result(types.int64), generate

    return intrinsic(define)


def _isolate(compiled: Any, name: str) -> Any:
    """The function alone under its new name, everything it calls made part of it."""
    module = llvm.parse_assembly(compiled._library.get_llvm_str())  # noqa: SLF001 - no public way
    module.triple = kernel_target().triple
    module.data_layout = str(_machine().target_data)
    for function in module.functions:
        if function.name == compiled.native_name:
            function.name = name
            function.linkage = llvm.Linkage.external
        elif not function.is_declaration:
            function.linkage = llvm.Linkage.internal
    for variable in module.global_variables:
        if not variable.is_declaration or variable.linkage is llvm.Linkage.common:
            variable.linkage = llvm.Linkage.internal
    # Twice: a large kernel is not inlined into its entry, and that it reports no error is found by
    # passes that stand before those which make it plain.
    for _ in range(2):
        options = llvm.create_pipeline_tuning_options(speed_level=_OPTIMISE)
        builder = llvm.create_pass_builder(_machine(), options)
        builder.getModulePassManager().run(module, builder)
    return module


def _check_self_contained(spec: KernelSpec, module: Any) -> None:
    needed = [
        function.name
        for function in module.functions
        if function.is_declaration and not function.name.startswith("llvm.")
    ]
    needed += [v.name for v in module.global_variables if v.is_declaration]
    if needed:
        raise KernelCompileError(
            f"kernel {spec.name} needs {', '.join(sorted(needed))}, which no object file holds",
            kernel=spec.name,
            source=spec.module,
            log=_interesting(str(module), needed),
        )


def _interesting(text: str, names: list[str]) -> str:
    pattern = re.compile("|".join(re.escape(name) for name in names))
    return "\n".join(line for line in text.splitlines() if pattern.search(line))[:4000]


@functools.cache
def _machine() -> Any:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = kernel_target()
    machine = llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu,
        features=target.features,
        opt=_OPTIMISE,
        reloc="pic",
        codemodel="default",
    )
    machine.set_asm_verbosity(True)
    return machine


def main(names: list[str]) -> None:
    """Compile kernels into the cache; how another process takes a share of the work."""
    from hotplug_cpu.catalog import kernel  # noqa: PLC0415

    cache = ObjectCache.open()
    for name in names:
        spec = kernel(name)
        cache.put(spec, compile_kernel(spec))
        sys.stdout.write(name + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
