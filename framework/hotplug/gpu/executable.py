"""A partition as a list of bound launches, made once and queued again for every run.

    graph --memory.plan--> places of values --catalog--> launches --buffers--> bound launches

Launches are bound to buffers when those change, which they seldom do: a run otherwise queues what
is there. Runs in flight take some sets of buffers in turn, so that what is bound to each is kept.
The first repetition shows that there will be more, and has the launches captured.
"""

from __future__ import annotations

import itertools
import logging
import operator
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hotplug.backend import Buffer, Executable, Partition, Stream
from hotplug.errors import ExecutionError, KernelCompileError, RunCancelledError
from hotplug.gpu import catalog, series
from hotplug.gpu.catalog.table import Chooser, first
from hotplug.gpu.driver import BoundLaunch
from hotplug.gpu.lowering import BOUND, lower_graph
from hotplug.gpu.memory import GPUBuffer, GPUBufferType
from hotplug.gpu.programs import Programs
from hotplug.gpu.series import Queued, SeriesProgram
from hotplug.gpu.sources import Variant
from hotplug.graph import Graph
from hotplug.memory import MemoryPlan
from hotplug.ops import OPS

__all__ = ["STRETCH", "GPUExecutable"]

_log = logging.getLogger(__name__)

STRETCH = 5e10
"""Operations after which a run looks whether it shall stop. To wait for the device that long before
more is queued costs it little."""


class GPUExecutable(Executable):
    """A partition on a GPU.

    Attributes:
        required: bytes of each buffer that a run needs, by its name among the bindings.
        launches: how many a run queues; a series counts as one.
    """

    def __init__(
        self,
        partition: Partition,
        buffers: GPUBufferType,
        programs: Programs,
        *,
        fuse: bool = True,
        choose: Chooser = first,
    ) -> None:
        """Lower, compile, and take the arena.

        Args:
            partition: the work.
            buffers: where the arena is taken from.
            programs: the device's kernels.
            fuse: whether kernels may compute several nodes together.
            choose: which geometries kernels get.

        Raises:
            UnsupportedOpError: there is no kernel for a node.
            KernelCompileError: a kernel was refused by the device's compiler.
            OutOfDeviceMemoryError: the arena does not fit.
        """
        self._graph = partition.graph
        self._driver = buffers.driver
        self._device = buffers.device
        self._programs = programs
        self._lowering = catalog.Lowering(self._driver.capabilities, choose=choose)
        plan = lower_graph(self._graph, self._lowering, self._device, fuse=fuse)
        work = _work(self._graph)
        self._queued = self._compiled(work, together=fuse)
        self.launches = len(self._queued)
        low = self._lowering
        self.arena_bytes = plan.arena_bytes + low.scratch + low.held_bytes + low.kept_bytes
        self._own = self._reserve(buffers, plan)
        self.required = _required(self._graph)
        self._bound: list[_Bound] = []  # the one used last comes first
        self._stopping = False
        self._stretches = _stretches(work, self._queued)
        self._lock = threading.Lock()  # one arena serves one run at a time

    def _compiled(self, work: Mapping[str, float], *, together: bool) -> Sequence[Queued]:
        """What a run queues, its kernels compiled."""
        able, launches = self._driver.capabilities, self._lowering.launches
        if together and able.is_cpu and able.threads:
            queued = series.join(self._lowering, work)
            try:
                self._programs.prepare(_variants(queued))
            except KernelCompileError as error:
                _log.info("launches of %s stay single: %s", self._device, error)
            else:
                return queued
        self._programs.prepare(_variants(launches))
        return launches

    def _reserve(self, buffers: GPUBufferType, plan: MemoryPlan) -> dict[str, GPUBuffer]:
        own = {
            "arena": buffers.reserve(plan.arena_bytes),
            "scratch": buffers.reserve(self._lowering.scratch),
            "held": buffers.reserve(self._lowering.held_bytes),
            "kept": buffers.reserve(self._lowering.kept_bytes),
            "constants": buffers.reserve(len(self._lowering.constants)),
            series.COUNTERS: buffers.allocate(series.counter_bytes(self._queued)),
        }
        own["constants"].write(0, memoryview(self._lowering.constants))
        return own

    def run(self, bindings: Mapping[str, Buffer], stream: Stream | None = None) -> None:
        """Queue all launches; without a stream, wait until they are done.

        Raises:
            ExecutionError: a buffer is missing, too small or another device's, or a launch failed.
            RunCancelledError: it was stopped.
            DeviceLostError: the device is gone.
        """
        with self._lock:
            self._stopping = False
            for number, stretch in enumerate(self._ready(bindings)):
                if number and stream is None:
                    self._driver.synchronise()
                    if self._stopping:
                        raise RunCancelledError("the run was stopped", device=self._device)
                self._driver.launch(stretch)
            if stream is None:
                self._driver.synchronise()

    def stop(self) -> None:
        """Have a run that is waited for end after the stretch that is on its way."""
        self._stopping = True

    def _ready(self, bindings: Mapping[str, Buffer]) -> Sequence[Sequence[BoundLaunch]]:
        """The launches, bound to buffers. Those of the last run are looked at in no Python loop."""
        held = self._bound[0] if self._bound else None
        if held is None or bindings != held.given or not held.alive:
            held = self._recall(bindings)
        if held is None:
            used = self._buffers_of(bindings)
            bound = self._bind(self._queued, used)
            held = _Bound(dict(bindings), used, [bound[a:b] for a, b in self._stretches])
            self._bound.insert(0, held)
        elif not held.captured:
            held.launches = [self._driver.capture(stretch) for stretch in held.launches]
            held.captured = True
        return held.launches

    def _recall(self, bindings: Mapping[str, Buffer]) -> _Bound | None:
        """What an earlier run has bound to these buffers, now the first."""
        alive = [bound for bound in self._bound if bound.alive]
        found = [bound for bound in alive if bound.given == bindings]
        others = [bound for bound in alive if bound not in found]
        self._bound = [*found, *others][: _SETS if found else _SETS - 1]
        return found[0] if found else None

    def profile(self, bindings: Mapping[str, Buffer]) -> list[float]:
        """Run once, one launch after the other, and tell the seconds that each took on the device.

        Raises:
            ExecutionError, DeviceLostError: as for `run`.
        """
        with self._lock:
            return self._driver.timed(
                self._bind(self._lowering.launches, self._buffers_of(bindings))
            )

    def explain(self) -> list[str]:
        """A line per launch: the kernel, its geometry, and which nodes it computes."""
        return [str(launch) for launch in self._lowering.launches]

    def unbind(self) -> bool:
        """Let go of the buffers that launches are bound to."""
        with self._lock:
            self._bound.clear()
        return True

    def free(self) -> None:
        """Let go of the arena, too."""
        self.unbind()
        with self._lock:
            for buffer in self._own.values():
                buffer.free()
            self._own.clear()

    def _buffers_of(self, bindings: Mapping[str, Buffer]) -> tuple[GPUBuffer, ...]:
        if not self._own:
            raise ExecutionError("the executable has been freed", device=self._device)
        return tuple(
            self._checked(name, bindings.get(name), needed)
            for name, needed in self.required.items()
        )

    def _checked(self, name: str, buffer: Buffer | None, needed: int) -> GPUBuffer:
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
        return buffer

    def _bind(self, launches: Sequence[Queued], used: Sequence[GPUBuffer]) -> list[BoundLaunch]:
        buffers = {name: buffer.memory for name, buffer in self._own.items()}
        for name, buffer in zip(self.required, used, strict=True):
            buffers[BOUND + name] = buffer.memory
        return [self._programs.bind(launch, buffers) for launch in launches]


