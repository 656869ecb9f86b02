"""From the start of a process to its first token, and the first run on a machine.

Both programs are fresh processes, hotplug by its command line and llama.cpp by a script that calls
its C API. Time runs until the first byte of the answer is there.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from bench import Bench, Outcome, Section
from figures import Row, at_most, rounded
from programs import PEER_SCRIPT, peer_python, take_turns

__all__ = ["CONTEXT", "SECTIONS", "hotplug_command", "peer_command"]

PROMPT = "The capital of France is"  # five tokens
CONTEXT = 8192


def measure_start(bench: Bench) -> Outcome:
    actions = [partial(first_byte, hotplug_command(bench, 1))]
    command = peer_command(bench, 1)
    if command:
        actions.append(partial(first_byte, command))
    turns = take_turns(actions, bench.rounds)
    ours, *theirs = (rounded(statistics.median(column)) for column in zip(*turns, strict=True))
    detail = {"llama.cpp": theirs[0]} if theirs else {}
    return Outcome([Row("process start to first token", ours, "s", at_most(0.6), detail)])


def measure_first_run(bench: Bench) -> Outcome:
    runs = [first_run(bench) for _ in range(bench.rounds)]
    seconds, details = zip(*runs, strict=True)
    middle = rounded(statistics.median(seconds))
    return Outcome([Row("first run ever, 16 tokens", middle, "s", at_most(20), details[-1])])


def first_run(bench: Bench) -> tuple[float, dict[str, object]]:
    """Seconds, and what else there is to tell."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**users_environment(), "HOTPLUG_CACHE_DIR": folder}
        began = time.perf_counter()
        # With the chat template, so that the prompt is long enough for the kernels of many tokens.
        shown = terminal_text(hotplug_command(bench, 16, raw=False), environment)
        seconds = time.perf_counter() - began
        kernels = sum(1 for path in Path(folder).rglob("*.o"))
    detail: dict[str, object] = {"kernels": kernels}
    if shown is not None:
        detail["progress bar"] = "shown" if "compile kernels" in shown else "NOT shown"
    return seconds, detail


def hotplug_command(bench: Bench, count: int, *, raw: bool = True) -> list[str]:
    """Continue PROMPT by so many tokens, or, not raw, answer it."""
    model = ["-m", str(bench.model), "-d", "cpu", "-t", str(bench.threads), "-c", str(CONTEXT)]
    answer = ["--max-tokens", str(count), "--temperature", "0", "--ignore-eos"]
    command = [sys.executable, "-m", "hotplug", "generate", PROMPT, *model, *answer]
    return [*command, "--raw"] if raw else command


def peer_command(bench: Bench, count: int) -> list[str] | None:
    """The same by llama.cpp; None where it is not installed."""
    python = peer_python()
    if python is None:
        return None
    numbers = map(str, (bench.threads, CONTEXT, count))
    return [str(python), str(PEER_SCRIPT), str(bench.model), "--generate", *numbers, PROMPT]


def first_byte(command: Sequence[str]) -> float:
    """Seconds until a program writes something; it is let go on to its end."""
    began = time.perf_counter()
    with subprocess.Popen(
        command, env=users_environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        written = process.stdout.read(1)
        seconds = time.perf_counter() - began
        process.stdout.read()
    if not written or process.returncode:
        sys.exit(f"{command[0]} ended with status {process.returncode} and wrote {written!r}")
    return seconds


def users_environment() -> dict[str, str]:
    """This one, but that Python keeps modules which it has compiled, as it does for most users."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def terminal_text(command: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """Run a program; what it writes to a terminal as its standard error, None without terminals."""
    if not hasattr(os, "openpty"):
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
        return None
    ours, theirs = os.openpty()
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=theirs):
        os.close(theirs)
        text = b"".join(iter(partial(read_terminal, ours), b""))
    os.close(ours)
    return text.decode(errors="replace")


def read_terminal(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # how Linux says that the other end is closed
        return b""


SECTIONS = (
    Section("start", "process start to first token, warm cache", measure_start),
    Section("first_run", "the first run, with an empty cache", measure_first_run),
)
