"""Making tokens while others want the same processors; prints one JSON object.

    python benchmarks/cpu_beside.py [--threads 2] [--rounds 5]

Alone; beside a thread of the same process that multiplies matrices by NumPy, whose OpenBLAS has as
many threads; and beside another model that makes tokens in a thread of its own. llama.cpp does the
first two as well, in its process. All take turns. Given are medians over the rounds: tokens per
second, and the share that is left, to either side, of what it reached alone in the same round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from demo import demo_model
from figures import rounded
from programs import Hotplug, Llama, Program, decode, peer_python, take_turns

SIZE = 512
CONTEXT = 1024
make_tokens = decode(16)


class Multiplier:
    """Multiplies matrices by NumPy.

    Attributes:
        beside: products per second beside each piece of work, in order.
    """

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self._x, self._y = random.standard_normal((2, SIZE, SIZE)).astype(np.float32)
        self._out = np.empty_like(self._x)
        self.beside: list[float] = []

    def alone(self) -> float:
        """Products per second over a quarter of a second."""
        end = time.perf_counter() + 0.25
        return self._multiply(lambda: time.perf_counter() >= end)

    def during(self, work: Callable[[], float]) -> float:
        """What some work gives, during which products go on in another thread."""
        done = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            speed = pool.submit(self._multiply, done.is_set)
            try:
                found = work()
            finally:
                done.set()
        self.beside.append(speed.result())
        return found

    def _multiply(self, done: Callable[[], bool]) -> float:
        count, began = 0, time.perf_counter()
        while not done():
            np.matmul(self._x, self._y, out=self._out)
            count += 1
        return count / (time.perf_counter() - began)


def together(programs: Sequence[Program]) -> float:
    """Tokens per second of all."""
    with ThreadPoolExecutor(len(programs)) as pool:
        return sum(pool.map(make_tokens, programs))


def measure(threads: int, rounds: int) -> dict[str, dict[str, float]]:
    model, python = demo_model(), peer_python()
    with contextlib.ExitStack() as held:
        ours = [Hotplug(model, threads, CONTEXT) for _ in range(2)]
        peers = [Llama(python, model, threads, CONTEXT)] if python else []
        programs: list[Hotplug | Llama] = [*ours, *peers]
        for program in programs:
            held.callback(program.close)
        return compare(ours, peers, rounds)


def compare(
    ours: Sequence[Program], peers: Sequence[Program], rounds: int
) -> dict[str, dict[str, float]]:
    numpy = Multiplier()
    programs = dict(zip(("hotplug", "llama.cpp"), (ours[0], *peers), strict=False))
    alone = {name: partial(make_tokens, program) for name, program in programs.items()}
    beside = [partial(numpy.during, work) for work in alone.values()]
    actions: list[Callable[[], float]] = [numpy.alone, *alone.values(), *beside]
    actions.append(partial(together, ours))
    turns = take_turns(actions, rounds)
    kept = np.array(numpy.beside[len(beside) :]).reshape(rounds, len(beside))  # after warming up
    columns = [*zip(*turns, strict=True)]
    found = {}
    for number, name in enumerate(alone):
        reached, crowded = columns[1 + number], columns[1 + len(alone) + number]
        found[name] = {
            "tokens_per_second": median(reached),
            "beside_numpy": median(crowded),
            "share_left": median(np.divide(crowded, reached)),
            "share_left_to_numpy": median(kept[:, number] / np.array(columns[0])),
        }
    found["hotplug"]["two_models"] = median(columns[-1])
    found["hotplug"]["two_models_over_one"] = median(np.divide(columns[-1], columns[1]))
    return found


def median(values: object) -> float:
    return rounded(float(np.median(np.asarray(values))))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    found = measure(options.threads, options.rounds)
    print(json.dumps({"threads": options.threads, "rounds": options.rounds, **found}, indent=2))


if __name__ == "__main__":
    main()
