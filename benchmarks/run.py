"""`make bench`: text generation beside llama.cpp, same file, same threads, in turns.

Both programs stay loaded and take turns, so that whatever else the machine does hits both; what
counts is the median of the rounds' ratios. Prints one JSON object, and a table on standard error.
Without `make bench-peers` it measures hotplug alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import psutil
from demo import demo_model
from programs import Hotplug, Llama, Program, peer_python

from hotplug.settings import settings

BATCHES = (1, 2, 4, 8, 16, 32, 64)
TYPES = (
    *("q4_0", "q8_0", "q5_0", "q5_1", "q4_k_m", "q5_k_m", "q6_k", "q2_k", "q3_k_m"),
    *("f16", "bf16", "f32"),
)
DEPTH = 4096


def prompt(length: int) -> list[int]:
    return [(7 * n) % 40000 + 100 for n in range(length)]


Work = Callable[[Program], float]
"""Does something with a program and gives tokens per second."""


def prefill(tokens: int) -> Work:
    ids = prompt(tokens)
    return lambda program: tokens / program.prefill(ids)


def decode(tokens: int, depth: int = 1) -> Work:
    return lambda program: tokens / program.decode(tokens, depth)


def in_turns(programs: Sequence[Program], work: Work, rounds: int) -> dict[str, Any]:
    """Tokens per second of each program, and of two the ratio round by round."""
    for program in programs:
        work(program)  # for warming up
    rates = [[work(program) for program in programs] for _ in range(rounds)]
    result = {"hotplug": round(statistics.median(rate[0] for rate in rates), 1)}
    if len(programs) == 2:
        ratios = [ours / theirs for ours, theirs in rates]
        result["llama_cpp"] = round(statistics.median(rate[1] for rate in rates), 1)
        result["ratio"] = round(statistics.median(ratios), 3)
        result["lowest_ratio"], result["highest_ratio"] = (
            round(min(ratios), 3),
            round(max(ratios), 3),
        )
    return result


def read_bandwidth(seconds: float = 1.0) -> float:
    """GB a second that summing a large array reads, the fastest of the turns."""
    data = np.ones(1 << 26, np.float32)
    best, until = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        data.max()
        best = max(best, data.nbytes / (time.perf_counter() - began))
    return best / 1e9


def requantised(kind: str) -> Path | None:
    """The demo model in another type, made by llama.cpp and kept; None without llama.cpp."""
    folder = Path(platformdirs.user_cache_dir("hotplug-benchmarks", appauthor=False))
    target = folder / f"SmolLM2-135M-{kind}.gguf"
    python = peer_python()
    if target.exists() or python is None:
        return target if target.exists() else None
    folder.mkdir(parents=True, exist_ok=True)
    script = Path(__file__).with_name("peer_llama.py")
    subprocess.run([python, script, demo_model(), "--quantise", target, kind], check=True)
    return target


class Pair:
    """Both programs with one model, or hotplug alone."""

    def __init__(self, path: Path, threads: int, context: int, precision: str = "default") -> None:
        self.ours = Hotplug(path, threads, context, precision)
        python = peer_python()
        self.peer = Llama(python, path, threads, context) if python else None

    @property
    def programs(self) -> list[Program]:
        return [self.ours, self.peer] if self.peer else [self.ours]

    def close(self) -> None:
        self.ours.close()
        if self.peer:
            self.peer.close()


def measure_model(pair: Pair, rounds: int) -> dict[str, Any]:
    return {
        "decode_64": in_turns(pair.programs, decode(64), rounds),
        "prefill_512": in_turns(pair.programs, prefill(512), rounds),
    }


def measure_batches(pair: Pair, rounds: int) -> dict[str, Any]:
    return {
        f"batch_{tokens}": in_turns(pair.programs, prefill(tokens), rounds) for tokens in BATCHES
    }


def measure_depth(pair: Pair, rounds: int) -> dict[str, Any]:
    return {
        f"prefill_{DEPTH}": in_turns(pair.programs, prefill(DEPTH), max(1, rounds // 2)),
        f"decode_32_at_{DEPTH}": in_turns(pair.programs, decode(32, DEPTH), rounds),
    }


def table(report: dict[str, Any]) -> str:
    """The measurements as lines of text."""
    lines = [f"{'tokens per second':34} {'hotplug':>10} {'llama.cpp':>10} {'ratio':>7}"]
    for name, row in report["measurements"].items():
        cells = [row.get(key, "") for key in ("hotplug", "llama_cpp", "ratio")]
        lines.append(f"{name:34} {cells[0]:>10} {cells[1]:>10} {cells[2]:>7}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a GGUF file (the demo model)")
    parser.add_argument(
        "--threads", type=int, default=settings().threads or psutil.cpu_count(False)
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=("default", "exact"), default="default")
    parser.add_argument("--types", default="", help=f"all, or some of {','.join(TYPES)}")
    parser.add_argument("--batches", action="store_true", help="prompts of 1 to 64 tokens")
    parser.add_argument("--depth", action="store_true", help=f"contexts of {DEPTH} tokens")
    options = parser.parse_args()
    path = options.model or demo_model()
    began = time.perf_counter()
    pair = Pair(path, options.threads, DEPTH + 128 if options.depth else 2048, options.precision)
    peer = pair.peer
    measured = measure_model(pair, options.rounds)
    if options.batches:
        measured |= measure_batches(pair, options.rounds)
    if options.depth:
        measured |= measure_depth(pair, options.rounds)
    loading = {"hotplug": round(pair.ours.model.load_seconds, 3)}
    if peer:
        loading["llama_cpp"] = round(peer.about["load_seconds"], 3)
    architectures = [info.architecture for info in pair.ours.model.devices]
    pair.close()
    for kind in TYPES if options.types == "all" else filter(None, options.types.split(",")):
        model = requantised(kind)
        if model is not None:
            pair = Pair(model, options.threads, 2048, options.precision)
            rows = measure_model(pair, options.rounds)
            measured |= {f"{kind}/{name}": row for name, row in rows.items()}
            pair.close()
    report = {
        "model": path.name,
        "model_bytes": path.stat().st_size,
        "threads": options.threads,
        "precision": options.precision,
        "machine": platform.machine(),
        "device": architectures,
        "one_thread_read_gigabytes_per_second": round(read_bandwidth(), 1),
        "llama_cpp": peer.about["version"] if peer else "not installed: make bench-peers",
        "load_seconds": loading,
        "measurements": measured,
        "seconds": round(time.perf_counter() - began, 1),
    }
    print(table(report), file=sys.stderr)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
