"""The two programs that text generation is measured with: hotplug, and llama.cpp beside it.

Both do the same things with the same file and number of threads; each call gives seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

import hotplug_llm
from hotplug_llm.generation import Generation

__all__ = ["Hotplug", "Llama", "Program", "peer_python"]

_PEERS = Path(__file__).resolve().parent.parent / ".venv-peers"


class Program(Protocol):
    """What is measured."""

    def prefill(self, ids: list[int]) -> float:
        """Seconds of reading a prompt into an empty cache."""

    def decode(self, count: int, depth: int = 1) -> float:
        """Seconds of making so many tokens after `depth` others."""


def peer_python() -> Path | None:
    """The interpreter of the environment that llama.cpp is in, if `make bench-peers` made it."""
    python = _PEERS / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    return python if python.exists() else None


class Hotplug:
    """hotplug, in this process."""

    def __init__(self, path: Path, threads: int, context: int, precision: str = "default") -> None:
        self.model = hotplug_llm.load(path, "cpu", precision, context=context, threads=threads)
        self._prompt: list[int] = []

    def prefill(self, ids: list[int]) -> float:
        """As in Program."""
        # Another first token, so that nothing of the last round's cache can be reused.
        self.model.logits([ids[0] + 1])
        return self._generate(ids, 1).prefill_seconds

    def decode(self, count: int, depth: int = 1) -> float:
        """As in Program; a long beginning is read once and found in the cache from then on."""
        return self._generate([2] * depth, count + 1).decode_seconds

    def close(self) -> None:
        """Give everything back."""
        self.model.close()

    def _generate(self, ids: list[int], count: int) -> Generation:
        greedy = hotplug_llm.SamplingOptions(temperature=0)
        answer = self.model.generate(ids, max_tokens=count, sampling=greedy, ignore_eos=True)
        for _ in answer:
            pass
        return answer


class Llama:
    """llama.cpp, in a process of its own."""

    def __init__(self, python: Path, path: Path, threads: int, context: int) -> None:
        script = Path(__file__).with_name("peer_llama.py")
        self.process = subprocess.Popen(
            [python, script, path, str(threads), str(context)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about = self._hear()

    def prefill(self, ids: list[int]) -> float:
        """As in Program."""
        return self._ask({"prefill": ids})

    def decode(self, count: int, depth: int = 1) -> float:
        """As in Program."""
        self._ask({"keep": depth})
        return self._ask({"decode": count})

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit("llama.cpp ended; run `make bench-peers` again")
        return dict(json.loads(line))

    def _ask(self, wanted: dict[str, Any]) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(wanted) + "\n")
        self.process.stdin.flush()
        return float(self._hear()["seconds"])
