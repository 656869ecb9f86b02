"""The assignment problem in numbers alone: steps, what each takes where, and what has to move.

A *step* is a node that computes something. The cost of an assignment of steps to devices is the sum
of their seconds, of a launch wherever the device changes from one step to the next, and of every
value brought to a device that needs it, once each. Steps of one *tie* share a device. Weights take
memory on each device where a step uses them.

`assign.build` makes a problem from a graph, `search.solve` solves it; `price` says what any
assignment costs, for tests and simulators that look for better ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Matrix", "Price", "Problem", "Step", "price"]

Matrix = tuple[tuple[float, ...], ...]
"""Seconds from a device (row) to a device (column)."""


class Step(NamedTuple):
    """A node that computes something; devices and other steps are known by position.

    Attributes:
        seconds: by device; infinite where it cannot run.
        crossing: seconds that its value takes from one device to another.
        reads: earlier steps whose values it needs, each once.
        brings: values that do not come from a step, see `Problem.outside`.
        shares: weights that other steps use as well, see `Problem.shared`.
        need: bytes of weights and states that no other step accounts for.
        tie: number of its tie; -1 for none.
    """

    seconds: tuple[float, ...]
    crossing: Matrix
    reads: tuple[int, ...] = ()
    brings: tuple[int, ...] = ()
    shares: tuple[int, ...] = ()
    need: int = 0
    tie: int = -1


@dataclass(frozen=True, slots=True)
class Problem:
    """Steps in the order in which they run.

    Attributes:
        steps: all of them.
        launch: by device, seconds of beginning there.
        budgets: by device, bytes; infinite for no limit.
        outside: for each value that no step makes, by device the seconds of bringing it there.
        shared: for each weight of several steps, its bytes.
    """

    steps: tuple[Step, ...]
    launch: tuple[float, ...]
    budgets: tuple[float, ...]
    outside: tuple[tuple[float, ...], ...] = ()
    shared: tuple[int, ...] = ()

    @property
    def devices(self) -> int:
        """How many there are."""
        return len(self.launch)


@dataclass(frozen=True, slots=True)
class Price:
    """What an assignment costs.

    Attributes:
        seconds: infinite where a step cannot run or a tie is broken.
        memory: bytes of weights and states by device.
    """

    seconds: float
    memory: tuple[int, ...]

    def fits(self, budgets: Sequence[float]) -> bool:
        """Whether memory is within budgets."""
        return all(used <= most for used, most in zip(self.memory, budgets, strict=True))


def price(problem: Problem, devices: Sequence[int]) -> Price:
    """Seconds and memory of an assignment.

    Args:
        problem: its steps.
        devices: for each step, the position of its device.
    """
    seconds, last = 0.0, -1
    memory = [0] * problem.devices
    held = [0] * len(problem.steps)  # by step, the devices that have its value, as bits
    outside = [0] * len(problem.outside)
    shared = [0] * len(problem.shared)
    ties: dict[int, int] = {}
    for number, (step, at) in enumerate(zip(problem.steps, devices, strict=True)):
        bit = 1 << at
        seconds += step.seconds[at]
        if at != last:
            seconds += problem.launch[at]
            last = at
        for read in step.reads:
            if not held[read] & bit:
                held[read] |= bit
                seconds += problem.steps[read].crossing[devices[read]][at]
        for item in step.brings:
            if not outside[item] & bit:
                outside[item] |= bit
                seconds += problem.outside[item][at]
        for weight in step.shares:
            if not shared[weight] & bit:
                shared[weight] |= bit
                memory[at] += problem.shared[weight]
        memory[at] += step.need
        held[number] = bit
        if step.tie >= 0 and ties.setdefault(step.tie, at) != at:
            seconds = math.inf
    return Price(seconds, tuple(memory))
