"""How modes scale from 1 to 64 devices, and how good plans are, in simulated time; prints JSON.

    python benchmarks/scaling.py                 a minute
    python benchmarks/scaling.py --write-docs    and renew docs/pictures/scaling.svg

Machines are simulated from published figures, see `hotplug.testing.hardware`; nothing here is a
measurement of a GPU. The model has the shape of Llama 3 70B, its weights q8_0. `scaling` has tokens
a second: of a prompt of 8192 tokens in micro-batches of 256 through a pipeline, of single tokens by
tensor parallelism and layer by layer. Layers being alike, tensor parallelism is simulated for 2 and
4 of them, which gives the time of 80.

`quality` compares ways to divide 8 such layers over four different cards: what hotplug does by
itself, equal parts, parts by memory (what llama.cpp does by itself), and the best of all ways to
divide them in order, each of which is simulated.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pictures import Axis, Chart

from hotplug.graph import Graph
from hotplug.testing.graphs import DecoderShape, decoder
from hotplug.testing.hardware import GPUS
from hotplug.testing.simulator import Cluster

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "scaling.svg"
COUNTS = (1, 2, 4, 8, 16, 32, 64)
TENSOR_COUNTS = COUNTS[:6]
KIND, LAYERS, PROMPT, BATCH = "H100 SXM5", 80, 8192, 256
CARDS = ("RTX 4090", "RTX 3090", "L4", "L4")
FEW_LAYERS, RUNS = 8, 8


@cache
def model(tokens: int, layers: int = LAYERS) -> Graph:
    """Llama 3 70B's shape."""
    return decoder(
        DecoderShape(
            layers=layers,
            width=8192,
            hidden=28672,
            heads=64,
            kv_heads=8,
            head=128,
            vocabulary=128256,
            context=PROMPT,
            tokens=tokens,
            weights="q8_0",
        )
    )


def scaling() -> dict[str, dict[int, float]]:
    """Mode -> number of devices -> tokens a second."""
    found: dict[str, dict[int, float]] = {"pipeline prompt": {}, "layer": {}, "tensor": {}}
    for count in COUNTS:
        cluster = Cluster.of(KIND, count)
        prompt = cluster.run(cluster.plan(model(BATCH), "pipeline"), PROMPT // BATCH)
        found["pipeline prompt"][count] = PROMPT / prompt.seconds
        plan = cluster.plan(model(1), shares=[1.0] * count)
        found["layer"][count] = 1 / cluster.run(plan).seconds
        if count in TENSOR_COUNTS:
            found["tensor"][count] = 1 / tensor_seconds(cluster)
    return found


def tensor_seconds(cluster: Cluster) -> float:
    """Seconds of a token of the whole model, from models of 2 and 4 layers."""
    two, four = (cluster.run(cluster.plan(model(1, n), "tensor")).seconds for n in (2, 4))
    return two + (four - two) / 2 * (LAYERS - 2)


def quality() -> dict[str, dict[str, float]]:
    """What is done -> way to divide it -> milliseconds, in simulated time."""
    cluster = Cluster([GPUS[name] for name in CARDS])
    memory = [float(gpu.memory) for gpu in cluster.gpus]
    found = {}
    for mode, tokens, runs in (("layer", 1, 1), ("pipeline", BATCH, RUNS)):
        graph = model(tokens, FEW_LAYERS)
        ways: dict[str, Sequence[float] | None] = {
            "hotplug": None,
            "equal": [1.0] * len(CARDS),
            "by memory": memory,
        }
        times = {
            name: cluster.run(cluster.plan(graph, mode, shares=shares), runs).seconds
            for name, shares in ways.items()
        }
        every = divisions(FEW_LAYERS, len(CARDS))
        times["best"] = min(
            cluster.run(cluster.plan(graph, mode, shares=[float(n) for n in way]), runs).seconds
            for way in every
        )
        found[mode] = {name: round(1e3 * seconds, 3) for name, seconds in times.items()}
    return found


def divisions(layers: int, devices: int) -> Iterator[tuple[int, ...]]:
    """All ways to give each device in order some of the layers."""
    if devices == 1:
        yield (layers,)
        return
    for first in range(layers + 1):
        for rest in divisions(layers - first, devices - 1):
            yield (first, *rest)


def picture(rows: dict[str, dict[int, float]]) -> str:
    """Speed over that of one device."""
    devices = Axis("devices", 1, 64, COUNTS)
    chart = Chart(
        f"Simulated {KIND}, 8 to a machine: speed over that of one",
        devices,
        Axis("times as fast as one device", 0.5, 64, (0.5, 1, 2, 4, 8, 16, 32, 64)),
    )
    chart.line([(1, 1), (64, 64)], "#888888", "ideal", marked=False, dashed=True)
    colours = {"pipeline prompt": "#1f77b4", "tensor": "#d62728", "layer": "#2ca02c"}
    labels = {
        "pipeline prompt": "prompt, pipeline",
        "tensor": "token, tensor",
        "layer": "token, layer",
    }
    for name, colour in colours.items():
        one = rows[name][1]
        chart.line([(n, rate / one) for n, rate in rows[name].items()], colour, labels[name])
    return chart.svg()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write-docs", action="store_true")
    options = parser.parse_args()
    found = report()
    if options.write_docs:
        PICTURE.write_text(picture(found["scaling"]), encoding="utf-8")
    print(json.dumps(found, indent=2))


def report() -> dict[str, Any]:
    """All of it."""
    rates = {
        name: {n: round(rate, 1) for n, rate in row.items()} for name, row in scaling().items()
    }
    return {"device": KIND, "cards": CARDS, "scaling": rates, "quality": quality()}


if __name__ == "__main__":
    main()
