"""Threads that do the work of many sessions, taking turns between clients and their sessions.

A *lane* is a queue whose jobs are done one after the other. Lanes belong to *clients*. Of the
clients that wait, each gets one job done before the first gets its second, and so do the lanes of
one client, so that neither many requests nor many sessions keep others away.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from weakref import WeakValueDictionary

__all__ = ["Desk", "Job"]

_log = logging.getLogger("hotplug.rpc")


@dataclass(frozen=True, slots=True)
class Job:
    """Something to be done.

    Attributes:
        id: the request's number.
        work: does it; must not raise.
        nbytes: of its payload.
        rest: what is to be done in its turn although it was taken back, if anything.
    """

    id: int
    work: Callable[[], None]
    nbytes: int = 0
    rest: Callable[[], None] | None = None


@dataclass(slots=True, eq=False, weakref_slot=True)
class _Client:
    """Lanes with jobs of which none has begun, and how many jobs have."""

    lanes: deque[_Lane] = field(default_factory=deque)
    busy: int = 0


@dataclass(slots=True, eq=False)
class _Lane:
    key: Hashable
    client: _Client
    jobs: deque[Job] = field(default_factory=deque)
    busy: bool = False


class Desk:
    """Some threads and the lanes that they serve.

    Args:
        name: of the threads.
        threads: how many.
        most: of them that are busy for one client; None for all.
    """

    def __init__(self, name: str, threads: int = 1, most: int | None = None) -> None:
        self._most = most or threads
        self._lanes: dict[Hashable, _Lane] = {}
        self._clients: WeakValueDictionary[Hashable, _Client] = WeakValueDictionary()
        self._ready: deque[_Client] = deque()  # those with lanes that may be served, each once
        self._wakeup = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"{name}-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, lane: Hashable, job: Job, client: Hashable = None) -> None:
        """Queue a job in a lane, which is the client's."""
        with self._wakeup:
            queue = self._lanes.get(lane)
            if queue is None:
                owner = self._clients.setdefault(client, _Client())
                queue = self._lanes[lane] = _Lane(lane, owner)
            queue.jobs.append(job)
            if not queue.busy and len(queue.jobs) == 1:
                queue.client.lanes.append(queue)
                self._make_ready(queue.client)

    def _make_ready(self, client: _Client) -> None:
        if client.lanes and client.busy < self._most and client not in self._ready:
            self._ready.append(client)
            self._wakeup.notify()

    def serves(self, lane: Hashable) -> bool:
        """Whether a job of a lane waits, or has begun and not ended."""
        with self._wakeup:
            return lane in self._lanes

    def remove(self, lane: Hashable, job: int) -> Job | None:
        """Take a job back and return it; None if it has begun, is not there, or has a rest."""
        with self._wakeup:
            queue = self._lanes.get(lane)
            found = next((j for j in queue.jobs if j.id == job), None) if queue else None
            if queue is None or found is None:
                return None
            if found.rest is not None:
                queue.jobs[queue.jobs.index(found)] = replace(found, work=found.rest)
                return None
            queue.jobs.remove(found)
            self._forget_if_empty(queue)
            return found

    def clear(self, lane: Hashable) -> None:
        """Take back all jobs of a lane that have not begun."""
        with self._wakeup:
            queue = self._lanes.get(lane)
            if queue is not None:
                queue.jobs.clear()
                self._forget_if_empty(queue)

    def _forget_if_empty(self, queue: _Lane) -> None:
        if queue.jobs or queue.busy:
            return
        self._lanes.pop(queue.key, None)
        client = queue.client
        if queue in client.lanes:
            client.lanes.remove(queue)
        if not client.lanes and client in self._ready:
            self._ready.remove(client)

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
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _serve(self) -> None:
        while True:
            with self._wakeup:
                while not self._ready and not self._closed:
                    self._wakeup.wait()
                if not self._ready:
                    return
                queue, job = self._begin(self._ready.popleft())
            try:
                job.work()
            except Exception:  # noqa: BLE001 - one job's fault must not end the thread of all
                _log.exception("a job failed beside its answer")
            with self._wakeup:
                self._end(queue)

    def _begin(self, client: _Client) -> tuple[_Lane, Job]:
        queue = client.lanes.popleft()
        queue.busy = True
        client.busy += 1
        self._make_ready(client)
        return queue, queue.jobs.popleft()

    def _end(self, queue: _Lane) -> None:
        queue.busy = False
        queue.client.busy -= 1
        if queue.jobs:
            queue.client.lanes.append(queue)
        self._forget_if_empty(queue)
        self._make_ready(queue.client)
