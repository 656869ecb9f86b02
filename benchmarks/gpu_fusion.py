"""What fused kernels save: a decoder's step on an OpenCL device, its nodes fused and one by one.

The graph is of SmolLM2-135M's shape, all weights zero. Both forms run by turns. Prints JSON:
launches, bytes of the arena, and medians of a step's milliseconds.

    python benchmarks/gpu_fusion.py [--tokens 1,64] [--turns 40]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping
from typing import Any

from hotplug.backend import Buffer, Partition
from hotplug.gpu.device import GPUDevice
from hotplug.gpu.executable import GPUExecutable
from hotplug.testing.graphs import DecoderShape, decoder
from hotplug_opencl import backend


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tokens", default="1,64")
    parser.add_argument("--turns", type=int, default=40)
    options = parser.parse_args()
    with backend.open(backend.probe()[0]) as device:
        assert isinstance(device, GPUDevice)
        found = [measured(device, int(n), options.turns) for n in options.tokens.split(",")]
        print(json.dumps({"device": device.info.name, "steps": found}, indent=2))


def measured(device: GPUDevice, tokens: int, turns: int) -> dict[str, Any]:
    work = Partition(decoder(DecoderShape(tokens=tokens)))
    forms = {
        "fused": GPUExecutable(work, device.buffers, device.programs),
        "apart": GPUExecutable(work, device.buffers, device.programs, fuse=False),
    }
    bindings = {n: device.buffers.allocate(size) for n, size in forms["fused"].required.items()}
    taken: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(turns + 2):
        for name, executable in forms.items():
            seconds = run(executable, bindings)
            if turn >= 2:
                taken[name].append(seconds)
    result: dict[str, Any] = {"tokens": tokens}
    for name, executable in forms.items():
        result[name] = {
            "launches": len(executable.explain()),
            "arena_bytes": executable.arena_bytes,
            "ms": round(1e3 * statistics.median(taken[name]), 3),
        }
        executable.free()
    for buffer in bindings.values():
        buffer.free()
    result["ratio"] = round(result["apart"]["ms"] / result["fused"]["ms"], 3)
    return result


def run(executable: GPUExecutable, bindings: Mapping[str, Buffer]) -> float:
    began = time.perf_counter()
    executable.run(bindings)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
