"""What a session costs beside the work itself: placing a decoder's graph, and calling it.

The device here does nothing, so that all time is the core's own. Prints JSON: milliseconds of
building, verifying, placing and compiling a graph of 30 layers, microseconds of one run, and, as a
yardstick of the machine in the same run, microseconds of copying the logits alone.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hotplug.backend import Buffer, DeviceInfo, DeviceType, Executable, Partition, Stream
from hotplug.graph import Graph
from hotplug.placement import place
from hotplug.session import Session
from hotplug.tensor import HostTensor
from hotplug.testing.graphs import decoder
from hotplug.testing.reference import ReferenceDevice
from hotplug.verify import verify


class Nothing(Executable):
    def run(self, bindings: Mapping[str, Buffer], stream: Stream | None = None) -> None:
        pass


class NullDevice(ReferenceDevice):
    def compile(self, partition: Partition) -> Executable:  # noqa: ARG002 - the contract's
        return Nothing()


def null_device(index: int) -> NullDevice:
    return NullDevice(DeviceInfo("null", index, "Null", DeviceType.CPU))


def median_seconds(work: Callable[[], Any], times: int) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def weights(graph: Graph) -> dict[str, HostTensor]:
    return {
        name: HostTensor(node.type, np.zeros(node.type.nbytes, np.uint8))
        for name, node in graph.weights.items()
    }


def placed_on(graph: Graph, devices: Sequence[NullDevice]) -> float:
    budgets = {device.id: 40 << 20 for device in devices[:-1]}
    return median_seconds(lambda: place(graph, devices, budgets=budgets), 5)


def main() -> None:
    graph = decoder()
    ids = np.zeros(1, np.int32)
    inputs = dict.fromkeys(graph.inputs, ids)
    logits = np.zeros((1, 49152), np.float32)
    with Session([null_device(0)], weights(graph)) as session:
        began = time.perf_counter()
        program = session.compile(graph)
        compiled = time.perf_counter() - began
        run = median_seconds(lambda: program.run(inputs), 2000)
    copy = median_seconds(logits.copy, 2000)
    report = {
        "nodes": len(graph.nodes),
        "build_ms": 1e3 * median_seconds(decoder, 5),
        "verify_ms": 1e3 * median_seconds(lambda: verify(graph), 5),
        "place_on_one_ms": 1e3 * placed_on(graph, [null_device(0)]),
        "place_on_three_ms": 1e3 * placed_on(graph, [null_device(n) for n in range(3)]),
        "compile_ms": 1e3 * compiled,
        "run_us": 1e6 * run,
        "copying_the_logits_us": 1e6 * copy,
        "run_without_copy_us": 1e6 * (run - copy),
    }
    print(json.dumps({name: round(value, 2) for name, value in report.items()}, indent=2))


if __name__ == "__main__":
    main()
