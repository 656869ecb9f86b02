"""Runs a batch: which threads execute which block next.

Threads that are at the same block go together, lowest block first (see flow.py). A warp's exchange
waits until all other threads have gone as far as they can, and a barrier until all have. A thread
that looks at memory again and again until another has written there may wait for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hotplug.testing.ptx.batch import Batch
from hotplug.testing.ptx.errors import DivergenceFault
from hotplug.testing.ptx.syntax import Instruction
from hotplug.testing.ptx.types import Lanes

__all__ = ["Step", "run"]


@dataclass(frozen=True, slots=True)
class Step:
    """A block that can be run.

    Attributes:
        function: what executes it for threads; returns what the condition of its branch is.
        kind: of the block.
        successors: blocks after it.
        indexed: whether the condition is an index into the successors.
        negated: whether a predicate that does not hold takes the branch.
        live: registers that it or later blocks read.
        instruction: its first, or None.
    """

    function: Any
    kind: str
    successors: tuple[int, ...]
    indexed: bool
    negated: bool
    live: frozenset[str]
    instruction: Instruction | None


def run(batch: Batch, steps: Sequence[Step]) -> None:
    """Run all threads of a batch to their end.

    Raises:
        KernelFault: one of its kinds.
    """
    _Schedule(batch, steps).run()


class _Schedule:
    def __init__(self, batch: Batch, steps: Sequence[Step]) -> None:
        self._batch = batch
        self._steps = steps
        self._waiting: dict[int, list[Lanes]] = {0: [None]}
        self._parked: dict[int, list[Lanes]] = {}
        self._barriers: dict[int, list[Lanes]] = {}
        self._alive = batch.size

    def run(self) -> None:
        while True:
            if self._waiting:
                self._advance(self._waiting)
            elif self._parked:
                self._advance(self._parked)
            elif self._barriers:
                self._release()
            else:
                return

    def _advance(self, queue: dict[int, list[Lanes]]) -> None:
        index = min(queue)
        lanes = self._joined(queue.pop(index))
        step = self._steps[index]
        if lanes is not None and len(lanes) == self._alive:
            self._batch.keep(lanes, step.live)
            lanes = None
        condition = step.function(self._batch, lanes)
        successors = step.successors
        if not successors:
            self._end(lanes)
        elif len(successors) == 1 and not step.indexed:
            self._go(successors[0], lanes)
        elif step.indexed:
            self._select(step, condition, lanes)
        else:
            self._branch(step, condition, lanes)

    def _end(self, lanes: Lanes) -> None:
        self._alive -= self._batch.size if lanes is None else len(lanes)
        self._batch.alive[slice(None) if lanes is None else lanes] = False

    def _joined(self, parts: list[Lanes]) -> Lanes:
        if len(parts) == 1:
            return parts[0]
        lanes = np.concatenate([part for part in parts if part is not None])
        if len(lanes) == self._batch.size:
            return None
        lanes.sort()
        return lanes

    def _go(self, index: int, lanes: Lanes) -> None:
        kind = self._steps[index].kind
        if kind == "plain":
            queue = self._waiting
        else:
            queue = self._parked if kind == "exchange" else self._barriers
        queue.setdefault(index, []).append(lanes)

    def _branch(self, step: Step, condition: Any, lanes: Lanes) -> None:
        no, yes = step.successors[::-1] if step.negated else step.successors
        if condition.ndim == 0:
            self._go(yes if condition else no, lanes)
            return
        count = int(np.count_nonzero(condition))
        if count in (0, len(condition)):
            self._go(yes if count else no, lanes)
            return
        self._go(yes, _chosen(condition, lanes))
        self._go(no, _chosen(~condition, lanes))

    def _select(self, step: Step, index: Any, lanes: Lanes) -> None:
        if index.ndim == 0:
            self._go(step.successors[int(index)], lanes)
            return
        for value in np.unique(index).tolist():
            self._go(step.successors[value], _chosen(index == value, lanes))

    def _release(self) -> None:
        """Nobody can go on but through barriers: all threads of each block must be at one."""
        self._check()
        if self._batch.races is not None:
            self._batch.races.barrier()
        passed, self._barriers = self._barriers, {}
        for index, parts in passed.items():
            step = self._steps[index]
            lanes = self._joined(parts)
            step.function(self._batch, lanes)
            self._go(step.successors[0], lanes)

    def _check(self) -> None:
        batch = self._batch
        first = int(batch.block.min())
        at = np.full(int(batch.block.max()) - first + 1, -1)
        for index, parts in self._barriers.items():
            lanes = self._joined(parts)
            if lanes is None and batch.is_whole:
                return
            blocks = (batch.block if lanes is None else batch.block[lanes]) - first
            arrived = np.bincount(blocks, minlength=len(at))
            some = arrived > 0
            if (some & (arrived < batch.geometry.threads)).any() or (some & (at >= 0)).any():
                block = int(np.argmax(some & ((arrived < batch.geometry.threads) | (at >= 0))))
                raise self._diverged(index, block + first, int(arrived[block]))
            at[some] = index

    def _diverged(self, index: int, block: int, arrived: int) -> DivergenceFault:
        instruction = self._steps[index].instruction
        assert instruction is not None
        geometry = self._batch.geometry
        who = self._batch.describe(block, 0).partition(" of ")[2]
        return DivergenceFault(
            f"`{instruction.text}` (line {instruction.line}) of {geometry.kernel}: {arrived} of the"
            f" {geometry.threads} threads of {who} are at this barrier; the others ended or are at"
            " another"
        )


def _chosen(condition: npt.NDArray[np.bool_], lanes: Lanes) -> npt.NDArray[np.intp]:
    return np.flatnonzero(condition) if lanes is None else lanes[condition]
