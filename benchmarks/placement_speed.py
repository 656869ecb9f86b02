"""What placing costs, a decoder's graph of 1,029 nodes on four devices; and a run, for each part.

Times of `place` alone, everything in it (rules of the graph, support queries, cost, search, split):
with memory enough, with budgets that bind on one device and on three, where the order of the
devices decides; and on 65 devices, of which 64 have room for two layers. The graph is a new one
each time, so that nothing is known of it. Then microseconds of Python that each further part of a
plan costs in a run, on devices that do nothing: the same chain of products in one part and in many.

Prints JSON; milliseconds and microseconds are medians, and `gap` is how far from the best an
assignment may be at most.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from hotplug.backend import Buffer, DeviceInfo, DeviceType, Executable, Partition, Stream
from hotplug.graph import Graph
from hotplug.placement import Link, Plan, Rates, place
from hotplug.session import Session
from hotplug.tensor import HostTensor
from hotplug.testing.graphs import decoder, layers
from hotplug.testing.reference import ReferenceDevice
from hotplug.verify import verify

LINK = Link(2e-5, 1e10)
SPEEDS = {
    "a:0": Rates(1e13, 4e11, LINK, LINK, 2e-5, 3e-6),
    "b:0": Rates(1e13, 4e11, LINK, LINK, 2e-5, 3e-6),
    "c:0": Rates(5e12, 2e11, LINK, LINK, 2e-5, 3e-6),
    "cpu:0": Rates(1e11, 2e10, launch=1e-5, step=1e-6),
}
MB = 1_000_000
BUDGETS: dict[str, dict[str, int | None]] = {
    "enough_memory": {},
    "one_budget_binds": {"a:0": 40 * MB, "b:0": 0, "c:0": 0},
    "three_budgets_bind": {"a:0": 20 * MB, "b:0": 20 * MB, "c:0": 20 * MB},
}
ROUNDS, MANY = 15, 64

T = TypeVar("T")


class Nothing(Executable):
    def run(self, bindings: Mapping[str, Buffer], stream: Stream | None = None) -> None:
        pass


class NullDevice(ReferenceDevice):
    def compile(self, partition: Partition) -> Executable:  # noqa: ARG002 - the contract's
        return Nothing()


def device(name: str) -> NullDevice:
    backend, _, index = name.partition(":")
    kind = DeviceType.CPU if backend == "cpu" else DeviceType.GPU
    return NullDevice(DeviceInfo(backend, int(index), name, kind))


def median_ms(work: Callable[[], Any], rounds: int = ROUNDS) -> float:
    return median_of(lambda _: work(), [None] * rounds)


def median_of(work: Callable[[T], Any], given: Sequence[T]) -> float:
    """Milliseconds of work on each of some things."""
    taken = []
    for each in given:
        began = time.perf_counter()
        work(each)
        taken.append(time.perf_counter() - began)
    return 1e3 * statistics.median(taken)


def fresh(graph: Graph, count: int = ROUNDS) -> list[Graph]:
    """The same graph, about which nothing has been found out yet."""
    return [Graph.build(dict(graph.outputs), dict(graph.updates)) for _ in range(count)]


def placing(graph: Graph) -> dict[str, Any]:
    devices = [device(name) for name in SPEEDS]
    found: dict[str, Any] = {"verify_ms": median_of(verify, fresh(graph))}
    for name, budgets in BUDGETS.items():
        found[name] = placed(graph, devices, SPEEDS, budgets)
    found["order_decides"] = placed(graph, devices, None, {"a:0": 40 * MB, "b:0": 30 * MB})
    return found | {"many_devices": placed(graph, *many(), rounds=3)}


def placed(
    graph: Graph,
    devices: Sequence[NullDevice],
    speeds: Mapping[str, Rates] | None,
    budgets: Mapping[str, int | None],
    rounds: int = ROUNDS,
) -> dict[str, Any]:
    """How long it takes to place a graph, and what comes out."""

    def work(graph: Graph) -> Plan:
        return place(graph, devices, speeds=speeds, budgets=budgets)

    plan = work(graph)
    return {
        "ms": median_of(work, fresh(graph, rounds)),
        "parts": len(plan.parts),
        "devices": len(plan.devices),
        "gap": plan.stats.gap,
        "expected_ms": 1e3 * plan.seconds,
    }


def many() -> tuple[list[NullDevice], dict[str, Rates], dict[str, int | None]]:
    """Devices that are small, their speeds and budgets; and the processor."""
    small = [f"a:{number}" for number in range(MANY)]
    speeds = {**dict.fromkeys(small, SPEEDS["a:0"]), "cpu:0": SPEEDS["cpu:0"]}
    return [device(name) for name in speeds], speeds, dict.fromkeys(small, 6 * MB)


def run_us(count: int, split: bool) -> tuple[int, float]:
    """Parts, and microseconds of a run, of a chain that is in one part or in as many as layers."""
    graph = layers(count, 8)
    weights = {
        name: HostTensor(node.type, np.zeros(node.type.nbytes, np.uint8))
        for name, node in graph.weights.items()
    }
    pins = {rf"^blk\.\d*{odd}\.": name for odd, name in (("[13579]", "b:0"), ("[02468]", "a:0"))}
    inputs = {"x": np.zeros((1, 8), np.float32)}
    devices = [device("a:0"), device("b:0")]
    with Session(devices, weights, pins=pins if split else None) as session:
        program = session.compile(graph)
        taken = median_ms(lambda: program.run(inputs), 2000)
        return len(program.plan.parts), 1e3 * taken


def report() -> dict[str, Any]:
    """All of it."""
    graph = decoder()
    whole_parts, whole = run_us(40, split=False)
    split_parts, split = run_us(40, split=True)
    return {
        "nodes": len(graph.nodes),
        "devices": len(SPEEDS),
        **placing(graph),
        "run_us": {str(whole_parts): whole, str(split_parts): split},
        "us_per_part": (split - whole) / (split_parts - whole_parts),
    }


if __name__ == "__main__":
    print(json.dumps(report(), indent=2))
