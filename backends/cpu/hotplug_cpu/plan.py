"""A program made into rows of addresses, and run by a team of threads.

Kernels are known when the plan is made; the addresses of buffers when it is bound. Runs with the
same buffers go straight to the rows. Where the program has NumPy steps, the team runs the stretches
between them.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from operator import is_
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hotplug import ops
from hotplug.backend import Buffer, Executable, Partition, Stream
from hotplug.errors import (
    ExecutionError,
    HotplugError,
    OutOfDeviceMemoryError,
    RunCancelledError,
    UsageError,
)
from hotplug.node import Node
from hotplug_cpu import numpy_kernels, threads
from hotplug_cpu.bindings import bytes_of, check_supported, required_buffers
from hotplug_cpu.buffers import HostBufferType
from hotplug_cpu.catalog import FIRST_ARGUMENT, ROW_WORDS
from hotplug_cpu.jit import loader
from hotplug_cpu.lowering import lower
from hotplug_cpu.program import Address, KernelAddress, NumpyStep, Place, Program, Step, Store
from hotplug_cpu.tensor_view import TensorView
from hotplug_cpu.trace import Trace, once, trace

__all__ = ["FEW", "PlanExecutable"]

FEW = 1 << 20
"""Operations up to which one thread is sooner done than others have begun."""

STRETCH = 4e9
"""Operations after which a run looks whether it shall stop: some milliseconds."""

_NO_CONTEXT = contextlib.nullcontext()

Bytes: TypeAlias = npt.NDArray[np.uint8]
Words: TypeAlias = npt.NDArray[np.int64]


class PlanExecutable(Executable):
    """A partition on the processor, run by compiled kernels wherever there are any.

    Args:
        partition: the work.
        buffers: where the arena is taken from.
        default_threads: how many threads run it if the partition does not say.

    Raises:
        UnsupportedOpError: there is no kernel for a node.
        KernelCompileError: compiled kernels cannot be had.
        OutOfDeviceMemoryError: the arena does not fit in memory.
    """

    def __init__(self, partition: Partition, buffers: HostBufferType, default_threads: int) -> None:
        self.graph = partition.graph
        self.threads = partition.threads or default_threads
        self._device = buffers.device
        check_supported(self.graph, self._device)
        self._program = lower(self.graph, self.threads)
        self._rows = _Rows(self._program)
        self.arena_bytes = self._program.arena_bytes
        self._arena = buffers.allocate(self.arena_bytes)
        self._required = required_buffers(self.graph)
        self._numpy = any(isinstance(step, NumpyStep) for step in self._program.steps)
        self._names: tuple[str, ...] = ()
        self._bound: tuple[Buffer, ...] = ()
        self._words = np.zeros((0, ROW_WORDS), np.int64)
        self._calls: list[tuple[Callable[[], object], str, str]] = []
        self._stretches: dict[Callable[[], object], Words] = {}  # calls that walk over rows
        # A team runs one plan at a time; who is alone anyway need not wait for that.
        self._alone = self.threads == 1 or _operations(self.graph.nodes) <= FEW
        self._stopping = False
        self._lock = threading.Lock()  # one arena serves one run at a time
        _executables.add(self)
        threads.team(self.threads)

    def run(self, bindings: Mapping[str, Buffer], stream: Stream | None = None) -> None:
        """Compute; all is done when this returns, which every stream allows.

        Raises:
            ExecutionError: a buffer is missing or too small, or a NumPy kernel failed.
            OutOfDeviceMemoryError: a NumPy kernel found no memory for its temporary values.
            RunCancelledError: it was stopped.
        """
        del stream
        with self._lock:
            self._stopping = False
            self._ready(bindings)
            with np.errstate(all="ignore") if self._numpy else _NO_CONTEXT:
                for call, what, op in self._calls:
                    if self._stopping:
                        raise RunCancelledError("the run was stopped", device=self._device)
                    self._do(call, what, op)

    def stop(self) -> None:
        """Have a run end after the stretch that is on its way."""
        self._stopping = True

    def profile(self, bindings: Mapping[str, Buffer]) -> list[float]:
        """Run once with clocks between steps, and tell the seconds that each took.

        Raises:
            ExecutionError, OutOfDeviceMemoryError: as for `run`.
        """
        seconds: list[float] = []
        with self._lock:
            self._ready(bindings)
            with np.errstate(all="ignore"):
                for call, what, op in self._calls:
                    self._do(partial(self._timed, call, seconds), what, op)
        return seconds

    def explain(self) -> list[str]:
        """A line per step: kernel, nodes, threads; NumPy steps begin with "numpy"."""
        lines = []
        for step in self._program.steps:
            names = " + ".join(node.name for node in step.nodes)
            if isinstance(step, NumpyStep):
                lines.append(f"numpy{' copy' if step.copies else ''}: {names}")
            else:
                wait = ", then wait" if step.barrier else ""
                lines.append(f"{step.kernel}: {names} ({self.threads} threads{wait})")
        return lines

    def trace(self, runs: int) -> Trace:
        """Repeat what `run` did last and tell how long each step takes; see `hotplug_cpu.trace`.

        Raises:
            UsageError: there was no run, or it has steps that NumPy does.
        """
        with self._lock:
            steps = [step for step in self._program.steps if isinstance(step, Step)]
            if not self._names or len(steps) < len(self._program.steps):
                raise UsageError("only a plan that was run, all of it compiled, can be traced")
            return trace(steps, self._words, threads.team(self.threads), runs)

    def unbind(self) -> bool:
        """Let go of the buffers last bound."""
        with self._lock:
            self._names, self._bound, self._calls = (), (), []
            self._stretches.clear()
        return True

    def free(self) -> None:
        """Let go of the arena, too."""
        self.unbind()
        self._arena.free()

    def forget(self) -> None:
        """Start anew in a forked child: a run of the parent's other threads ends there only."""
        self._lock = threading.Lock()
        self._names = ()  # rows are bound again, whose counters such a run has moved

    def _ready(self, bindings: Mapping[str, Buffer]) -> None:
        names, buffers = tuple(bindings), tuple(bindings.values())
        if names != self._names or not all(map(is_, buffers, self._bound)):
            self._bind(bindings)
            self._names, self._bound = names, buffers

    def _timed(self, call: Callable[[], object], seconds: list[float]) -> None:
        rows = self._stretches.get(call)
        if rows is not None:
            seconds += once(rows, threads.team(self.threads))
            return
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)

    def _do(self, call: Callable[[], object], what: str, op: str) -> None:
        try:
            call()
        except MemoryError as error:
            raise OutOfDeviceMemoryError(
                f"no memory for temporary values of {what}", device=self._device
            ) from error
        except (HotplugError, ArithmeticError, ValueError, TypeError, IndexError) as error:
            raise ExecutionError(f"{what} failed: {error}", device=self._device, op=op) from error

    def _bind(self, bindings: Mapping[str, Buffer]) -> None:
        self._names = ()
        memory: dict[str, Bytes] = {}
        for name, (needed, written) in self._required.items():
            if name not in bindings:
                raise ExecutionError(f"no buffer is bound to {name!r}", device=self._device)
            memory[name] = bytes_of(name, bindings[name], needed, written, self._device)
        arena = self._arena.array

        def place(store: Store) -> tuple[Bytes, int]:
            if store.in_arena:
                return arena, store.offset
            if store.constant is not None:
                return store.constant.view(np.uint8), 0
            return memory[store.buffer], 0

        stores = self._rows.stores
        self._words = self._rows.bind({store: _address(*place(store)) for store in stores})
        self._calls = self._make_calls(self._words, place)

    def _make_calls(
        self, rows: Words, place: Callable[[Store], tuple[Bytes, int]]
    ) -> list[tuple[Callable[[], object], str, str]]:
        calls: list[tuple[Callable[[], object], str, str]] = []
        self._stretches.clear()
        start = stop = operations = 0

        def flush() -> None:
            if stop > start:
                walk = self._walk(rows[start:stop])
                self._stretches[walk] = rows[start:stop]
                calls.append((walk, "a plan", "plan"))

        for step in self._program.steps:
            if isinstance(step, Step):
                stop += 1
                operations += _operations(step.nodes)
                if operations < STRETCH:
                    continue
            flush()
            start, operations = stop, 0
            if isinstance(step, NumpyStep):
                calls.append((_numpy_call(step, place), step.node.name, step.node.op))
        flush()
        return calls

    def _walk(self, rows: Words) -> Callable[[], object]:
        if self._alone:
            return threads.team(self.threads).alone(rows)
        return partial(_run, self.threads, rows)


