"""A partition as a list of bound launches, made once and queued again for every run.

    graph --memory.plan--> places of values --catalog--> launches --buffers--> bound launches

Launches are bound to buffers when those change, which they seldom do: a run otherwise queues what
is there. The first repetition shows that there will be more, and has the launches captured.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from hotplug import memory
from hotplug.backend import Buffer, Executable, Partition, Stream
from hotplug.errors import ExecutionError, UnsupportedOpError
from hotplug.gpu import catalog
from hotplug.gpu.driver import Argument, BoundLaunch, Memory
from hotplug.gpu.memory import GPUBuffer, GPUBufferType
from hotplug.gpu.programs import Programs
from hotplug.gpu.tensors import Place, Tensor, contiguous
from hotplug.graph import Graph
from hotplug.memory import MemoryPlan, Storage, StorageKind
from hotplug.node import Node
from hotplug.ops import OPS

__all__ = ["GPUExecutable", "lower_graph"]

_BOUND = "bound:"  # before the names of buffers that a caller binds


class GPUExecutable(Executable):
    """A partition on a GPU.

    Args:
        partition: the work.
        buffers: where the arena is taken from.
        programs: the device's kernels.

    Raises:
        UnsupportedOpError: there is no kernel for a node.
        KernelCompileError: a kernel was refused by the device's compiler.
        OutOfDeviceMemoryError: the arena does not fit.
    """

    def __init__(self, partition: Partition, buffers: GPUBufferType, programs: Programs) -> None:
        self._graph = partition.graph
        self._driver = buffers.driver
        self._device = buffers.device
        self._programs = programs
        plan = memory.plan(self._graph)
        self._lowering = catalog.Lowering(self._driver.capabilities)
        lower_graph(self._graph, plan, self._lowering, self._device)
        kernels = (one for one in self._lowering.launches if isinstance(one, catalog.Launch))
        programs.prepare(launch.variant for launch in kernels)
        self.arena_bytes = plan.arena_bytes + self._lowering.scratch + self._lowering.held_bytes
        self._own = self._reserve(buffers, plan)
        self._required = _required(self._graph)
        self._bound: tuple[Memory, ...] = ()
        self._launches: Sequence[BoundLaunch] | None = None
        self._captured = False
        self._lock = threading.Lock()  # one arena serves one run at a time

    def _reserve(self, buffers: GPUBufferType, plan: MemoryPlan) -> dict[str, GPUBuffer]:
        own = {
            "arena": buffers.reserve(plan.arena_bytes),
            "scratch": buffers.reserve(self._lowering.scratch),
            "held": buffers.reserve(self._lowering.held_bytes),
            "constants": buffers.reserve(len(self._lowering.constants)),
        }
        own["constants"].write(0, memoryview(self._lowering.constants))
        return own

    def run(self, bindings: Mapping[str, Buffer], stream: Stream | None = None) -> None:
        """Queue all launches; without a stream, wait until they are done.

        Raises:
            ExecutionError: a buffer is missing, too small or another device's, or a launch failed.
            DeviceLostError: the device is gone.
        """
        with self._lock:
            bound = self._memory_of(bindings)
            if self._launches is None or bound != self._bound:
                self._launches, self._bound, self._captured = self._bind(bound), bound, False
            elif not self._captured:
                self._launches, self._captured = self._driver.capture(self._launches), True
            self._driver.launch(self._launches)
            if stream is None:
                self._driver.synchronise()

    def explain(self) -> list[str]:
        """A line per launch."""
        return [str(launch) for launch in self._lowering.launches]

    def free(self) -> None:
        """Let go of the arena and of all that is bound."""
        with self._lock:
            self._launches, self._bound = None, ()
            for buffer in self._own.values():
                buffer.free()
            self._own.clear()

    def _memory_of(self, bindings: Mapping[str, Buffer]) -> tuple[Memory, ...]:
        if not self._own:
            raise ExecutionError("the executable has been freed", device=self._device)
        return tuple(
            self._checked(name, bindings.get(name), needed)
            for name, needed in self._required.items()
        )

    def _checked(self, name: str, buffer: Buffer | None, needed: int) -> Memory:
        if buffer is None:
            raise ExecutionError(f"no buffer is bound to {name!r}", device=self._device)
        if not isinstance(buffer, GPUBuffer) or not buffer.belongs_to(self._driver):
            raise ExecutionError(
                f"the buffer of {name!r} is not in this device's memory", device=self._device
            )
        if buffer.nbytes < needed:
            raise ExecutionError(
                f"the buffer of {name!r} has {buffer.nbytes} bytes instead of {needed}",
                device=self._device,
            )
        return buffer.memory

    def _bind(self, bound: tuple[Memory, ...]) -> list[BoundLaunch]:
        buffers = {name: buffer.memory for name, buffer in self._own.items()}
        names = (_BOUND + name for name in self._required)
        buffers.update(zip(names, bound, strict=True))
        return [self._bound_launch(launch, buffers) for launch in self._lowering.launches]

    def _bound_launch(
        self, launch: catalog.Launch | catalog.LibraryLaunch, buffers: Mapping[str, Memory]
    ) -> BoundLaunch:
        if isinstance(launch, catalog.LibraryLaunch):
            return self._driver.gemm(
                launch.gemm, *(buffers[place.buffer] for place in launch.operands)
            )
        arguments: list[Argument] = [
            buffers[part.buffer] if isinstance(part, Place) else part for part in launch.arguments
        ]
        program = self._programs.get(launch.variant)
        return self._driver.bind(
            launch.variant.name, program, launch.groups, launch.items, arguments
        )


def _required(graph: Graph) -> dict[str, int]:
    """Bytes of each buffer that a run needs."""
    required = {node.name: node.type.nbytes for node in graph.nodes if node.is_leaf}
    required.update({f"output:{name}": node.type.nbytes for name, node in graph.outputs})
    return required


def lower_graph(graph: Graph, plan: MemoryPlan, lowering: catalog.Lowering, device: str) -> None:
    """Launches of all nodes in order, then copies to outputs, then new values of states."""
    tensors: dict[Node, Tensor] = {}
    for node in graph.nodes:
        location = plan.locations[node]
        result = tensors[node] = Tensor(_place(location.storage), node.dtype, location.layout)
        if location.copies:
            source = _copied(node, tensors[node.operands[0]], result)
            catalog.copy(lowering, *source)
        if not node.is_leaf and not OPS[node.op].view:
            _check(node, lowering, device)
            operands = [None if item is None else tensors[item] for item in node.inputs]
            catalog.lower(lowering, node, operands, result)
    for name, node in plan.output_copies:
        _copy_to(lowering, tensors[node], f"output:{name}")
    for name, node in plan.state_writes:
        _copy_to(lowering, tensors[node], name)


def _place(storage: Storage) -> Place:
    if storage.kind is StorageKind.ARENA:
        return Place("arena", storage.offset)
    prefix = "output:" if storage.kind is StorageKind.OUTPUT else ""
    return Place(_BOUND + prefix + storage.name)


def _copied(node: Node, operand: Tensor, result: Tensor) -> tuple[Tensor, Tensor]:
    """What is copied where: a reshape's elements keep the order that the operand's shape gives."""
    if node.op == "reshape":
        whole = contiguous(result.place, operand.dtype, operand.shape)
        return operand, whole
    return operand, result


def _copy_to(lowering: catalog.Lowering, value: Tensor, name: str) -> None:
    catalog.copy(lowering, value, contiguous(Place(_BOUND + name), value.dtype, value.shape))


def _check(node: Node, lowering: catalog.Lowering, device: str) -> None:
    answer = catalog.supports(node, lowering.capabilities)
    if not answer:
        raise UnsupportedOpError(
            f"{device} does not run {node.name}: {answer.reason}",
            op=node.op,
            reasons={device: answer.reason},
        )
