"""How fast a device is, found out by trying: the rates that `cost` reckons with.

Small graphs are compiled and run on the device and buffers written and read, by nothing but the
contract, so that it works for any backend, devices of other machines included. Each figure is the
best of a few runs: what disturbs a run makes it slower, never faster. Sizes grow until a run takes
long enough to be told from its launch, or the time is used up; a dtype that was not reached, or
that the device has no kernel for, is left out, and placement takes the general rate for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from hotplug import memory, ops
from hotplug.backend import Buffer, Device, Partition
from hotplug.errors import HotplugError
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.placement.cost import Link, Rates, rates, work

__all__ = ["DTYPES", "calibrate", "calibrate_link"]

DTYPES = ("q4_0", "q8_0", "f16", "f32", "q4_k", "q6_k", "q4_1", "q5_0", "bf16", "q5_k")
"""Dtypes of weights that are tried unless others are asked for, the most frequent first."""

_RUNS = 5
_ENOUGH = 2e-3  # seconds of a run that is told from its launch
_LARGEST = 128 << 20  # bytes of one weight
_SMALL_COPY, _LARGE_COPY = 64, 8 << 20
_CHAIN = 17  # nodes of the graph that tells a node's own cost
_FILL = b"\x3c"  # of such bytes every dtype makes plain numbers, and no page is all zeros


def calibrate(
    device: Device,
    *,
    seconds: float = 5.0,
    weights: Sequence[str] = DTYPES,
    threads: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Rates:
    """Measure a device.

    Args:
        device: to be measured; nothing else should run on it meanwhile.
        seconds: how long running may take; the run that is on its way then is ended. Compiling
            kernels that are not in the cache may take ten times as long besides.
        weights: dtypes of weights to try.
        threads: threads of CPU-like devices.
        clock: what tells the time.

    Raises:
        HotplugError: the device fails at the simplest graph.
    """
    bench = _Bench(device, threads, clock, clock() + seconds, 10 * seconds)
    upload, download = bench.links()
    launch, step = bench.launch()
    usual = rates(device.info)
    found = replace(
        usual, upload=upload, download=download, launch=launch, step=step, source="measured"
    )
    bench.base = launch + step
    bandwidth = bench.rate(_sum_of, (1 << 16, 1 << 20, 1 << 23))
    gemv: dict[str, float] = {}
    gemm: dict[str, float] = {}
    for dtype in weights:
        for table, rows, sizes in ((gemv, 1, _TALL), (gemm, 256, _SQUARE)):
            rate = bench.rate(partial(_product_of, rows, dtype), sizes)
            if rate is not None:
                table[dtype] = rate
    bandwidth = bandwidth or max(gemv.values(), default=usual.bandwidth)
    moved = work(dict(_chain_of(1).outputs)["z"]).nbytes  # which is no cost of the step itself
    return replace(
        found,
        bandwidth=bandwidth,
        step=max(0.0, step - moved / bandwidth),
        flops=gemm.get("f32") or max(gemm.values(), default=usual.flops),
        gemv=gemv,
        gemm=gemm,
    )


_TALL = tuple((rows, 1024) for rows in (1 << 8, 1 << 11, 1 << 13, 1 << 15, 1 << 17))
_SQUARE = ((128, 256), (512, 512), (1024, 1024), (4096, 2048))
"""Rows and columns of weights, growing; those that are read once a product, beyond any cache."""


@dataclass(frozen=True, slots=True)
class _Trial:
    """A graph to be timed; `amount` is what the rate counts: bytes or operations."""

    graph: Graph
    amount: int


def _sum_of(size: int) -> _Trial:
    x, y = (ops.input(name=name, dtype="f32", shape=(size,)) for name in "xy")
    return _Trial(Graph.build({"z": ops.add(x, y)}), 3 * 4 * size)


def _product_of(rows: int, dtype: str, shape: tuple[int, int]) -> _Trial:
    x = ops.input(name="x", dtype="f32", shape=(rows, shape[1]))
    weight = ops.weight(name="w", dtype=dtype, shape=shape)
    product = ops.matmul(x, weight, transpose_b=True)
    graph = Graph.build({"z": product})
    return _Trial(graph, weight.type.nbytes if rows == 1 else ops.get("matmul").flops(product))


def _chain_of(count: int) -> Graph:
    """Nodes that no device computes together: each needs all of the one before."""
    x: Node = ops.input(name="x", dtype="f32", shape=(1, 32))
    weight = ops.weight(name="w", dtype="f32", shape=(32,))
    for _ in range(count):
        x = ops.rms_norm(x, weight)
    return Graph.build({"z": x})


@dataclass
class _Bench:
    device: Device
    threads: int | None
    clock: Callable[[], float]
    deadline: float
    patience: float
    base: float = 0.0
    _buffers: list[Buffer] = field(default_factory=list)

    def links(self) -> tuple[Link, Link]:
        """To the device and back."""
        small, large = self._allocate(_SMALL_COPY), self._allocate(_LARGE_COPY)
        try:
            ways = []
            for copy in (Buffer.write, Buffer.read):
                name = copy.__name__
                latency = self._best(self._copying(small, name, small.nbytes))
                whole = self._best(self._copying(large, name, large.nbytes))
                ways.append(Link(latency, large.nbytes / max(whole - latency, 1e-9)))
            return ways[0], ways[1]
        finally:
            self._free()

    def _copying(self, buffer: Buffer, name: str, nbytes: int) -> Callable[[], object]:
        host = memoryview(bytearray(_FILL * nbytes))
        return lambda: getattr(buffer, name)(0, host)

    def launch(self) -> tuple[float, float]:
        """Seconds of a part beside its nodes, and of a node beside its work."""
        one = self._seconds(_chain_of(1), repeat=4)
        many = self._seconds(_chain_of(_CHAIN), repeat=4)
        step = max(0.0, (many - one) / (_CHAIN - 1))
        return max(0.0, one - step), step

    def rate(self, make: Callable[[Any], _Trial], sizes: Sequence[Any]) -> float | None:
        """Amount a second at the largest size that there is time and memory for; None for none."""
        found = None
        for size in sizes:
            if self.clock() >= self.deadline:
                break
            trial = make(size)
            if not self._runs(trial.graph):
                break
            try:
                seconds = self._seconds(trial.graph)
            except HotplugError:
                break  # too large for it; what is smaller counts
            found = trial.amount / max(seconds - self.base, seconds * 1e-2)
            if seconds >= max(_ENOUGH, 20 * self.base):
                break
        return found

    def _runs(self, graph: Graph) -> bool:
        if any(node.type.nbytes > _LARGEST for node in graph.nodes):
            return False
        return all(self.device.supports(node) for node in graph.nodes if not node.is_leaf)

    def _seconds(self, graph: Graph, repeat: int = 1) -> float:
        """Of the fastest of a few runs."""
        began = self.clock()
        arena = memory.plan(graph).arena_bytes
        executable = self.device.compile(Partition(graph, arena, self.threads))
        try:
            bindings = self._bind(graph)
            executable.run(bindings)  # what is compiled when it is first needed is compiled now
            taken = min(self.clock() - began, self.patience)
            self.patience -= taken
            self.deadline += taken
            return self._best(lambda: executable.run(bindings), repeat)
        finally:
            executable.free()
            self._free()

    def _bind(self, graph: Graph) -> dict[str, Buffer]:
        bindings = {}
        for node in graph.nodes:
            if node.is_leaf:
                buffer = bindings[node.name] = self._allocate(node.type.nbytes)
                buffer.write(0, memoryview(bytearray(_FILL * node.type.nbytes)))
        for name, node in graph.outputs:
            bindings[f"output:{name}"] = self._allocate(node.type.nbytes)
        return bindings

    def _best(self, work: Callable[[], object], repeat: int = 1) -> float:
        return _best(work, _RUNS * repeat, self.clock, self.deadline)

    def _allocate(self, nbytes: int) -> Buffer:
        buffer = self.device.buffers.allocate(nbytes)
        self._buffers.append(buffer)
        return buffer

    def _free(self) -> None:
        for buffer in self._buffers:
            buffer.free()
        self._buffers.clear()


def _best(work: Callable[[], object], runs: int, clock: Callable[[], float], until: float) -> float:
    """Seconds of the fastest of some runs, of which those that it is too late for are left out."""
    work()  # what is made when it is first needed is made now
    best = math.inf
    for _ in range(runs):
        began = clock()
        work()
        best = min(best, clock() - began)
        if clock() >= until:
            break
    return best


def calibrate_link(
    source: Device,
    target: Device,
    *,
    seconds: float = 1.0,
    clock: Callable[[], float] = time.perf_counter,
) -> Link | None:
    """Measure the way from one device to another; None where it is that by way of the host.

    Args:
        source: where copies come from.
        target: where they go.
        seconds: how long copying may take; the copy that is on its way then is ended.
        clock: what tells the time.

    Raises:
        HotplugError: one of the devices fails at it.
    """
    least = target.direct_from(source)
    if least is None:
        return None
    sizes = max(_SMALL_COPY, least), max(_LARGE_COPY, 2 * least)
    times = [_copying_seconds(source, target, size, clock, clock() + seconds / 2) for size in sizes]
    pace = max(times[1] - times[0], 1e-9) / (sizes[1] - sizes[0])
    return Link(max(0.0, times[0] - pace * sizes[0]), 1 / pace, least)


def _copying_seconds(
    source: Device, target: Device, nbytes: int, clock: Callable[[], float], until: float
) -> float:
    queue = target.stream()
    made = source.buffers.allocate(nbytes)
    try:
        received = target.buffers.allocate(nbytes)
        made.write(0, memoryview(_FILL * nbytes))

        def copy() -> None:
            received.copy_from(made)
            queue.synchronise()

        try:
            return _best(copy, _RUNS, clock, until)
        finally:
            received.free()
    finally:
        made.free()
