"""Threads that do the work of many sessions, taking turns between them.

A *lane* is a queue whose jobs are done one after the other. Of the lanes that wait, each gets one
job done before the first gets its second, so that a client with many requests does not keep others
away.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

__all__ = ["Desk", "Job"]

_log = logging.getLogger("hotplug.rpc")


@dataclass(frozen=True, slots=True)
class Job:
    """Something to be done.

    Attributes:
        id: the request's number.
        work: does it; must not raise.
        nbytes: of its payload.
    """

    id: int
    work: Callable[[], None]
    nbytes: int = 0


@dataclass(slots=True, eq=False)
class _Lane:
    jobs: deque[Job] = field(default_factory=deque)
    busy: bool = False


class Desk:
    """Some threads and the lanes that they serve."""

    def __init__(self, name: str, threads: int = 1) -> None:
        self._lanes: dict[Hashable, _Lane] = {}
        self._ready: deque[tuple[Hashable, _Lane]] = deque()
        self._wakeup = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"{name}-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, lane: Hashable, job: Job) -> None:
        """Queue a job."""
        with self._wakeup:
            queue = self._lanes.setdefault(lane, _Lane())
            queue.jobs.append(job)
            if not queue.busy and len(queue.jobs) == 1:
                self._ready.append((lane, queue))
                self._wakeup.notify()

    def remove(self, lane: Hashable, job: int) -> Job | None:
        """Take a job back and return it; None if it has begun, or is not there."""
        with self._wakeup:
            queue = self._lanes.get(lane)
            found = next((j for j in queue.jobs if j.id == job), None) if queue else None
            if queue is None or found is None:
                return None
            queue.jobs.remove(found)
            self._forget_if_empty(lane, queue)
            return found

    def clear(self, lane: Hashable) -> None:
        """Take back all jobs of a lane that have not begun."""
        with self._wakeup:
            queue = self._lanes.get(lane)
            if queue is not None:
                queue.jobs.clear()
                self._forget_if_empty(lane, queue)

    def _forget_if_empty(self, lane: Hashable, queue: _Lane) -> None:
        if queue.jobs or queue.busy:
            return
        self._lanes.pop(lane, None)
        if (lane, queue) in self._ready:
            self._ready.remove((lane, queue))

    @property
    def waiting(self) -> int:
        """Jobs that have not begun."""
        with self._wakeup:
            return sum(len(queue.jobs) for queue in self._lanes.values())

    def close(self, seconds: float = 5.0) -> None:
        """End the threads once what they are at is done; waits for them for at most so long."""
        with self._wakeup:
            self._closed = True
            self._wakeup.notify_all()
        for thread in self._threads:
            thread.join(seconds)

    def _serve(self) -> None:
        while True:
            with self._wakeup:
                while not self._ready and not self._closed:
                    self._wakeup.wait()
                if not self._ready:
                    return
                lane, queue = self._ready.popleft()
                job = queue.jobs.popleft()
                queue.busy = True
            try:
                job.work()
            except Exception:  # noqa: BLE001 - one job's fault must not end the thread of all
                _log.exception("a job failed beside its answer")
            with self._wakeup:
                queue.busy = False
                if queue.jobs:
                    self._ready.append((lane, queue))
                    self._wakeup.notify()
                else:
                    self._forget_if_empty(lane, queue)
