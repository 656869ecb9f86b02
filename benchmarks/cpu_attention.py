"""Attention over an f16 cache, against NumPy; prints one JSON object.

    python benchmarks/cpu_attention.py [--threads 2] [--repeats 7] [--heads 9] [--kv-heads 3]

Prompts of several lengths at several places in a cache, and single tokens. NumPy computes the same
in float32, a matrix product and a softmax per head, over the rows that the last query sees. Both
take turns; figures are of the fastest of all turns. Operations of hidden scores are not counted.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from functools import partial

import numpy as np
from compiled import fastest, row

from hotplug_cpu import threads as teams
from hotplug_cpu.jit.target import host_target
from hotplug_cpu.kernels import panels

PROMPTS = ((512, 0), (512, 1536), (512, 3584), (32, 512))
STEPS = (128, 512, 2048, 4095)
ROWS = 4096


class Case:
    """Operands of one attention."""

    def __init__(self, tokens: int, start: int, options: argparse.Namespace) -> None:
        rng = np.random.default_rng(0)
        heads, kv_heads, width = (int(n) for n in (options.heads, options.kv_heads, options.width))
        self.tokens, self.start, self.threads = tokens, start, options.threads
        self.heads, self.kv_heads, self.width = heads, kv_heads, width
        self.q = rng.standard_normal((tokens, heads, width)).astype(np.float32)
        self.k, self.v = rng.standard_normal((2, ROWS, kv_heads, width)).astype(np.float16)
        self.positions = np.arange(start, start + tokens, dtype=np.int32)
        self.out = np.zeros_like(self.q)
        size = panels.attention_scratch(width, width)
        self.memory = {"scratch": np.zeros(self.threads * size, np.uint8), "scratch_stride": size}

    def operands(self) -> dict[str, object]:
        arrays = {"q": self.q, "k": self.k, "v": self.v}
        words: dict[str, object] = {}
        for name, array in arrays.items():
            words |= {name: array, f"{name}_stride": array.strides[0]}
        return {**words, "positions": self.positions}

    def result(self) -> dict[str, object]:
        return {"sinks": 0, "out": self.out, "out_stride": self.out.strides[0]}

    def shape(self) -> dict[str, object]:
        scale = int(np.float32(self.width**-0.5).view(np.uint32))
        sizes = {"tokens": self.tokens, "heads": self.heads, "kv_heads": self.kv_heads}
        sizes |= {"width": self.width, "value_width": self.width, "rows": ROWS, "scale": scale}
        return {**sizes, "softcap": 0, "window": 0, "causal": 1}

    def plan(self) -> np.ndarray:
        """All queries in blocks."""
        words = (self.operands(), self.result(), self.shape(), self.memory)
        merged = {name: value for part in words for name, value in part.items()}
        return np.array([row("attention_f16", **merged)], np.int64)

    def split_plan(self) -> np.ndarray:
        """The context split among threads."""
        splits = 4 * self.threads
        nbytes = panels.attention_partials(self.tokens, self.heads, splits, self.width)
        self.partials = np.zeros(nbytes, np.uint8)
        parts = {"splits": splits, "partials": self.partials}
        size = panels.attention_split_scratch(self.heads, self.width)
        self.scratch = np.zeros(self.threads * size, np.uint8)
        memory = {"scratch": self.scratch, "scratch_stride": size}
        words = (self.operands(), self.shape(), parts, memory)
        first = {name: value for part in words for name, value in part.items()}
        last = {"tokens": self.tokens, "heads": self.heads, "value_width": self.width}
        second = {"partials": self.partials, **self.result(), **last, "splits": splits}
        rows = [row("attention_split_f16", **first), row("attention_combine", **second)]
        return np.array(rows, np.int64)

    def numpy(self) -> np.ndarray:
        """The same in NumPy."""
        seen = self.start + self.tokens
        result = np.empty_like(self.out)
        hidden = np.arange(seen)[None, :] > self.positions[:, None]
        for head in range(self.heads):
            shared = head * self.kv_heads // self.heads
            k, v = (x[:seen, shared].astype(np.float32) for x in (self.k, self.v))
            scores = self.q[:, head] @ k.T / math.sqrt(self.width)
            scores[hidden] = -np.inf
            weights = np.exp(scores - scores.max(1, keepdims=True))
            result[:, head] = weights @ v / weights.sum(1, keepdims=True)
        return result

    def operations(self) -> int:
        seen = int(self.positions.sum(dtype=np.int64)) + self.tokens
        return 4 * self.width * self.heads * seen

    def cache_bytes(self) -> int:
        return 2 * 2 * self.kv_heads * self.width * (self.start + self.tokens)


def measure(case: Case, plan: np.ndarray, repeats: int) -> dict[str, float]:
    run = partial(teams.team(case.threads).run, plan)
    run()
    error = float(np.abs(case.out - case.numpy()).max())
    ours, theirs = fastest((run, case.numpy), repeats)
    return {
        "milliseconds": round(1e3 * ours, 3),
        "gflops": round(case.operations() / ours / 1e9, 1),
        "cache_gb_per_second": round(case.cache_bytes() / ours / 1e9, 1),
        "ratio": round(theirs / ours, 1),
        "largest_difference": error,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--heads", type=int, default=9)
    parser.add_argument("--kv-heads", type=int, default=3)
    parser.add_argument("--width", type=int, default=64)
    options = parser.parse_args()
    results: dict[str, object] = {"isa": host_target().isa, "threads": options.threads}
    for tokens, start in PROMPTS:
        case = Case(tokens, start, options)
        results[f"{tokens} tokens at {start}"] = measure(case, case.plan(), options.repeats)
    for start in STEPS:
        case = Case(1, start, options)
        results[f"1 token at {start}"] = measure(case, case.split_plan(), 10 * options.repeats)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
