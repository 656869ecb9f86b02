"""What several devices at work at once gain, on one machine with two cores; prints JSON.

    python benchmarks/modes.py [--rounds 5] [--tokens 512] [--only processors,opencl]

Two devices that share nothing but the memory's bandwidth: the processor twice, with one thread
each; the processor with one thread, and PoCL with one (sub-devices of PoCL would be of no use: each
runs its kernels on all cores). Each pair reads a prompt of the demo model layer by layer and as a
pipeline, layers divided by the speed that each has alone; the two processors also write tokens,
layer by layer and by pieces of products. What is compared takes turns; ratios are medians of the
rounds' own. `ideal_over_layer` is what two devices gain at most that disturb each other in nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from demo import demo_model

from hotplug.backend import Device
from hotplug.errors import BackendLoadError
from hotplug.formats.gguf import GGUFFile
from hotplug.session import Mode, Session
from hotplug_cpu import backend as cpu
from hotplug_llm.architectures import read_hyperparameters
from hotplug_llm.decoder import Decoder
from hotplug_llm.evaluation import Evaluator
from hotplug_opencl import backend as opencl

WRITTEN = 32
ONE_THREAD = {"POCL_MAX_PTHREAD_COUNT": "1", "POCL_CPU_MAX_CU_COUNT": "1"}
"""By its older and its newer name, what tells PoCL how many threads to take when it is loaded."""


def processors() -> list[Device]:
    """The processor, twice."""
    info = cpu.probe()[0]
    devices = [cpu.open(info) for _ in range(2)]
    devices[1].info = replace(info, index=1)
    return devices


def processor_and_opencl() -> list[Device]:
    """The processor, and the first OpenCL device."""
    return [processors()[0], opencl.open(opencl.probe()[0])]


PAIRS: dict[str, Callable[[], list[Device]]] = {
    "processors": processors,
    "opencl": processor_and_opencl,
}


@contextlib.contextmanager
def opened(
    file: GGUFFile, devices: Sequence[Device], mode: Mode, shares: Sequence[float] | None = None
) -> Iterator[Evaluator]:
    """The demo model over some devices, of one thread each; of layers each has its share."""
    types = {name: info.type for name, info in file.tensors.items()}
    shape = read_hyperparameters(file.fields())
    pins = None if shares is None else divided(shape.layers, [d.id for d in devices], shares)
    tensors = {name: file.tensor(name) for name in file.tensors}
    with Session(
        list(devices), tensors, threads=1, mode=mode, pins=pins, fallback="error"
    ) as session:
        yield Evaluator(session, Decoder(shape, types, context=2048))


def divided(layers: int, devices: Sequence[str], shares: Sequence[float]) -> dict[str, str]:
    """Homes of layers and their states, in order; all else lives on the first device."""
    ends = [round(layers * end / sum(shares)) for end in accumulate(shares)]
    pins: dict[str, str] = {}
    for layer in range(layers):
        home = next(name for name, end in zip(devices, ends, strict=True) if layer < end)
        pins |= dict.fromkeys((rf"^blk\.{layer}\.", rf"^[kv]\.{layer}$"), home)
    return {**pins, "": devices[0]}


def read(evaluator: Evaluator, prompt: Sequence[int]) -> float:
    """Seconds to read a prompt."""
    evaluator.rewind(0)
    began = time.perf_counter()
    evaluator.last_logits(prompt)
    return time.perf_counter() - began


def write(evaluator: Evaluator) -> float:
    """Seconds of some tokens behind others."""
    evaluator.rewind(0)
    evaluator.last_logits(range(16))
    began = time.perf_counter()
    for token in range(WRITTEN):
        evaluator.last_logits([token])
    return time.perf_counter() - began


Work = Callable[[Evaluator], float]


def in_turns(
    ways: dict[str, tuple[Evaluator, Work]], rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds of each way, and how many times as fast as the first each is."""
    for evaluator, work in ways.values():  # kernels are compiled, buffers bound
        work(evaluator)
        work(evaluator)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (evaluator, work) in ways.items():
            times[name].append(work(evaluator))
    first = next(iter(times.values()))
    gains = {
        name: statistics.median(a / b for a, b in zip(first, taken, strict=True))
        for name, taken in times.items()
    }
    return {name: statistics.median(taken) for name, taken in times.items()}, gains


def alone(file: GGUFFile, device: Device, prompt: Sequence[int]) -> float:
    """Seconds that one device takes for a prompt by itself."""
    with opened(file, [device], "layer") as evaluator:
        read(evaluator, prompt)
        return min(read(evaluator, prompt) for _ in range(2))


def reading(
    file: GGUFFile, devices: Sequence[Device], prompt: Sequence[int], rounds: int
) -> dict[str, Any]:
    """A prompt layer by layer and as a pipeline, each device with its share."""
    took = [alone(file, device, prompt) for device in devices]
    shares = [1 / seconds for seconds in took]
    with (
        opened(file, devices, "layer", shares) as layer,
        opened(file, devices, "pipeline", shares) as pipeline,
    ):
        ways = {
            name: (made, lambda e: read(e, prompt))
            for name, made in (("layer", layer), ("pipeline", pipeline))
        }
        seconds, gains = in_turns(ways, rounds)
    parts = [share / sum(shares) for share in shares]
    in_layers = sum(part * each for part, each in zip(parts, took, strict=True))
    return {
        "alone_seconds": took,
        "seconds": seconds,
        "pipeline_over_layer": gains["pipeline"],
        "pipeline_over_faster_alone": min(took) / seconds["pipeline"],
        "ideal_over_layer": in_layers / (1 / sum(shares)),
    }


def writing(file: GGUFFile, devices: Sequence[Device], rounds: int) -> dict[str, Any]:
    """Single tokens layer by layer and by pieces of products."""
    with opened(file, devices, "layer", (1, 1)) as layer, opened(file, devices, "tensor") as tensor:
        seconds, gains = in_turns({"layer": (layer, write), "tensor": (tensor, write)}, rounds)
    return {
        "ms_a_token": {name: 1e3 * taken / WRITTEN for name, taken in seconds.items()},
        "tensor_over_layer": gains["tensor"],
    }


def report(only: Sequence[str], tokens: int, rounds: int) -> dict[str, Any]:
    """All pairs that this machine has."""
    prompt = [7 * n % 1000 for n in range(tokens)]
    found: dict[str, Any] = {"benchmark": "modes", "tokens": tokens}
    with GGUFFile.open(demo_model()) as file:
        for name in only:
            try:
                devices = PAIRS[name]()
            except BackendLoadError as error:
                found[name] = {"left out": str(error)}
                continue
            found[name] = {"prompt": reading(file, devices, prompt, rounds)}
            if name == "processors":
                found[name]["tokens"] = writing(file, devices, rounds)
            for device in devices:
                device.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--only", type=lambda given: given.split(","), default=list(PAIRS))
    options = parser.parse_args()
    os.environ.update(ONE_THREAD)
    found = report(options.only, options.tokens, options.rounds)
    print(json.dumps(found, indent=2, default=float))


if __name__ == "__main__":
    main()
