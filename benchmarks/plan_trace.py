"""Times of a model's plan by kernel, beside what the machine could do; see trace.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from compiled import Reader, fastest, row
from figures import rounded
from work import Roof, Work, work_of

from hotplug.backend import Buffer, Device, Partition
from hotplug.formats.gguf import GGUFFile
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.session import Session
from hotplug_cpu import threads as teams
from hotplug_cpu.plan import PlanExecutable
from hotplug_cpu.trace import StepTime
from hotplug_llm.architectures import read_hyperparameters
from hotplug_llm.decoder import Decoder

__all__ = ["limits", "measure_roof", "table", "trace_model"]

_STEPS, _TIMES = 8, 20_000  # about 10 ms
_MEMORY = 256 << 20
_TURNS = 15


def measure_roof(threads: int) -> Roof:
    """The machine's limits, each the best of a few turns of a kernel made for that."""
    reader = Reader(threads, _MEMORY)
    (seconds,) = fastest([reader.read], _TURNS)
    peaks = [peak(name, lanes, threads) for name, lanes in (("peak_f32", 8), ("peak_i8", 32))]
    return Roof(reader.nbytes / seconds, *peaks)


def peak(name: str, lanes: int, threads: int) -> float:
    """Operations per second of multiplying and adding in registers."""
    x: np.ndarray = np.ones(_STEPS * 7 * lanes, np.float32 if lanes == 8 else np.uint8)
    out = np.zeros(8 * threads, np.float32)
    words = np.array([row(name, x=x, steps=_STEPS, times=_TIMES, out=out)], np.int64)
    (seconds,) = fastest([lambda: teams.team(threads).run(words)], _TURNS)
    return 2 * 12 * lanes * _STEPS * _TIMES * threads / seconds


def trace_model(
    path: Path, tokens: int, start: int, threads: int, runs: int, roof: Roof
) -> dict[str, Any]:
    """Times by kernel of one batch, of `tokens` tokens behind `start` others, ready for JSON."""
    with bound_graph(path, tokens, start, threads) as (executable, bindings):
        executable.run(bindings)
        traced = executable.trace(runs)
    groups: dict[str, list[StepTime]] = {}
    for step in traced.steps:
        groups.setdefault(label(step), []).append(step)
    rows = [summary(name, steps, start, roof) for name, steps in groups.items()]
    rows.sort(key=lambda line: -line["ms"])
    waiting = sum(step.waiting for step in traced.steps)
    return {
        "tokens": tokens,
        "start": start,
        "ms": rounded(1e3 * traced.seconds),
        "kernels": rows,
        "waiting, ms": rounded(1e3 * waiting),
        "roof, ms": rounded(sum(line["roof, ms"] for line in rows)),
    }


@contextmanager
def bound_graph(
    path: Path, tokens: int, start: int, threads: int
) -> Iterator[tuple[PlanExecutable, Mapping[str, Buffer]]]:
    """A model's graph, compiled, and buffers for it; the cache holds zeros, which cost the same."""
    with GGUFFile.open(path) as file, Session("cpu") as session:
        types = {name: info.type for name, info in file.tensors.items()}
        decoder = Decoder(read_hyperparameters(file.fields()), types, context=start + tokens)
        graph = decoder.graph(tokens)
        (device,) = session.devices[:1]
        executable = device.compile(Partition(graph, threads=threads))
        assert isinstance(executable, PlanExecutable), "there are no compiled kernels"
        inputs = {
            "tokens": np.arange(100, 100 + tokens),
            "positions": np.arange(start, start + tokens),
            "outputs": np.array([tokens - 1]),
        }
        yield executable, buffers(graph, device, file, inputs)
        executable.free()