_alive = operator.attrgetter("alive")

_SETS = 16
"""So many sets of buffers launches are kept for; runs in flight have no more, see `best_depth`."""


@dataclass(eq=False, slots=True)
class _Bound:
    """Launches bound to buffers.

    Attributes:
        given: the buffers that a run was given.
        used: those of them that launches are bound to.
        launches: in stretches.
        captured: whether they were run a second time, and are captured.
    """

    given: dict[str, Buffer]
    used: tuple[GPUBuffer, ...]
    launches: list[Sequence[BoundLaunch]]
    captured: bool = False

    @property
    def alive(self) -> bool:
        """Whether the buffers are there still."""
        return all(map(_alive, self.used))


def _variants(launches: Sequence[Queued]) -> Iterator[Variant | SeriesProgram]:
    return (one.variant for one in launches if not isinstance(one, catalog.LibraryLaunch))


def _required(graph: Graph) -> dict[str, int]:
    """Bytes of each buffer that a run needs."""
    required = {node.name: node.type.nbytes for node in graph.nodes if node.is_leaf}
    required.update({f"output:{name}": node.type.nbytes for name, node in graph.outputs})
    return required


def _work(graph: Graph) -> dict[str, float]:
    """Operations of each node, by its name."""
    return {node.name: OPS[node.op].flops(node) for node in graph.nodes if not node.is_leaf}


def _stretches(work: Mapping[str, float], launches: Sequence[Queued]) -> list[tuple[int, int]]:
    """First launch of each stretch, and the one behind its last."""
    left = dict(work)
    bounds, done = [0], 0.0
    for number, launch in enumerate(launches, start=1):
        done += sum(left.pop(name, 0) for name in launch.nodes)
        if done >= STRETCH or number == len(launches):
            bounds.append(number)
            done = 0.0
    return list(itertools.pairwise(bounds))
