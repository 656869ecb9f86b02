"""Whether graphs are placed well: two devices of limited speed and memory, every split tried.

Two virtual devices, made of the CPU, wait until their work has taken as long as it would at imposed
bandwidths, rates and link delays (`hotplug.testing.limits`). One is four times as fast and holds
two thirds of the model, nearly. Both are measured as `hotplug calibrate` does; the planner is told
nothing else. Then one token of a 30-layer decoder is computed with the layers split equally, by
memory, as planned, and in every other way: each number of layers on either device, either of them
first, the embedding on either. Splits that a memory does not hold are left out.

Prints JSON: milliseconds of each, by a simulated clock, and by the real one with `--wall`;
`--picture FILE` draws it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from hotplug.backend import Buffer, Device, DeviceInfo, DeviceType, Executable, Partition, Stream
from hotplug.errors import PlacementError
from hotplug.graph import Graph
from hotplug.placement import Link, Rates, calibrate, store_rates
from hotplug.session import Session
from hotplug.tensor import HostTensor
from hotplug.testing.graphs import DecoderShape, decoder
from hotplug.testing.limits import Clock, LimitedDevice, SimulatedClock, WallClock
from hotplug.testing.reference import ReferenceDevice

LINK = Link(5e-5, 2e9)
FAST = Rates(4e11, 8e9, LINK, LINK, launch=1e-4, step=2e-6, gemv={"q4_1": 6e9})
SLOW = Rates(1e11, 2e9, LINK, LINK, launch=1e-4, step=2e-6, gemv={"q4_1": 1.5e9})
SHARE = 0.65
ROUNDS = 3


class Idle(ReferenceDevice):
    """Computes nothing, at once: what is simulated needs no results."""

    def compile(self, partition: Partition) -> Executable:  # noqa: ARG002 - the contract's
        return _Nothing()


class _Nothing(Executable):
    def run(self, bindings: Mapping[str, Buffer], stream: Stream | None = None) -> None:
        pass


@dataclass
class Bench:
    """Two devices and a graph."""

    clock: Clock
    fast: LimitedDevice
    slow: LimitedDevice
    graph: Graph
    weights: dict[str, HostTensor]

    def milliseconds(self, **asked: Any) -> float | None:
        """Of one token, placed as asked; None where that does not fit."""
        try:
            with Session(
                [self.fast, self.slow], self.weights, fallback="error", **asked
            ) as session:
                program = session.compile(self.graph)
                inputs = {
                    name: np.zeros(node.shape, np.int32) for name, node in self.graph.inputs.items()
                }
                program.run(inputs)
                taken = []
                for _ in range(ROUNDS):
                    began = self.clock()
                    program.run(inputs)
                    taken.append(self.clock() - began)
        except PlacementError:
            return None
        return 1e3 * statistics.median(taken)

    def splits(self) -> Iterator[tuple[str, int, dict[str, str]]]:
        """What is first, how many layers are on the fast device, and the pins that make it so."""
        layers = len(self.graph.states) // 2
        for first in ("fast:0", "slow:0"):
            for count in range(layers + 1):
                ahead = range(count) if first == "fast:0" else range(layers - count, layers)
                names = "|".join(map(str, ahead))
                for home in ("fast:0", "slow:0"):
                    pins = {"^embedding$|^norm$": home}
                    if count:
                        pins[rf"^(({names})\.|[kv]({names})$)"] = "fast:0"
                    if count < layers:
                        pins[r"^(\d+\.|[kv]\d)"] = "slow:0"
                    yield first, count, pins


def bench(shape: DecoderShape, clock: Clock, inner: Device) -> Bench:
    graph = decoder(shape)
    whole = sum(node.type.nbytes for node in graph.nodes if node.op in {"weight", "state"})
    spare = 1 << 20  # for values that cross and are computed with
    fast = LimitedDevice("fast:0", inner, FAST, clock, memory_bytes=int(SHARE * whole) + spare)
    slow = LimitedDevice("slow:0", inner, SLOW, clock, memory_bytes=2 * whole)
    weights = {
        name: HostTensor(node.type, np.full(node.type.nbytes, 0x3C, np.uint8))
        for name, node in graph.weights.items()
    }
    return Bench(clock, fast, slow, graph, weights)


def measured(clock: Clock, inner: Device) -> None:
    """Calibrate devices of the same rates that have all the memory they want."""
    for name, limits in (("fast:0", FAST), ("slow:0", SLOW)):
        device = LimitedDevice(name, inner, limits, clock)
        found = calibrate(device, seconds=2.0, weights=("q4_1",), clock=clock)
        store_rates(device.info, found)


def report(made: Bench) -> dict[str, Any]:
    memory = [float(device.memory().total or 0) for device in (made.fast, made.slow)]
    tried: list[dict[str, Any]] = [
        {"first": first, "layers_on_fast": count, "embedding": pins["^embedding$|^norm$"], "ms": ms}
        for first, count, pins in made.splits()
        if (ms := made.milliseconds(pins=pins)) is not None
    ]
    best = min(tried, key=lambda row: row["ms"])
    with Session([made.fast, made.slow], made.weights) as session:
        plan = session.plan(made.graph)
    planned = made.milliseconds()
    equal = made.milliseconds(split=(1, 1))
    by_memory = made.milliseconds(split=memory)
    assert planned is not None
    return {
        "planned_ms": planned,
        "expected_ms": 1e3 * plan.seconds,
        "equal_ms": equal,
        "by_memory_ms": by_memory,
        "best_of_all_splits": best,
        "planned_over_best": planned / best["ms"],
        "equal_over_planned": equal and equal / planned,
        "by_memory_over_planned": by_memory and by_memory / planned,
        "layers_on_fast_planned": sum(
            plan.choices[state].device == "fast:0"
            for name, state in made.graph.states.items()
            if re.fullmatch(r"k\d+", name)
        ),
        "splits": tried,
    }


def picture(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Milliseconds over layers on the fast device, for the better order of each split."""
    width, height, left, top, bottom = 740, 400, 70, 60, 60
    rows = [row for each in found.values() for row in each["splits"]]
    most = max(row["ms"] for row in rows) * 1.08
    layers = max(row["layers_on_fast"] for row in rows)

    def place(x: float, y: float) -> tuple[float, float]:
        across = left + (width - left - 170) * x / layers
        return across, height - bottom - (height - top - bottom) * y / most

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">',
        '<g font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        _text(left, 26, "One token over two devices, by number of layers on the fast one", 15),
    ]
    for tick in range(0, int(most) + 1, max(1, int(most / 5) // 5 * 5 or 1)):
        _, y = place(0, tick)
        parts.append(f'<path d="M{left} {y:.1f} H{width - 190}" stroke="#dddddd"/>')
        parts.append(_text(left - 8, y + 4, f"{tick}", anchor="end"))
    for tick in range(0, layers + 1, 5):
        x, y = place(tick, 0)
        parts.append(_text(x, y + 18, f"{tick}", anchor="middle"))
    parts.append(_text(left, height - 18, "layers on the fast device"))
    parts.append(_text(left - 60, 46, "ms a token"))
    colours = ("#0072B2", "#D55E00")
    for number, (clock, each) in enumerate(found.items()):
        colour = colours[number]
        best: dict[int, float] = {}
        for row in each["splits"]:
            count = row["layers_on_fast"]
            best[count] = min(row["ms"], best.get(count, row["ms"]))
        points = [place(count, ms) for count, ms in sorted(best.items())]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        y = height - bottom - 14 - 18 * number
        parts.append(f'<path d="M{left + 14} {y} h24" stroke="{colour}" stroke-width="2"/>')
        label = f"best split with so many layers there, {clock} clock"
        parts.append(_text(left + 46, y + 4, label))
    each = next(iter(found.values()))
    levels = {"planned": "as planned", "equal": "equal shares", "by_memory": "shares by memory"}
    for name, label in levels.items():
        ms = each[f"{name}_ms"]
        if ms is not None:
            _, y = place(0, ms)
            dash = "" if name == "planned" else ' stroke-dasharray="5 4"'
            parts.append(f'<path d="M{left} {y:.1f} H{width - 190}" stroke="#0072B2"{dash}/>')
            parts.append(_text(width - 184, y + 4, f"{label}: {ms:.1f} ms", fill="#0072B2"))
    return "\n".join([*parts, "</g>", "</svg>\n"])


def _text(
    x: float, y: float, text: str, size: int = 12, *, anchor: str = "start", fill: str = "#222222"
) -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}"'
    return f"<text {where}>{escape(text)}</text>"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wall", action="store_true", help="by the real clock too")
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args(argv)
    found = {"simulated": simulated()}
    if arguments.wall:
        from hotplug.registry import default

        with default().open(default().select("cpu").devices[0], "benchmark") as handle:
            found["real"] = _found(WallClock(), handle.device)
    if arguments.picture:
        arguments.picture.write_text(picture(found), encoding="utf-8")
    print(json.dumps(found, indent=2))


def simulated() -> dict[str, Any]:
    """All splits by the simulated clock."""
    info = DeviceInfo("inner", 0, "Inner", DeviceType.CPU)
    return _found(SimulatedClock(), Idle(info))


def _found(clock: Clock, inner: Device) -> dict[str, Any]:
    made = bench(DecoderShape(), clock, inner)
    before = os.environ.get("HOTPLUG_CACHE_DIR")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HOTPLUG_CACHE_DIR"] = folder
        try:
            measured(clock, inner)
            return report(made)
        finally:
            del os.environ["HOTPLUG_CACHE_DIR"]
            if before is not None:
                os.environ["HOTPLUG_CACHE_DIR"] = before


if __name__ == "__main__":
    main()
