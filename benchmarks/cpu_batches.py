"""Milliseconds per token over the number of tokens read at once; prints one JSON object.

    python benchmarks/cpu_batches.py [--model FILE] [--threads 2] [--repeats 7] [--most 64]

Batches of a few tokens lie between two ways of multiplying: reading weights as they lie, and
unpacking them for tiles of tokens. A batch must not cost more per token than the next smaller one.
All widths take turns; figures are those of the fastest turns. `rises` lists the widths that cost
over 2% more per token than a smaller one does.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import psutil
from demo import demo_model
from programs import Hotplug

from hotplug.settings import settings

WIDTHS = (*range(1, 17), 20, 24, 28, 32, 40, 48, 56, 64, 96, 128, 192, 256, 384, 512)
NOISE = 1.02


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, help="a GGUF file (the demo model)")
    parser.add_argument(
        "--threads", type=int, default=settings().threads or psutil.cpu_count(False)
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--most", type=int, default=64)
    parser.add_argument("--precision", choices=("default", "exact"), default="default")
    options = parser.parse_args()
    path = options.model or demo_model()
    program = Hotplug(path, options.threads, 1024, options.precision)
    widths = [width for width in WIDTHS if width <= options.most]
    costs = measure(program, widths, options.repeats)
    program.close()
    smaller = [min(list(costs.values())[: index + 1]) for index in range(len(widths))]
    result = {
        "benchmark": "cpu_batches",
        "model": path.name,
        "threads": options.threads,
        "milliseconds_per_token": {width: round(cost, 3) for width, cost in costs.items()},
        "rises": [w for w, least in zip(widths, smaller, strict=True) if costs[w] > NOISE * least],
    }
    print(json.dumps(result))


def measure(program: Hotplug, widths: list[int], repeats: int) -> dict[int, float]:
    """Milliseconds per token, by width."""
    prompts = {width: [(7 * n) % 40000 + 100 for n in range(width)] for width in widths}
    best = dict.fromkeys(widths, float("inf"))
    for turn in range(repeats + 1):
        for width, ids in prompts.items():
            seconds = program.prefill(ids)
            if turn:  # the first is for warming up
                best[width] = min(best[width], 1000 * seconds / width)
    return best


if __name__ == "__main__":
    main()
