"""Tokens per second of a GPU backend beside those of the CPU's; prints one JSON object.

    python benchmarks/gpu_decode.py [--device opencl:0] [--model FILE] [--rounds 5]

Both have the model loaded and take turns; ratios are medians of the rounds'. On PoCL the device is
the same processor, which shows what the shared kernels lose on a device that is no GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import psutil
from demo import demo_model
from figures import rounded
from machine import commit
from programs import Hotplug, Work, decode, prefill, take_turns

from hotplug.settings import settings

WORK: dict[str, Work] = {
    "decode, 32 tokens": decode(32),
    "decode, 16 tokens behind 512": decode(16, 512),
    "prompt of 8 tokens": prefill(8),
    "prompt of 128 tokens": prefill(128),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="opencl:0")
    parser.add_argument("--model", type=Path, help="a GGUF file (the demo model)")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    path = options.model or demo_model()
    threads = settings().threads or psutil.cpu_count(False) or 1
    programs = [Hotplug(path, threads, 1024, device=name) for name in (options.device, "cpu")]
    info = programs[0].model.devices[0]
    result = {
        "benchmark": "gpu_decode",
        "commit": commit(),
        "model": path.name,
        "device": f"{options.device} {info.name} ({info.driver})",
        "cpu threads": threads,
        "rounds": options.rounds,
        "tokens per second": {
            name: measure(programs, work, options.rounds) for name, work in WORK.items()
        },
    }
    for program in programs:
        program.close()
    print(json.dumps(result))


def measure(programs: list[Hotplug], work: Work, rounds: int) -> dict[str, Any]:
    """Medians of both programs and of their ratio."""

    def action(program: Hotplug) -> Any:
        return lambda: work(program)

    rates = take_turns([action(program) for program in programs], rounds)
    device, cpu = (statistics.median(column) for column in zip(*rates, strict=True))
    ratio = statistics.median(ours / theirs for ours, theirs in rates)
    return {"device": rounded(device), "cpu": rounded(cpu), "ratio": rounded(ratio)}


if __name__ == "__main__":
    main()
