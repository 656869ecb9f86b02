"""What planning and running cost beside the work, here and in ggml's scheduler; prints JSON.

    python benchmarks/scheduler_overhead.py [--peers FOLDER] [--rounds 20]

Both compute the same chain of 1000 additions of 16 numbers on one thread of the processor, so that
work takes next to nothing, and take turns. `plan_us` is what it takes to plan the chain anew
(ggml_backend_sched_alloc_graph; hotplug.placement.place), `run_us` to run it as planned
(ggml_backend_sched_graph_compute; Session.run, inputs and result copied), per node. Medians.

`run_split_us` is what one more part costs when the chain goes to and fro between two devices, 100
times, and `handoff_us` what it costs besides where devices may work at the same time; here these
are the processor twice. ggml offers nothing to compare with: given the processor twice, its
scheduler moves all nodes to the first, pins or not, and makes one split, which `ggml_splits` shows.
ggml is that of `make bench-peers`.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hotplug import ops
from hotplug.backend import Device
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.placement import Wishes, place
from hotplug.session import Mode, Session
from hotplug.tensor import HostTensor
from hotplug_cpu import backend

NODES, NUMBERS, PIECES = 1000, 16, 100
PEERS = Path(__file__).parents[1] / ".venv-peers"


class InitParams(ctypes.Structure):
    _fields_ = (
        ("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool),
    )  # fmt: skip


class Ggml:
    """The chain in ggml, by way of its scheduler.

    Args:
        folder: where its libraries are.
        backends: how many times the processor is given to it.
    """

    def __init__(self, folder: Path, backends: int = 1) -> None:
        self._base = ctypes.CDLL(str(folder / "libggml-base.so"), mode=ctypes.RTLD_GLOBAL)
        cpu = ctypes.CDLL(str(folder / "libggml-cpu.so"), mode=ctypes.RTLD_GLOBAL)
        init = _function(cpu, "ggml_backend_cpu_init", ctypes.c_void_p)
        set_threads = _function(cpu, "ggml_backend_cpu_set_n_threads", None, _P, ctypes.c_int)
        self._backends = (ctypes.c_void_p * backends)(*[init() for _ in range(backends)])
        for each in self._backends:
            set_threads(each, 1)
        self._sched = _function(
            self._base, "ggml_backend_sched_new", _P, _P, _P, ctypes.c_int, ctypes.c_size_t,
            ctypes.c_bool, ctypes.c_bool,
        )(self._backends, None, backends, 4 * NODES, False, False)  # fmt: skip
        self._reset = _function(self._base, "ggml_backend_sched_reset", None, _P)
        self._alloc = _function(self._base, "ggml_backend_sched_alloc_graph", ctypes.c_bool, _P, _P)
        self._compute = _function(
            self._base, "ggml_backend_sched_graph_compute", ctypes.c_int, _P, _P
        )
        self._pin = _function(self._base, "ggml_backend_sched_set_tensor_backend", None, _P, _P, _P)
        self._build()

    def _build(self) -> None:
        base = self._base
        init = _function(base, "ggml_init", _P, InitParams)
        self._context = init(InitParams(16 << 20, None, True))
        new = _function(base, "ggml_new_tensor_1d", _P, _P, ctypes.c_int, ctypes.c_int64)
        add = _function(base, "ggml_add", _P, _P, _P, _P)
        mark = _function(base, "ggml_set_input", None, _P)
        self._x, y = (new(self._context, 0, NUMBERS) for _ in range(2))
        self._y = y
        mark(self._x)
        mark(y)
        self._nodes = [add(self._context, self._x, y)]
        while len(self._nodes) < NODES:
            self._nodes.append(add(self._context, self._nodes[-1], y))
        graph = _function(base, "ggml_new_graph_custom", _P, _P, ctypes.c_size_t, ctypes.c_bool)
        self._graph = graph(self._context, 4 * NODES, False)
        _function(base, "ggml_set_output", None, _P)(self._nodes[-1])
        _function(base, "ggml_build_forward_expand", None, _P, _P)(self._graph, self._nodes[-1])

    def plan(self) -> None:
        """Plan, pins included where there are two devices, and find memory."""
        self._reset(self._sched)
        if len(self._backends) > 1:
            for number, node in enumerate(self._nodes):
                at = number * PIECES // NODES % len(self._backends)
                self._pin(self._sched, node, self._backends[at])
        if not self._alloc(self._sched, self._graph):
            raise RuntimeError("ggml could not place the graph")

    def splits(self) -> int:
        splits = _function(self._base, "ggml_backend_sched_get_n_splits", ctypes.c_int, _P)
        return int(splits(self._sched))

    def run(self) -> np.ndarray:
        """Inputs in, the chain, the result out."""
        put = _function(self._base, "ggml_backend_tensor_set", None, _P, _P, *[ctypes.c_size_t] * 2)
        get = _function(self._base, "ggml_backend_tensor_get", None, _P, _P, *[ctypes.c_size_t] * 2)
        put(self._x, ONES.ctypes.data, 0, ONES.nbytes)
        put(self._y, ONES.ctypes.data, 0, ONES.nbytes)
        if self._compute(self._sched, self._graph):
            raise RuntimeError("ggml did not compute the graph")
        result = np.empty_like(ONES)
        get(self._nodes[-1], result.ctypes.data, 0, result.nbytes)
        return result


ONES = np.ones(NUMBERS, np.float32)
_P = ctypes.c_void_p


def _function(library: Any, name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(library, name)
    function.restype, function.argtypes = result, arguments
    return function


def chain() -> Graph:
    """The same graph."""
    x, y = (ops.input(name=name, dtype="f32", shape=(NUMBERS,)) for name in "xy")
    nodes: list[Node] = [ops.add(x, y)]
    while len(nodes) < NODES:
        nodes.append(ops.add(nodes[-1], y))
    return Graph.build({"z": nodes[-1]})


def weighted_chain() -> Graph:
    """A chain whose pieces have weights, by which they can be pinned."""
    x = ops.input(name="x", dtype="f32", shape=(NUMBERS,))
    for number in range(NODES):
        piece = number * PIECES // NODES
        x = ops.add(x, ops.weight(name=f"{piece % 2}.{piece}", dtype="f32", shape=(NUMBERS,)))
    return Graph.build({"z": x})


def processors(count: int) -> list[Device]:
    info = backend.probe()[0]
    devices = [backend.open(info) for _ in range(count)]
    for number, device in enumerate(devices):
        device.info = replace(info, index=number)
    return devices


def seconds(work: Callable[[], object], times: int = 20) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def split_seconds() -> tuple[float, float, int]:
    """Seconds that one more part costs, and a handoff between threads; and how many parts."""
    graph = weighted_chain()
    one = HostTensor(next(iter(graph.weights.values())).type, ONES.view(np.uint8))
    weights = dict.fromkeys(graph.weights, one)
    times, parts = [], []
    apart = {r"^0\.": "cpu:0", r"^1\.": "cpu:1"}
    ways: tuple[tuple[dict[str, str], Mode], ...] = (
        ({}, "layer"), (apart, "layer"), (apart, "tensor"),
    )  # fmt: skip
    for pins, mode in ways:
        with Session(processors(2), weights, threads=1, pins=pins, mode=mode) as session:
            program = session.compile(graph)
            parts.append(len(program.plan.parts))
            np.testing.assert_array_equal(program.run({"x": ONES})["z"], ONES * (NODES + 1))
            times.append(seconds(lambda program=program: program.run({"x": ONES}), 200))  # type: ignore[misc]
    split = (times[1] - times[0]) / (parts[1] - parts[0])
    return split, (times[2] - times[1]) / parts[2], parts[1]


def report(peers: Path, rounds: int) -> dict[str, Any]:
    """All of it; of ggml, if its libraries are there."""
    folders = sorted(peers.glob("lib/python3*/site-packages/llama_cpp/lib"))
    graph, inputs = chain(), {"x": ONES, "y": ONES}
    devices = processors(1)
    taken: dict[str, list[float]] = {}
    found: dict[str, Any] = {"nodes": NODES, "numbers_a_node": NUMBERS}
    with Session(devices, threads=1) as session:
        program = session.compile(graph)
        works: dict[str, Callable[[], object]] = {
            "hotplug_plan_us": lambda: place(graph, devices, wishes=Wishes()),
            "hotplug_run_us": lambda: program.run(inputs),
        }
        np.testing.assert_array_equal(program.run(inputs)["z"], ONES * (NODES + 1))
        if folders:
            ggml, twice = Ggml(folders[-1]), Ggml(folders[-1], 2)
            ggml.plan()
            np.testing.assert_array_equal(ggml.run(), ONES * (NODES + 1))
            works |= {"ggml_plan_us": ggml.plan, "ggml_run_us": ggml.run}
            twice.plan()
            found["ggml_splits"] = twice.splits()
        for _ in range(rounds):
            for name, work in works.items():
                taken.setdefault(name, []).append(1e6 * seconds(work, 5) / NODES)
    found |= {name: round(statistics.median(row), 4) for name, row in taken.items()}
    split, handoff, parts = split_seconds()
    found |= {"hotplug_parts": parts}
    return found | {"run_split_us": round(1e6 * split, 2), "handoff_us": round(1e6 * handoff, 2)}


def main() -> None:
    options = arguments()
    print(json.dumps(report(options.peers, options.rounds), indent=2))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--peers", type=Path, default=PEERS, help="environment with llama.cpp")
    parser.add_argument("--rounds", type=int, default=20)
    return parser.parse_args()


if __name__ == "__main__":
    main()
