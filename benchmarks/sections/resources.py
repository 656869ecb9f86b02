"""Memory, processor time while nothing happens, and what a second thread brings."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import psutil
from bench import NO_PEER, Bench, Outcome, Section, bytes_per_token
from figures import Row, at_least, at_most, rounded
from peak import peak_bytes
from programs import Hotplug, decode, prefill, take_turns

from sections.generation import bound_row
from sections.startup import CONTEXT, hotplug_command, peer_command

__all__ = ["SECTIONS"]

_TOKENS = 128
_IDLE_SECONDS = 3.0


def measure_memory(bench: Bench) -> Outcome:
    ours = peak_megabytes(bench, hotplug_command(bench, _TOKENS))
    command = peer_command(bench, _TOKENS)
    theirs = peak_megabytes(bench, command) if command else None
    what = f"peak memory, {_TOKENS} tokens, context {CONTEXT}"
    if theirs is None:
        return Outcome([Row(what, ours, "MB", None, {"llama.cpp": NO_PEER})])
    return Outcome([Row(what, ours, "MB", at_most(theirs), {"llama.cpp": theirs})])


def peak_megabytes(bench: Bench, command: Sequence[str]) -> float:
    """The median of some processes."""
    peaks = [peak_bytes(command) for _ in range(bench.rounds)]
    return rounded(statistics.median(peaks) / 1e6)


def measure_idle(bench: Bench) -> Outcome:
    used = max(idle_seconds(bench) for _ in range(bench.rounds))
    detail = {"over": f"{_IDLE_SECONDS:g} s after an answer", "most of": f"{bench.rounds} chats"}
    return Outcome([Row("CPU time of an idle chat", used, "s", at_most(0), detail)])


def idle_seconds(bench: Bench) -> float:
    """Of the processor, which a chat uses while nobody asks anything."""
    command = [sys.executable, "-m", "hotplug", "chat", "-m", str(bench.model), "-d", "cpu"]
    command += ["-n", "32", "-t", str(bench.threads), "--json"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as chat:
        assert chat.stdin is not None
        assert chat.stdout is not None
        chat.stdin.write(b"Tell me about harbours.\n")
        chat.stdin.flush()
        if not chat.stdout.readline():
            sys.exit("the chat gave no answer")
        time.sleep(0.5)
        before = busy_seconds(chat.pid)
        time.sleep(_IDLE_SECONDS)
        used = rounded(busy_seconds(chat.pid) - before)
        chat.stdin.close()
    return used


def busy_seconds(process: int) -> float:
    times = psutil.Process(process).cpu_times()
    return float(times.user + times.system)


def measure_scaling(bench: Bench) -> Outcome:
    two_threads = dataclasses.replace(bench, threads=2)
    with contextlib.ExitStack() as held:
        programs = [Hotplug(bench.model, threads, 2048) for threads in (1, 2)]
        for program in programs:
            held.callback(program.close)
        reading = take_turns([partial(prefill(512), p) for p in programs], bench.rounds)
        actions: list[Callable[[], float]] = [two_threads.reader.speed]
        actions += [partial(decode(64), program) for program in programs]
        making = take_turns(actions, bench.rounds)
    speeds = [turn[0] for turn in making]
    bound = bound_row(
        "decode, 2 threads",
        speeds,
        [turn[2] for turn in making],
        bytes_per_token(bench.model),
        0.85,
    )
    gain = rounded(statistics.median(turn[2] / turn[1] for turn in making))
    return Outcome(
        [
            scaling_row("prefill, 1 -> 2 threads", reading),
            Row("decode, 1 -> 2 threads", gain, "x", None, {"bound": "see the next row"}),
            bound,
        ]
    )


def scaling_row(what: str, turns: list[list[float]]) -> Row:
    """How many times faster two threads are, of rates [with one, with two] round by round."""
    one, two = (rounded(statistics.median(column)) for column in zip(*turns, strict=True))
    gain = rounded(statistics.median(two / one for one, two in turns))
    return Row(what, gain, "x", at_least(1.8), {"1 thread": one, "2 threads": two})


SECTIONS = (
    Section("memory", "peak memory", measure_memory),
    Section("idle", "processor time while idle", measure_idle),
    Section("threads", "one thread and two", measure_scaling),
)
