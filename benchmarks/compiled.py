"""Rows of a plan for one compiled kernel, and timing of actions that take turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from hotplug_cpu.catalog import ROW_WORDS, kernel
from hotplug_cpu.jit import loader


def row(name: str, **arguments: object) -> list[int]:
    """A plan's row with a barrier after it: arrays stand for their addresses."""
    assert tuple(arguments) == kernel(name).arguments
    words = [
        value.ctypes.data if isinstance(value, np.ndarray) else int(value)  # type: ignore[call-overload]
        for value in arguments.values()
    ]
    head = [loader.load([name])[name], 1]
    return [*head, *words, *[0] * (ROW_WORDS - len(head) - len(words))]


def fastest(actions: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Seconds of each action, which take turns."""
    best = [float("inf")] * len(actions)
    for _ in range(repeats):
        for index, action in enumerate(actions):
            start = time.perf_counter()
            action()
            best[index] = min(best[index], time.perf_counter() - start)
    return best