def buffers(
    graph: Graph, device: Device, file: GGUFFile, inputs: Mapping[str, np.ndarray]
) -> dict[str, Buffer]:
    """Weights as they lie in the file, inputs, and zeros for the rest."""
    found: dict[str, Buffer] = {}
    for node in (*graph.weights.values(), *graph.inputs.values(), *graph.states.values()):
        found[node.name] = leaf(node, device, file, inputs)
    for name, node in graph.outputs:
        found[f"output:{name}"] = device.buffers.allocate(node.type.nbytes)
    return found


def leaf(node: Node, device: Device, file: GGUFFile, inputs: Mapping[str, np.ndarray]) -> Buffer:
    if node.name in file.tensors:
        wrapped = device.buffers.wrap(file.tensor(node.name).data.data)
        assert wrapped is not None
        return wrapped
    buffer = device.buffers.allocate(node.type.nbytes)
    if node.name in inputs:
        buffer.write(0, inputs[node.name].astype(np.int32).data)
    else:
        # Written, since all pages that were not are one page of zeros, which no memory is read for.
        buffer.write(0, memoryview(bytes(node.type.nbytes)))
    return buffer


def label(step: StepTime) -> str:
    """The kernel, and of products which of a layer's."""
    for node in step.step.nodes:
        if node.op == "matmul":
            assert node.inputs[1] is not None
            role = node.inputs[1].name.removesuffix(".weight").rpartition(".")[2]
            return f"{step.step.kernel} {role}"
    return step.step.kernel


def summary(name: str, steps: Sequence[StepTime], start: int, roof: Roof) -> dict[str, Any]:
    """What rows of one kind took, and could have taken."""
    works = [work_of(item.step.kernel, item.step.nodes, start) for item in steps]
    total = sum(works, Work(0, 0))
    seconds = sum(item.seconds for item in steps)
    least = sum(map(roof.seconds, works))
    return {
        "kernel": name,
        "rows": len(steps),
        "ms": rounded(1e3 * seconds),
        "MB": rounded(total.nbytes / 1e6),
        "Mop": rounded(total.operations / 1e6),
        "on": total.on,
        "GB/s": rounded(total.nbytes / seconds / 1e9),
        "GOP/s": rounded(total.operations / seconds / 1e9),
        "roof, ms": rounded(1e3 * least),
        "share": rounded(least / seconds),
    }


_COLUMNS = ("kernel", "rows", "ms", "of all", "MB", "Mop", "GB/s", "GOP/s", "roof, ms", "share")


def table(traced: Mapping[str, Any], *, markdown: bool = False) -> str:
    """A trace as a table, for a terminal or as Markdown."""
    whole = sum(line["ms"] for line in traced["kernels"]) + traced["waiting, ms"]
    lines = [{**line, "of all": f"{line['ms'] / whole:.1%}"} for line in traced["kernels"]]
    waiting = {"kernel": "waiting", "ms": traced["waiting, ms"]}
    lines.append({**waiting, "of all": f"{traced['waiting, ms'] / whole:.1%}"})
    share = {"share": rounded(traced["roof, ms"] / whole), "roof, ms": traced["roof, ms"]}
    lines.append({"kernel": "all", "ms": rounded(whole), "of all": "100%", **share})
    cells = [[str(line.get(name) or "") for name in _COLUMNS] for line in lines]
    if markdown:
        rules = ["---", *["---:"] * (len(_COLUMNS) - 1)]
        return "\n".join(f"| {' | '.join(line)} |" for line in [_COLUMNS, rules, *cells])
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *cells, strict=True)]
    shown = []
    for first, *rest in [list(_COLUMNS), *cells]:
        numbers = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        shown.append("  ".join([first.ljust(widths[0]), *numbers]))
    return "\n".join(shown)


def limits(roof: Roof) -> dict[str, float]:
    """The limits, in thousand millions a second."""
    return {
        "GB/s": rounded(roof.bandwidth / 1e9),
        "f32 GFLOP/s": rounded(roof.peak_f32 / 1e9),
        "8-bit GOP/s": rounded(roof.peak_i8 / 1e9),
    }
