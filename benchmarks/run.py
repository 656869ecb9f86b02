"""`make bench`: text generation beside llama.cpp, same file, same threads, in turns.

Both programs stay loaded and take turns, so that whatever else the machine does hits both; what
counts is the median of the rounds' ratios. Prints one JSON object. Without `make bench-peers` it
measures hotplug alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

import hotplug_llm
from hotplug.settings import settings
from hotplug_llm.generation import Generation

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from run_demo import demo_model  # noqa: E402 - found by the line above

PEERS = ROOT / ".venv-peers"
CONTEXT = 2048


class Hotplug:
    """hotplug, in this process."""

    def __init__(self, path: Path, threads: int, precision: str) -> None:
        self.model = hotplug_llm.load(path, "cpu", precision, context=CONTEXT, threads=threads)

    def prefill(self, ids: list[int]) -> float:
        # Another first token, so that nothing of the last round's cache can be reused.
        self.model.logits([ids[0] + 1])
        return self.generate(ids, 1).prefill_seconds

    def decode(self, count: int) -> float:
        return self.generate([2], count + 1).decode_seconds

    def generate(self, ids: list[int], count: int) -> Generation:
        greedy = hotplug_llm.SamplingOptions(temperature=0)
        answer = self.model.generate(ids, max_tokens=count, sampling=greedy, ignore_eos=True)
        for _ in answer:
            pass
        return answer


class Llama:
    """llama.cpp, in a process of its own."""

    def __init__(self, path: Path, threads: int) -> None:
        python = PEERS / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        script = Path(__file__).with_name("peer_llama.py")
        self.process = subprocess.Popen(
            [python, script, path, str(threads), str(CONTEXT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about = self.hear()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit("llama.cpp ended; run `make bench-peers` again")
        return dict(json.loads(line))

    def ask(self, wanted: dict[str, Any]) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(wanted) + "\n")
        self.process.stdin.flush()
        return float(self.hear()["seconds"])

    def prefill(self, ids: list[int]) -> float:
        return self.ask({"prefill": ids})

    def decode(self, count: int) -> float:
        self.prefill([2])
        return self.ask({"decode": count})


def measure(
    ours: Hotplug, peer: Llama | None, work: str, tokens: int, rounds: int
) -> dict[str, Any]:
    """Tokens per second of both, and the ratio round by round."""
    amount: Any = [(7 * n) % 40000 + 100 for n in range(tokens)] if work == "prefill" else tokens
    rates: dict[str, list[float]] = {"hotplug": [], "llama_cpp": []}
    for turn in range(rounds + 1):
        for name, program in (("hotplug", ours), ("llama_cpp", peer)):
            if program is not None:
                seconds = getattr(program, work)(amount)
                if turn:  # the first is for warming up
                    rates[name].append(tokens / seconds)
    result: dict[str, Any] = {
        "hotplug_tokens_per_second": round(statistics.median(rates["hotplug"]), 1)
    }
    if peer is not None:
        ratios = [a / b for a, b in zip(rates["hotplug"], rates["llama_cpp"], strict=True)]
        result["llama_cpp_tokens_per_second"] = round(statistics.median(rates["llama_cpp"]), 1)
        result["ratio"] = round(statistics.median(ratios), 3)
        result["ratio_range"] = [round(min(ratios), 3), round(max(ratios), 3)]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a GGUF file (the demo model)")
    parser.add_argument(
        "--threads", type=int, default=settings().threads or psutil.cpu_count(False)
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=("default", "exact"), default="default")
    arguments = parser.parse_args()
    path = arguments.model or demo_model()
    began = time.perf_counter()
    ours = Hotplug(path, arguments.threads, arguments.precision)
    peer = Llama(path, arguments.threads) if PEERS.exists() else None
    report: dict[str, Any] = {
        "model": path.name,
        "threads": arguments.threads,
        "precision": arguments.precision,
        "machine": platform.machine(),
        "device": [info.architecture for info in ours.model.devices],
        "llama_cpp": peer.about["version"] if peer else "not installed: make bench-peers",
        "load_seconds": {"hotplug": round(ours.model.load_seconds, 3)},
    }
    if peer:
        report["load_seconds"]["llama_cpp"] = round(peer.about["load_seconds"], 3)
    report["prefill_512"] = measure(ours, peer, "prefill", 512, arguments.rounds)
    report["prefill_64"] = measure(ours, peer, "prefill", 64, arguments.rounds)
    report["decode_128"] = measure(ours, peer, "decode", 128, arguments.rounds)
    report["seconds"] = round(time.perf_counter() - began, 1)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
