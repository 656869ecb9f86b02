"""The two programs that text generation is measured with: hotplug, and llama.cpp beside it.

Both do the same things with the same file and number of threads; each call gives seconds. They stay
loaded and take turns, so that whatever else the machine does hits both.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias

import platformdirs
from demo import demo_model

import hotplug_llm
from hotplug.settings import settings
from hotplug_llm.generation import Generation

__all__ = [
    "PEER_SCRIPT",
    "Hotplug",
    "Llama",
    "Pair",
    "Program",
    "decode",
    "peer_python",
    "prefill",
    "prompt",
    "requantised",
    "take_turns",
]

PEER_SCRIPT = Path(__file__).with_name("peer_llama.py")
_ROOT = Path(__file__).resolve().parent.parent
_PAUSE = 0.2
"""Seconds between two turns: threads of whoever was on turn spin for a while, those of llama.cpp
some milliseconds and those of OpenBLAS more than 50, and take a core from whoever is next."""


class Program(Protocol):
    """What is measured."""

    def prefill(self, ids: list[int]) -> float:
        """Seconds of reading a prompt into an empty cache."""

    def decode(self, count: int, depth: int = 1) -> float:
        """Seconds of making so many tokens after `depth` others."""


Work: TypeAlias = Callable[[Program], float]
"""Does something with a program and gives tokens per second."""


def prompt(length: int) -> list[int]:
    """Token ids, each another."""
    return [(7 * n) % 40000 + 100 for n in range(length)]


def prefill(tokens: int, times: int = 1) -> Work:
    """Reading a prompt, so many times."""
    ids = prompt(tokens)
    return lambda program: tokens * times / sum(program.prefill(ids) for _ in range(times))


def decode(tokens: int, depth: int = 1) -> Work:
    """Making tokens one by one."""
    return lambda program: tokens / program.decode(tokens, depth)


def take_turns(actions: Sequence[Callable[[], float]], rounds: int) -> list[list[float]]:
    """What actions give, a list for each round; all are done once before, for warming up."""
    for action in actions:
        action()
    table: list[list[float]] = []
    for _ in range(rounds):
        table.append([])
        for action in actions:
            time.sleep(_PAUSE)
            table[-1].append(action())
    return table


def peer_python() -> Path | None:
    """The interpreter of the environment that llama.cpp is in, if `make bench-peers` made it.

    Where hotplug is kept to an instruction set, so must llama.cpp be, which is built for it.
    """
    isa = settings().cpu_isa
    peers = _ROOT / (f".venv-peers-{isa}" if isa else ".venv-peers")
    python = peers / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    return python if python.exists() else None


class Hotplug:
    """hotplug, in this process."""

    def __init__(
        self,
        path: Path,
        threads: int | None,
        context: int,
        precision: str = "default",
        device: str = "cpu",
    ) -> None:
        self.model = hotplug_llm.load(path, device, precision, context=context, threads=threads)
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
    """llama.cpp, in a process of its own.

    Attributes:
        about: what it said first: its version, and how long it took to load.
    """

    def __init__(
        self,
        python: Path,
        path: Path,
        threads: int,
        context: int,
        script: Path = PEER_SCRIPT,
        words: Sequence[str] = (),
    ) -> None:
        self.process = subprocess.Popen(
            [python, script, path, str(threads), str(context), *words],
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

    def nlls(self, ids: list[int]) -> list[float]:
        """Negative log-likelihoods of ids[1:], each given those before it."""
        return [float(loss) for loss in self._talk({"nlls": ids})["nlls"]]

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
        return float(self._talk(wanted)["seconds"])

    def _talk(self, wanted: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(wanted) + "\n")
        self.process.stdin.flush()
        return self._hear()


class Pair:
    """Both programs with one model, or hotplug alone where llama.cpp is not installed."""

    def __init__(self, path: Path, threads: int, context: int = 2048) -> None:
        self.ours = Hotplug(path, threads, context)
        python = peer_python()
        self.peer = Llama(python, path, threads, context) if python else None

    def actions(self, work: Work) -> list[Callable[[], float]]:
        """The work of each, for `take_turns`."""
        programs: list[Program] = [self.ours, *([self.peer] if self.peer else [])]
        return [partial(work, program) for program in programs]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.ours.close()
        if self.peer:
            self.peer.close()


def requantised(kind: str) -> Path | None:
    """The demo model in another type, made by llama.cpp and kept; None without llama.cpp."""
    folder = Path(platformdirs.user_cache_dir("hotplug-benchmarks", appauthor=False))
    target = folder / f"SmolLM2-135M-{kind}.gguf"
    python = peer_python()
    if target.exists() or python is None:
        return target if target.exists() else None
    folder.mkdir(parents=True, exist_ok=True)
    half_made = target.with_suffix(".part")
    command = [python, PEER_SCRIPT, demo_model(), "--quantise", half_made, kind]
    subprocess.run([str(word) for word in command], check=True)
    return half_made.replace(target)