_executables: weakref.WeakSet[PlanExecutable] = weakref.WeakSet()


def _forget_runs() -> None:
    for executable in list(_executables):
        executable.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_runs)


def _run(count: int, rows: Words) -> None:
    threads.team(count).run(rows)  # asked for again: a fork has left the threads behind


def _operations(nodes: Iterable[Node]) -> int:
    return sum(ops.get(node.op).flops(node) for node in nodes if not node.is_leaf)


class _Rows:
    """The rows of a program's compiled steps, with what is known of them before binding."""

    def __init__(self, program: Program) -> None:
        steps = [step for step in program.steps if isinstance(step, Step)]
        addresses = loader.load(_kernels(steps))
        self._template = np.zeros((len(steps), ROW_WORDS), np.int64)
        places: list[tuple[int, int, int]] = []
        stores: dict[Store, int] = {}
        for row, step in enumerate(steps):
            words = [addresses[step.kernel], int(step.barrier)]
            for argument in step.arguments:
                if isinstance(argument, Address):
                    index = stores.setdefault(argument.store, len(stores))
                    places.append((row, len(words), index))
                    words.append(argument.offset)
                elif isinstance(argument, KernelAddress):
                    words.append(addresses[argument.name])
                else:
                    words.append(argument)
            self._template[row, : len(words)] = words
        self._places = np.array(places, np.int64).reshape(-1, 3).T
        self.stores = tuple(stores)

    def bind(self, addresses: Mapping[Store, int]) -> Words:
        """Rows that can be run."""
        bases = np.array([addresses[store] for store in self.stores], np.int64)
        rows = self._template.copy()
        row, column, store = self._places
        rows[row, column] += bases[store] if len(bases) else 0
        return rows


def _kernels(steps: list[Step]) -> set[str]:
    names = {step.kernel for step in steps}
    for step in steps:
        names.update(a.name for a in step.arguments if isinstance(a, KernelAddress))
    return names


def _numpy_call(step: NumpyStep, place: Callable[[Store], tuple[Bytes, int]]) -> Callable[[], None]:
    def view(node_dtype: object, where: Place) -> TensorView:
        data, start = place(where.store)
        return TensorView.over(data, node_dtype, where.layout, start)  # type: ignore[arg-type]

    out = view(step.node.dtype, step.out)
    operands = [None if item is None else view(item[0].dtype, item[1]) for item in step.operands]
    if step.copies:
        assert operands[0] is not None
        return partial(np.copyto, out.array, operands[0].array)
    return partial(numpy_kernels.run, step.node, operands, out)


def _address(data: Bytes, offset: int) -> int:
    return int(data.__array_interface__["data"][0]) + offset


assert FIRST_ARGUMENT == 2
