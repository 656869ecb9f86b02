"""How `gpu.py` measures: graphs on one device, queued again and again until it is busy long enough.

Bytes of weights are random, and those of quantised weights no numbers in particular: what they
mean costs the same. A graph's first run compiles it and its second has it captured, before time is
taken.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from figures import Row, rounded

from hotplug.backend import Backend, Buffer, Device, DeviceInfo, Executable, Partition
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.tensor import TensorType
from hotplug_cuda.peaks import Peaks, peaks_of

__all__ = ["Bench", "Sizes"]


@dataclass(frozen=True)
class Sizes:
    """How large what is measured is.

    Attributes:
        memory: bytes that caches do not hold.
        width: rows and columns of matrices.
        tokens: rows of the other operand of products.
        types: dtypes of weights; None for all that there are.
        depths: rows of caches that attention reads.
        heads: of queries; a fourth as many are of keys.
        launches: in a row, to know what one costs.
        kernels: how many are compiled to know how long it takes; None for all.
        prompt: tokens that the model reads.
        answer: tokens that the model makes; 0 leaves the model out.
        seconds: how long each figure is measured.
    """

    memory: int = 512 << 20
    width: int = 4096
    tokens: tuple[int, ...] = (64, 512, 2048)
    types: tuple[str, ...] | None = None
    depths: tuple[int, ...] = (512, 4096, 16384)
    heads: int = 32
    launches: int = 200
    kernels: int | None = None
    prompt: int = 512
    answer: int = 64
    seconds: float = 0.3

    @classmethod
    def quick(cls) -> Sizes:
        """So small that an interpreter does all of it in seconds; figures then mean nothing."""
        return cls(1 << 14, 64, (32,), ("f32", "q4_0"), (64,), 4, 3, 2, 8, 0, 0.0)


@dataclass
class Bench:
    """A device and what is measured on it.

    Attributes:
        backend: the device's.
        info: which one.
        sizes: how much.
        bandwidth: bytes a second that a copy reads and writes, once it has been measured.
    """

    backend: Backend
    info: DeviceInfo
    sizes: Sizes
    bandwidth: float | None = None
    peaks: Peaks | None = field(init=False)

    def __post_init__(self) -> None:
        self.peaks = peaks_of(self.info.name)

    @contextlib.contextmanager
    def device(self, *, library: bool = True) -> Iterator[Device]:
        """The device, opened with or without the vendor's library of products."""
        name, before = "HOTPLUG_CUDA_CUBLAS", os.environ.get("HOTPLUG_CUDA_CUBLAS")
        if not library:
            os.environ[name] = "off"
        try:
            device = self.backend.open(self.info)
        finally:
            if before is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = before
        with device:
            yield device

    def supported(self, device: Device, node: Node) -> bool:
        """Whether a device computes a node."""
        return bool(device.supports(node))

    def seconds(self, device: Device, outputs: Mapping[str, Node]) -> float:
        """Of one run of a graph, the fastest of three rounds."""
        with bound(device, outputs) as (executable, bindings):
            stream = device.stream()

            def runs(count: int) -> float:
                began = time.perf_counter()
                for _ in range(count):
                    executable.run(bindings, stream)
                stream.synchronise()
                return time.perf_counter() - began

            count = 1
            while (taken := runs(count)) < self.sizes.seconds / 8:
                count *= 2
            if not self.sizes.seconds:
                return taken / count
            count = max(1, round(count * self.sizes.seconds / 3 / taken))
            return min(runs(count) for _ in range(3)) / count

    def rate(
        self, what: str, seconds: float, nbytes: float, flops: float = 0, *, tensor: bool = False
    ) -> Row:
        """A figure beside the roofline: GFLOP/s of work that does some, else GB/s."""
        amount, unit = (flops, "GFLOP/s") if flops else (nbytes, "GB/s")
        roof = self.roof(nbytes, flops, tensor=tensor)
        detail: dict[str, Any] = {"microseconds": rounded(1e6 * seconds)}
        if roof:
            detail["roofline"] = rounded(amount / roof / 1e9)
            detail["share"] = rounded(roof / seconds)
        return Row(what, rounded(amount / seconds / 1e9), unit, None, detail)

    def roof(self, nbytes: float, flops: float, *, tensor: bool) -> float | None:
        """Least seconds by the data sheet; else by the bandwidth measured; None without either."""
        if self.peaks:
            return self.peaks.seconds(nbytes, flops, tensor=tensor)
        return nbytes / self.bandwidth if self.bandwidth else None


@contextlib.contextmanager
def bound(
    device: Device, outputs: Mapping[str, Node]
) -> Iterator[tuple[Executable, dict[str, Buffer]]]:
    """A compiled graph with buffers of random contents, run twice."""
    graph = Graph.build(outputs)
    executable = device.compile(Partition(graph))
    bindings = {f"output:{name}": _buffer(device, node.type) for name, node in graph.outputs}
    sources: dict[TensorType, Buffer] = {}
    for leaf in (node for node in graph.nodes if node.is_leaf):
        bindings[leaf.name] = _buffer(device, leaf.type)
        if leaf.type in sources:
            bindings[leaf.name].copy_from(sources[leaf.type])
        else:
            sources[leaf.type] = bindings[leaf.name]
            bindings[leaf.name].write(0, _contents(leaf.type).data)
    try:
        for _ in range(2):
            executable.run(bindings)
        yield executable, bindings
    finally:
        executable.free()
        for buffer in bindings.values():
            buffer.free()


def _buffer(device: Device, of: TensorType) -> Buffer:
    return device.buffers.allocate(of.nbytes)


def _contents(of: TensorType) -> np.ndarray[Any, Any]:
    """Bytes of which none makes an infinite or a denormal float; of integers, zeros."""
    if of.dtype.kind.value == "int":
        return np.zeros(of.nbytes, np.uint8)
    piece = np.random.default_rng(0).integers(16, 60, 1 << 20, np.uint8)
    return np.resize(piece, of.nbytes)


def best(action: Callable[[], Any], times: int) -> float:
    """Seconds of the fastest of some calls."""
    taken: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return min(taken)


Sections = Mapping[str, Callable[[Bench], Sequence[Row]]]
