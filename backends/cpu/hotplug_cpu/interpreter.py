"""A graph run by NumPy kernels, one node after the other.

The core's memory plan says where every value lies: in a bound buffer or in the arena, whose bytes
are used again as soon as a value is dead. What remains is done once per set of buffers: an array
over each value's memory, and a list of steps. A run then walks the list.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hotplug import memory
from hotplug.backend import Buffer, Executable, Partition, Stream
from hotplug.errors import (
    ExecutionError,
    HotplugError,
    OutOfDeviceMemoryError,
    RunCancelledError,
)
from hotplug.graph import Graph
from hotplug.layout import Layout
from hotplug.memory import Location, Storage, StorageKind
from hotplug.node import Node
from hotplug.ops import OPS
from hotplug_cpu import numpy_kernels
from hotplug_cpu.bindings import bytes_of, check_supported, required_buffers
from hotplug_cpu.buffers import HostBufferType
from hotplug_cpu.tensor_view import TensorView

__all__ = ["NumpyExecutable"]

Bytes: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Step:
    """Something to do; `what` names it for people, `op` the op behind it."""

    call: Callable[[], None]
    what: str
    op: str


class NumpyExecutable(Executable):
    """A partition on the processor, without compiled kernels.

    Args:
        partition: the work. NumPy's own threads do the matrix products, so that its number of
            threads is not looked at.
        buffers: where the arena is taken from.

    Raises:
        UnsupportedOpError: there is no kernel for a node.
        OutOfDeviceMemoryError: the arena does not fit in memory.
    """

    def __init__(self, partition: Partition, buffers: HostBufferType) -> None:
        self.graph = partition.graph
        self._device = buffers.device
        check_supported(self.graph, self._device)
        self._plan = memory.plan(self.graph)
        self.arena_bytes = self._plan.arena_bytes
        self._arena = buffers.allocate(self.arena_bytes)
        self._required = required_buffers(self.graph)
        self._bound: tuple[Buffer, ...] = ()
        self._steps: tuple[_Step, ...] = ()
        self._stopping = False
        self._lock = threading.Lock()  # one arena serves one run at a time

    def run(self, bindings: Mapping[str, Buffer], stream: Stream | None = None) -> None:
        """Compute; all is done when this returns, which every stream allows.

        Raises:
            ExecutionError: a buffer is missing or too small, or a kernel failed.
            OutOfDeviceMemoryError: a kernel found no memory for its temporary values.
            RunCancelledError: it was stopped.
        """
        del stream
        with self._lock:
            self._stopping = False
            self._bind(bindings)
            # Overflow to infinity, and NaN, are results here and no accidents.
            with np.errstate(all="ignore"):
                for step in self._steps:
                    if self._stopping:
                        raise RunCancelledError("the run was stopped", device=self._device)
                    self._do(step)

    def stop(self) -> None:
        """Have a run end after the step that is on its way."""
        self._stopping = True

    def profile(self, bindings: Mapping[str, Buffer]) -> list[float]:
        """Run once, and tell the seconds that each step took.

        Raises:
            ExecutionError, OutOfDeviceMemoryError: as for `run`.
        """
        seconds = []
        with self._lock:
            self._bind(bindings)
            with np.errstate(all="ignore"):
                for step in self._steps:
                    began = time.perf_counter()
                    self._do(step)
                    seconds.append(time.perf_counter() - began)
        return seconds

    def explain(self) -> list[str]:
        """One line per node that computes or copies something, and per copy at the end."""
        lines = []
        for node in self.graph.nodes:
            location = self._plan.locations[node]
            if node.is_leaf or (OPS[node.op].view and not location.copies):
                continue
            where = " in place" if location.shares is not None else ""
            lines.append(f"numpy: {node.name} -> {node.type}{where}")
        lines += [f"copy: {node.name} -> output {name}" for name, node in self._plan.output_copies]
        lines += [f"copy: {node.name} -> state {name}" for name, node in self._plan.state_writes]
        return lines

    def unbind(self) -> bool:
        """Let go of the buffers last bound."""
        with self._lock:
            self._bound, self._steps = (), ()
        return True

    def free(self) -> None:
        """Let go of the arena, too."""
        self.unbind()
        self._arena.free()

    def _do(self, step: _Step) -> None:
        try:
            step.call()
        except MemoryError as error:
            raise OutOfDeviceMemoryError(
                f"no memory for temporary values of {step.what}", device=self._device
            ) from error
        except (HotplugError, ArithmeticError, ValueError, TypeError, IndexError) as error:
            raise ExecutionError(
                f"{step.what} failed: {error}", device=self._device, op=step.op
            ) from error

    def _bind(self, bindings: Mapping[str, Buffer]) -> None:
        """Lay arrays over the buffers, unless they are those of the run before."""
        try:
            buffers = tuple(bindings[name] for name in self._required)
        except KeyError as error:
            raise ExecutionError(
                f"no buffer is bound to {error.args[0]!r}", device=self._device
            ) from error
        same = len(buffers) == len(self._bound) and all(map(_is, buffers, self._bound))
        if same and self._steps:
            return
        storage = {
            name: bytes_of(name, buffer, *self._required[name], self._device)
            for name, buffer in zip(self._required, buffers, strict=True)
        }
        self._steps = _Binder(self.graph, self._plan, storage, self._arena.array).steps()
        self._bound = buffers


class _Binder:
    """Makes the steps of a graph over given memory."""

    def __init__(
        self, graph: Graph, plan: memory.MemoryPlan, bound: Mapping[str, Bytes], arena: Bytes
    ) -> None:
        self._graph = graph
        self._plan = plan
        self._bound = bound
        self._arena = arena
        self._views: dict[Node, TensorView] = {}

    def steps(self) -> tuple[_Step, ...]:
        """Nodes in order, then copies to outputs, then new values of states."""
        steps = [step for node in self._graph.nodes if (step := self._node_step(node)) is not None]
        for name, node in self._plan.output_copies:
            steps.append(self._copy(node, f"output:{name}", f"output {name!r}"))
        for name, node in self._plan.state_writes:
            steps.append(self._copy(node, name, f"state {name!r}"))
        return tuple(steps)

    def _node_step(self, node: Node) -> _Step | None:
        location = self._plan.locations[node]
        out = self._views[node] = self._view(node, location)
        if node.is_leaf or (OPS[node.op].view and not location.copies):
            return None
        operands = [None if item is None else self._views[item] for item in node.inputs]
        return _Step(partial(numpy_kernels.run, node, operands, out), node.name, node.op)

    def _view(self, node: Node, location: Location) -> TensorView:
        storage = location.storage
        start = storage.offset if storage.kind is StorageKind.ARENA else 0
        return TensorView.over(self._memory(storage), node.dtype, location.layout, start)

    def _memory(self, storage: Storage) -> Bytes:
        if storage.kind is StorageKind.ARENA:
            return self._arena
        prefix = "output:" if storage.kind is StorageKind.OUTPUT else ""
        return self._bound[prefix + storage.name]

    def _copy(self, node: Node, name: str, what: str) -> _Step:
        target = TensorView.over(self._bound[name], node.dtype, Layout.contiguous(node.shape))
        call = partial(np.copyto, target.array, self._views[node].array)
        return _Step(call, f"copying {node.name} to {what}", node.op)


def _is(a: object, b: object) -> bool:
    return a is b
