"""What it costs to survive a failure, before there is one and when it has come.

Prints JSON. First the microseconds of a run on a device that does nothing: called directly, and by
a thread that can be left behind. Then, on the demo model and an OpenCL device: decoding with the
host's copies of the states over decoding without, and the seconds from the loss of the device to
the next token on the processor, with copies and without.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from demo import demo_model
from session_overhead import NullDevice, weights

from hotplug.backend import DeviceInfo, DeviceType
from hotplug.formats.gguf import GGUFFile
from hotplug.session import CancelToken, Session
from hotplug.testing.faults import FaultyDevice
from hotplug.testing.graphs import decoder
from hotplug_cpu import backend as cpu
from hotplug_llm.architectures import read_hyperparameters
from hotplug_llm.decoder import Decoder
from hotplug_llm.evaluation import Evaluator
from hotplug_opencl import backend as opencl

COPIES = 256 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=512, help="read before the device is lost")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    found = {"benchmark": "surviving", **report(options.tokens, options.rounds)}
    print(json.dumps({k: _rounded(v) for k, v in found.items()}, indent=2))


def report(tokens: int, rounds: int) -> dict[str, float]:
    """All of it."""
    return {**watching(rounds), **copying(rounds), **recovering(tokens, rounds)}


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def watching(rounds: int) -> dict[str, float]:
    """Microseconds of a run that does nothing: called directly, by a thread, with a token."""
    graph = decoder()
    inputs = dict.fromkeys(graph.inputs, np.zeros(1, np.int32))
    near = NullDevice(DeviceInfo("null", 0, "Null", DeviceType.CPU))
    far = NullDevice(DeviceInfo("null", 0, "Null", DeviceType.GPU))
    held = weights(graph)
    with Session([near], held) as direct, Session([far], held, device_timeout=600) as watched:
        programs = [session.compile(graph) for session in (direct, watched)]
        token = CancelToken()
        ways: dict[str, Callable[[], Any]] = {
            "direct_us": lambda: programs[0].run(inputs),
            "by_a_thread_us": lambda: programs[1].run(inputs),
            "with_a_token_us": lambda: programs[1].run(inputs, cancel=token),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                times[name] += [seconds(way) for _ in range(500)]
    return {name: 1e6 * statistics.median(taken) for name, taken in times.items()}


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@contextlib.contextmanager
def opened(file: GGUFFile, devices: list[Any], limit: int) -> Iterator[Evaluator]:
    """The demo model, of whose states copies may take so many bytes."""
    os.environ["HOTPLUG_STATE_COPY_BYTES"] = str(limit)
    types = {name: info.type for name, info in file.tensors.items()}
    made = Decoder(read_hyperparameters(file.fields()), types, context=2048)
    tensors = {name: file.tensor(name) for name in file.tensors}
    with Session(devices, tensors, fallback="allow") as session:
        yield Evaluator(session, made)


def decode(evaluator: Evaluator) -> float:
    """Seconds of 64 tokens behind others."""
    evaluator.rewind(16)
    return seconds(lambda: [evaluator.last_logits([n]) for n in range(64)])


def copying(rounds: int) -> dict[str, float]:
    """Decoding with copies of the states over decoding without, median of ratios."""
    ratios = []
    device = opencl.open(opencl.probe()[0])
    with (
        GGUFFile.open(demo_model()) as file,
        opened(file, [device], COPIES) as copied,
        opened(file, [device], 0) as bare,
    ):
        for evaluator in (copied, bare):
            evaluator.last_logits(list(range(16)))
            decode(evaluator)
        for _ in range(rounds):
            without = decode(bare)
            ratios.append(decode(copied) / without)
    return {"decode_with_copies_over_without": statistics.median(ratios)}


def recovering(tokens: int, rounds: int) -> dict[str, float]:
    """Seconds from a loss to the next token, on the processor."""
    times: dict[int, list[float]] = {COPIES: [], 0: []}
    device, host = opencl.open(opencl.probe()[0]), cpu.open(cpu.probe()[0])
    prompt = [n % 1000 for n in range(tokens)]
    with GGUFFile.open(demo_model()) as file:
        for _ in range(rounds + 1):
            for limit, taken in times.items():
                card = FaultyDevice(device)
                with opened(file, [card, host], limit) as evaluator:
                    evaluator.last_logits(prompt)
                    card.lose()
                    taken.append(seconds(lambda e=evaluator: e.last_logits([1])))  # type: ignore[misc]
    # The first round compiles kernels, or loads them.
    copied, again = (statistics.median(taken[1:]) for taken in times.values())
    return {
        "tokens": tokens,
        "seconds_to_go_on_from_copies": copied,
        "seconds_to_go_on_by_reading_again": again,
    }


if __name__ == "__main__":
    main()
