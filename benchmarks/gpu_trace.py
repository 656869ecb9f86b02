"""Where the time of a decode step goes on a GPU backend's device, by kernel; prints a table.

    python benchmarks/gpu_trace.py [--model FILE] [--device opencl:0] [--depth 64] [--tokens 1]
        [--runs 20] [--json]

Each launch is timed on the device, by OpenCL's profiling events. What a row says is the median over
the runs of the sum over a kernel's launches. `step` is a step as it always runs, by the host's
clock; beyond the kernels it holds the time between them, and the results' way to the host. Then a
processor does small launches together (docs/kernels.md, Series), for which it takes less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from demo import demo_model

from hotplug.formats.gguf import GGUFFile
from hotplug.session import Program, Session, StepTime
from hotplug_llm.architectures import read_hyperparameters
from hotplug_llm.decoder import Decoder


def main() -> None:
    options = arguments()
    with GGUFFile.open(options.model) as file, opened(file, options.device) as session:
        types = {name: info.type for name, info in file.tensors.items()}
        shape = read_hyperparameters(file.fields())
        decoder = Decoder(shape, types, context=options.depth + options.tokens)
        program = session.compile(decoder.graph(options.tokens))
        inputs = {
            "tokens": np.full(options.tokens, 1, np.int32),
            "positions": np.arange(options.depth, options.depth + options.tokens, dtype=np.int32),
            "outputs": np.array([options.tokens - 1], np.int32),
        }
        program.run(inputs)
        steps = [seconds(program, inputs) for _ in range(options.runs)]
        profiles = [program.profile(inputs) for _ in range(options.runs + 2)][2:]
        device = session.devices[0].info.name
    found = {
        "device": device,
        "tokens": options.tokens,
        "depth": options.depth,
        "step_ms": round(1e3 * statistics.median(steps), 3),
        "kernels_ms": round(1e3 * statistics.median(map(total, profiles)), 3),
        "kernels": by_kernel(profiles),
    }
    print(json.dumps(found, indent=2) if options.json else table(found))


def opened(file: GGUFFile, device: str) -> Session:
    return Session(device, {name: file.tensor(name) for name in file.tensors})


def seconds(program: Program, inputs: dict[str, Any]) -> float:
    began = time.perf_counter()
    program.run(inputs)
    return time.perf_counter() - began


def total(profile: list[StepTime]) -> float:
    return sum(step.seconds for step in profile)


def by_kernel(profiles: list[list[StepTime]]) -> list[dict[str, Any]]:
    """Launches and milliseconds of each kernel and operation, the longest first."""
    sums: dict[str, list[float]] = defaultdict(list)
    counts: dict[str, int] = {}
    for profile in profiles:
        taken: dict[str, float] = defaultdict(float)
        counts = defaultdict(int)
        for step in profile:
            taken[kind(step.step)] += step.seconds
            counts[kind(step.step)] += 1
        for name, value in taken.items():
            sums[name].append(value)
    whole = statistics.median(map(total, profiles))
    rows = [
        {
            "kernel": name,
            "launches": counts[name],
            "ms": round(1e3 * statistics.median(values), 3),
            "us_each": round(1e6 * statistics.median(values) / counts[name], 1),
            "share": round(statistics.median(values) / whole, 3),
        }
        for name, values in sums.items()
    ]
    return sorted(rows, key=lambda row: -float(row["ms"]))


def kind(step: str) -> str:
    """A line of `explain` without what tells one launch from another: keys of nodes, geometry."""
    kernel, _, rest = step.partition(" on ")
    nodes = [node.partition("#")[0] for node in rest.partition(": ")[2].split(" + ")]
    return f"{kernel}: {' + '.join(nodes)}"


def table(found: dict[str, Any]) -> str:
    head = (
        f"{found['device']}: {found['tokens']} tokens behind {found['depth']} others: "
        f"{found['step_ms']} ms, kernels alone {found['kernels_ms']} ms"
    )
    rows = [f"{'ms':>9} {'share':>6} {'launches':>8} {'us each':>8}  kernel"]
    rows += [
        f"{row['ms']:9.3f} {row['share']:6.1%} {row['launches']:8} {row['us_each']:8}  "
        f"{row['kernel']}"
        for row in found["kernels"]
    ]
    return "\n".join([head, *rows])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--device", default="opencl:0")
    parser.add_argument("--tokens", type=int, default=1)
    parser.add_argument("--depth", type=int, default=64, help="tokens before these")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.model = options.model or demo_model()
    return options


if __name__ == "__main__":
    main()
