"""Words that threads share, a clock, and calls of other kernels."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from hotplug_cpu.jit import forms
from hotplug_cpu.jit.vectors import I64, address, instruction


@instruction(types.int64, address, types.int64)
def word(builder: Any, at: Any, index: Any) -> Any:
    """The int64 number `index` of an array at a multiple of 8, whole though others write it."""
    return builder.load(builder.gep(builder.inttoptr(at, I64.as_pointer()), [index]))


@instruction(types.int64, address, types.int64)
def atomic_add(builder: Any, at: Any, amount: Any) -> Any:
    """Add, and return what was there before."""
    return builder.atomic_rmw("add", builder.inttoptr(at, I64.as_pointer()), amount, "seq_cst")


@instruction(types.int64, address, types.int64)
def atomic_exchange(builder: Any, at: Any, value: Any) -> Any:
    """Put a number, and return what was there before."""
    return builder.atomic_rmw("xchg", builder.inttoptr(at, I64.as_pointer()), value, "seq_cst")


@instruction(types.boolean, address, types.int64, types.int64)
def atomic_replace(builder: Any, at: Any, old: Any, new: Any) -> Any:
    """Put a number where another is; whether that was there."""
    pointer = builder.inttoptr(at, I64.as_pointer())
    pair = builder.cmpxchg(pointer, old, new, "seq_cst", "seq_cst")
    return builder.extract_value(pair, 1)


@instruction(types.int64)
def ticks(builder: Any) -> Any:
    """What a clock shows that runs evenly and is read in no time; 0 where none is known."""
    return forms.ticks(builder)


@instruction(types.int64, address)
def atomic_load(builder: Any, at: Any) -> Any:
    return builder.load_atomic(builder.inttoptr(at, I64.as_pointer()), "seq_cst", 8)


@instruction(types.none)
def pause(builder: Any) -> None:
    """A short wait that leaves the core to its other hardware thread."""
    forms.pause(builder)


@instruction(types.none, address)
def call_plain(builder: Any, function: Any) -> None:
    """Call a C function that takes nothing; what it returns is ignored."""
    kind = ir.FunctionType(ir.VoidType(), [])
    builder.call(builder.inttoptr(function, kind.as_pointer()), [])


@instruction(types.none, address, types.int64, types.int64, types.int64)
def call_kernel(builder: Any, kernel: Any, row: Any, thread: Any, threads: Any) -> None:
    """Run the kernel at an address."""
    kind = ir.FunctionType(ir.VoidType(), [I64] * 3)
    builder.call(builder.inttoptr(kernel, kind.as_pointer()), [row, thread, threads])
