"""Attention of one token behind many others in a model's layers; prints one JSON object.

    python benchmarks/cpu_depth.py [--depth 4096] [--threads 2] [--repeats 30]

Caches of all layers are read one after the other, as in decoding: from memory in pages of 4 KB, as
caches are, and in huge pages; then one layer's again and again, which stays in a cache, to tell how
long computing alone takes. The backend's compiled kernel `read` reads the same memory. All take
turns; the fastest turns and the medians are given. Linux only. See docs/decisions/0012.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import statistics
import sys
import time

import numpy as np
import numpy.typing as npt
from compiled import row
from file_pages import anonymous

from hotplug_cpu import threads as teams
from hotplug_cpu.kernels import panels

LAYERS, HEADS, KV_HEADS, WIDTH = 30, 9, 3, 64  # of the demo model
Halves = npt.NDArray[np.float16]
Words = npt.NDArray[np.int64]


class Step:
    """What one token attends with, at the end of a context."""

    def __init__(self, depth: int, threads: int) -> None:
        random = np.random.default_rng(0)
        self.depth, self.threads = depth, threads
        self.splits = threads * max(1, min(4, depth // (panels.KEYS * threads)))
        self.q = random.standard_normal((1, HEADS, WIDTH)).astype(np.float32)
        self.rows = random.standard_normal((depth, KV_HEADS, WIDTH)).astype(np.float16)
        self.position = np.array([depth - 1], np.int32)
        self.out = np.zeros_like(self.q)
        nbytes = panels.attention_partials(1, HEADS, self.splits, WIDTH)
        self.partials = np.zeros(nbytes, np.uint8)
        self.size = panels.attention_split_scratch(HEADS, WIDTH)
        self.scratch = np.zeros(threads * self.size, np.uint8)
        self.sums = np.zeros(threads, np.float32)
        self.held: list[Halves] = []  # as long as plans have their addresses

    def cache(self, advice: int) -> Halves:
        """Keys or values of a layer, in memory of their own."""
        memory = anonymous(self.rows.nbytes, advice)
        held: Halves = memory.view(np.float16).reshape(self.rows.shape)
        held[...] = self.rows
        self.held.append(held)
        return held

    def attention(self, keys: Halves, values: Halves) -> list[list[int]]:
        """Rows of a plan for one layer."""
        stride = 2 * KV_HEADS * WIDTH
        heads = {"tokens": 1, "heads": HEADS, "kv_heads": KV_HEADS}
        operands = {"q": self.q, "q_stride": self.q.strides[0], "k": keys, "k_stride": stride}
        operands |= {"v": values, "v_stride": stride, "positions": self.position}
        shape = {**heads, "width": WIDTH, "value_width": WIDTH, "rows": self.depth}
        shape["scale"] = int(np.float32(WIDTH**-0.5).view(np.uint32))
        shape |= {"softcap": 0, "window": 0, "causal": 1, "splits": self.splits}
        rest = {"partials": self.partials, "scratch": self.scratch, "scratch_stride": self.size}
        result = {"sinks": 0, "out": self.out, "out_stride": self.out.strides[0]}
        last = {"tokens": 1, "heads": HEADS, "value_width": WIDTH, "splits": self.splits}
        return [
            row("attention_split_f16", **operands, **shape, **rest),
            row("attention_combine", partials=self.partials, **result, **last),
        ]

    def reading(self, memory: Halves) -> list[int]:
        return row("read", at=memory, nbytes=memory.nbytes, out=self.sums)


def plans(step: Step) -> dict[str, Words]:
    found: dict[str, list[list[int]]] = {}
    pages = {"pages of 4 KB": mmap.MADV_NOHUGEPAGE, "huge pages": mmap.MADV_HUGEPAGE}
    for name, advice in pages.items():
        layers = [(step.cache(advice), step.cache(advice)) for _ in range(LAYERS)]
        found[f"attention, {name}"] = [r for layer in layers for r in step.attention(*layer)]
        found[f"reading, {name}"] = [step.reading(memory) for layer in layers for memory in layer]
    found["attention, one layer"] = step.attention(*layers[0]) * LAYERS
    return {name: np.array(rows, np.int64) for name, rows in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--depth", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    if sys.platform != "linux":
        sys.exit("cpu_depth: only Linux is asked for huge pages")
    step = Step(options.depth, options.threads)
    team, seconds = teams.team(options.threads), dict[str, list[float]]()
    actions = plans(step)
    for turn in range(options.repeats + 1):
        for name, plan in actions.items():
            start = time.perf_counter()
            team.run(plan)
            if turn:  # the first is for warming up
                seconds.setdefault(name, []).append(time.perf_counter() - start)
    nbytes = 2 * LAYERS * step.rows.nbytes
    found = {
        name: {
            "fastest_ms": round(1e3 * min(all_), 3),
            "median_ms": round(1e3 * statistics.median(all_), 3),
            "fastest_gb_per_second": round(nbytes / min(all_) / 1e9, 1),
        }
        for name, all_ in seconds.items()
    }
    print(json.dumps({"depth": options.depth, "threads": options.threads, **found}, indent=2))


if __name__ == "__main__":
    main()
