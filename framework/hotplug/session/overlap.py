"""Several devices at work at once: at parts of a run that do not need each other, at several runs.

There are as many threads as devices. Each takes a task of any device that does nothing, the
earliest run's first, as soon as what it waits for is done (`hotplug.placement.schedule`); so nobody
waits for another thread where one device simply follows on another. Runs in flight use the same
executables and states, and each a set of buffers of its own for what goes in, out and across.
"""

from __future__ import annotations

import heapq
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from hotplug.backend import Buffer
from hotplug.placement.schedule import Task
from hotplug.session.faults import DeviceFault
from hotplug.session.step import Step
from hotplug.session.values import Slot

if TYPE_CHECKING:
    from hotplug.session.compiled import Compiled
    from hotplug.session.control import Control
    from hotplug.session.watch import Watch

__all__ = ["Lane", "Overlap", "new_lane", "run_overlapped"]

Lane: TypeAlias = "list[Step]"
"""The steps over one set of buffers for what goes in, out and across."""


class Overlap:
    """Tasks of some runs on their way.

    Args:
        lanes: steps over each set of buffers.
        waits: see `hotplug.placement.schedule.tasks`.
        work: does a step of a run; raises if it fails.

    Attributes:
        begun: how many tasks were begun.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        waits: Mapping[Task, set[Task]],
        work: Callable[[Step, int], None],
    ) -> None:
        self.begun = 0
        self._lanes = lanes
        self._work = work
        self._missing = {task: len(needed) for task, needed in waits.items()}
        self._followers: dict[Task, list[Task]] = {task: [] for task in waits}
        for task, needed in waits.items():
            for other in needed:
                self._followers[other].append(task)
        self._left = len(waits)
        self._left_of = Counter(task.run for task in waits)
        self._ready: dict[str, list[Task]] = {step.device: [] for step in lanes[0]}
        for task, count in self._missing.items():
            if not count:
                heapq.heappush(self._ready[self._step(task).device], task)
        self._busy: set[str] = set()
        self._idle = 0
        self._threads: list[threading.Thread] = []
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    @property
    def completed(self) -> int:
        """How many runs, from the first on, have been done to their end."""
        runs = sorted(self._left_of)
        return next((run for run in runs if self._left_of[run]), len(runs))

    def run(self) -> None:
        """Do all tasks, in this thread and, where there is work for them, in others.

        Raises:
            Exception: what the first task that failed raised; none is on its way any more.
        """
        try:
            self._serve()
        finally:
            for thread in self._threads:
                thread.join()
        if self._error is not None:
            raise self._error

    def _serve(self) -> None:
        try:
            while (task := self._next()) is not None:
                self._work(self._step(task), task.run)
                self._finish(task)
        except BaseException as error:  # noqa: BLE001 - raised again by `run`
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def _next(self) -> Task | None:
        """A task of a device that does nothing; None when there will be no more."""
        with self._changed:
            while self._left and self._error is None:
                device = min(self._able(), key=lambda name: self._ready[name][0], default=None)
                if device is not None:
                    self._busy.add(device)
                    self.begun += 1
                    task = heapq.heappop(self._ready[device])
                    self._call_others(len(self._able()))
                    return task
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
        return None

    def _able(self) -> list[str]:
        """Devices that have something to do and do nothing."""
        return [name for name, tasks in self._ready.items() if tasks and name not in self._busy]

    def _call_others(self, count: int) -> None:
        """Let so many other threads look for tasks."""
        self._changed.notify(count)
        for _ in range(count - self._idle):
            if len(self._threads) + 1 < len(self._ready):
                number = len(self._threads) + 1
                thread = threading.Thread(target=self._serve, name=f"hotplug-run-{number}")
                self._threads.append(thread)
                thread.start()

    def _finish(self, task: Task) -> None:
        with self._changed:
            self._busy.discard(self._step(task).device)
            self._left -= 1
            self._left_of[task.run] -= 1
            for follower in self._followers[task]:
                self._missing[follower] -= 1
                if not self._missing[follower]:
                    heapq.heappush(self._ready[self._step(follower).device], follower)
            if not self._left:
                self._changed.notify_all()

    def _step(self, task: Task) -> Step:
        return self._lanes[task.run % len(self._lanes)][task.part]


def new_lane(
    steps: Sequence[Step], allocate: Callable[[str, Buffer], Buffer], kept: Sequence[Buffer]
) -> Lane:
    """The same steps over buffers of their own.

    Args:
        steps: those of another lane.
        allocate: gives a buffer like one of a device's.
        kept: buffers that all lanes share: weights and states.
    """
    same = {id(buffer) for buffer in kept}
    new: dict[int, Buffer] = {}

    def own(device: str, buffer: Buffer) -> Buffer:
        if id(buffer) in same:
            return buffer
        if id(buffer) not in new:
            new[id(buffer)] = allocate(device, buffer)
        return new[id(buffer)]

    def slot(device: str, old: Slot) -> Slot:
        return Slot(old.name, old.type, own(device, old.buffer))

    staged: dict[int, memoryview] = {}

    def stage(old: memoryview) -> memoryview:
        if id(old) not in staged:
            staged[id(old)] = memoryview(bytearray(old.nbytes))
        return staged[id(old)]

    return [
        replace(
            step,
            bindings={name: own(step.device, held) for name, held in step.bindings.items()},
            inputs=[(number, slot(step.device, old)) for number, old in step.inputs],
            transfers=[
                replace(
                    old,
                    made=own(old.source, old.made),
                    received=own(step.device, old.received),
                    staged=None if old.staged is None else stage(old.staged),
                )
                for old in step.transfers
            ],
            made={name: slot(step.device, old) for name, old in step.made.items()},
            handed={name: stage(old) for name, old in step.handed.items()},
            selections=[
                replace(old, ids=slot(old.source, old.ids), places=own(step.device, old.places))
                for old in step.selections
            ],
            outputs=[(name, slot(step.device, old)) for name, old in step.outputs],
        )
        for step in steps
    ]


def run_overlapped(
    compiled: Compiled,
    batch: Sequence[Mapping[str, Any]],
    depth: int,
    done: list[dict[str, Any]],
    control: Control | None = None,
    watch: Watch | None = None,
) -> None:
    """Run a graph for each of some inputs as if one after the other, with several in flight.

    Args:
        compiled: the graph.
        batch: inputs of each run.
        depth: sets of buffers, which runs take in turn.
        done: results are added here, even if a later run fails.
        control: what ends the runs from outside.
        watch: whose trace, if any, is kept; there must be no observers.

    Raises:
        UsageError: inputs are not those of the graph; nothing has been done.
        DeviceFault: a device failed on the way.
        RunCancelledError: the runs were ended from outside.
    """
    arrays = [compiled.arrays(inputs) for inputs in batch]
    results: list[dict[str, Any]] = [{} for _ in batch]
    trace = watch.trace if watch else None
    began = trace.now() if trace else 0.0

    def work(step: Step, run: int) -> None:
        compiled.in_turn(step, arrays[run], results[run], control, watch)

    lanes = compiled.lanes(min(depth, len(batch)))
    overlap = Overlap(lanes, compiled.waits(len(batch), len(lanes)), work)
    try:
        overlap.run()
    except DeviceFault as fault:
        fault.clean = fault.clean and overlap.begun == 1
        raise
    finally:
        ended = results[: overlap.completed]
        done += [{name: found[name] for name in compiled.names} for found in ended]
    if trace:
        nodes = len(compiled.plan.graph.nodes)
        trace.span("run", f"{len(batch)} run(s) of {nodes} nodes", began)
