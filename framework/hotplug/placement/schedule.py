"""When parts of a plan may run, and when they will: several runs of one plan in flight at once.

A *task* is one part in one of several runs, such as the micro-batches of a long prompt. It waits
for the parts that make what it takes, or bring it to its device before it does; for itself in the
run before, since an executable has one arena; for whoever of the run before still reads or updates
its states; and, as there are only `depth` sets of buffers, for whoever still uses those that it
writes, also for other values in the same memory (`hotplug.placement.rooms`). All else may overlap.

`simulate` plays tasks on devices that each do one at a time, the earliest run first. So a session
chooses how many sets of buffers to have, and `hotplug.testing.simulator` looks at machines that are
not here.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.placement.cost import Rates, work, work_seconds
from hotplug.placement.rooms import Held, rooms, uses
from hotplug.verify import CROSSING

if TYPE_CHECKING:
    from hotplug.placement.plan import Part

__all__ = [
    "Cost",
    "Event",
    "Task",
    "balanced_shares",
    "best_depth",
    "simulate",
    "tasks",
    "within_a_run",
]

_WORTH = 0.99
"""Another set of buffers is taken if it leaves less than this share of the time."""


@dataclass(frozen=True, slots=True, order=True)
class Task:
    """A part of one run.

    Attributes:
        run: number of the run.
        part: number of the part in its plan.
    """

    run: int
    part: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a part takes.

    Attributes:
        device: id of the device.
        receive: seconds of bringing values from other devices.
        compute: seconds of its nodes.
    """

    device: str
    receive: float
    compute: float


@dataclass(frozen=True, slots=True)
class Event:
    """A task that has run, in seconds since the start.

    Attributes:
        task: which.
        device: where.
        began: when it began to receive.
        computed: when it began to compute.
        ended: when it was done.
    """

    task: Task
    device: str
    began: float
    computed: float
    ended: float


def tasks(parts: Sequence[Part], runs: int, depth: int) -> dict[Task, set[Task]]:
    """All tasks of some runs, and what each must wait for.

    Args:
        parts: of a plan, in an order in which they can run.
        runs: how many.
        depth: sets of buffers, which runs take in turn.
    """
    held, touching = uses(parts), _touching(parts)
    within = _within(parts, held, touching)
    users = _users(parts, held, rooms(parts, within))
    waits: dict[Task, set[Task]] = {}
    for run in range(runs):
        for part in range(len(parts)):
            needed = {Task(run, other) for other in within[part]}
            needed |= {Task(run - 1, other) for other in touching[part] if other > part}
            needed.add(Task(run - 1, part))
            needed |= {Task(run - depth, other) for other in users[part]}
            waits[Task(run, part)] = {task for task in needed if task.run >= 0}
    return waits


def within_a_run(parts: Sequence[Part]) -> list[set[int]]:
    """For each part the earlier ones of the same run that it waits for."""
    return _within(parts, uses(parts), _touching(parts))


def _within(
    parts: Sequence[Part], held: Mapping[Held, Sequence[int]], touching: Sequence[set[int]]
) -> list[set[int]]:
    """Those that make what a part brings, bring what it finds, or were to use its states first."""
    makers = {name: number for number, part in enumerate(parts) for name, _ in part.graph.outputs}
    found = []
    for number, part in enumerate(parts):
        needed = {other for other in touching[number] if other < number}
        for name in part.graph.inputs:
            writer = held[part.device, name][0]
            if writer != number:
                needed.add(writer)
            elif name.startswith(CROSSING):
                needed.add(makers[name])
        found.append(needed)
    return found


def _users(
    parts: Sequence[Part], held: Mapping[Held, Sequence[int]], shared: Mapping[Held, str]
) -> list[set[int]]:
    """For each part those that use memory which it writes: of what it makes, and what it brings."""
    rooms_users: dict[Held, set[int]] = {}
    for (device, name), numbers in held.items():
        room = device, shared.get((device, name), name)
        rooms_users.setdefault(room, set()).update(numbers)
    users: list[set[int]] = [set() for _ in parts]
    for (device, name), numbers in held.items():
        users[numbers[0]] |= rooms_users[device, shared.get((device, name), name)]
    return users


def _touching(parts: Sequence[Part]) -> list[set[int]]:
    """For each part the others that use a state of its, where one of the two changes it."""
    found: list[set[int]] = [set() for _ in parts]
    used = [set(part.graph.states) for part in parts]
    changed = [{name for name, _ in part.graph.updates} for part in parts]
    holders: dict[str, list[int]] = {}
    for number, names in enumerate(used):
        for name in names:
            holders.setdefault(name, []).append(number)
    for name, numbers in holders.items():
        for one in numbers:
            others = {n for n in numbers if n != one and name in changed[one] | changed[n]}
            found[one] |= others
    return found


def balanced_shares(graph: Graph, speeds: Sequence[Rates]) -> list[float]:
    """Shares of a graph's weights, in bytes, for devices one behind the other to be equally busy.

    Bytes are not work: of an embedding, which may be large, only some rows are read.
    """
    nodes = [node for node in graph.nodes if not node.is_leaf]
    works = [work(node) for node in nodes]
    paces = [1 / sum(work_seconds(one, speed) for one in works) for speed in speeds]
    done = list(accumulate(work_seconds(one, speeds[0]) for one in works))
    met: set[Node] = set()
    held = list(accumulate(_new_bytes(node, met) for node in nodes))
    ends = [done[-1] * part / sum(paces) for part in accumulate(paces)]
    bounds = [held[min(bisect_left(done, end), len(held) - 1)] for end in ends]
    return [float(stop - start) for start, stop in pairwise([0, *bounds])]


def _new_bytes(node: Node, met: set[Node]) -> int:
    """Bytes of weights and states that a node is the first to take."""
    new = {leaf for leaf in node.operands if leaf.op in {"weight", "state"}} - met
    met |= new
    return sum(leaf.type.nbytes for leaf in new)


def simulate(
    waits: Mapping[Task, set[Task]],
    costs: Sequence[Cost],
    receive: Callable[[int, float], float] | None = None,
) -> list[Event]:
    """When each task runs, if each device does one at a time, the first of those that can.

    Args:
        waits: what `tasks` gave.
        costs: of each part, by its number.
        receive: takes a part that has its turn, and when; tells when it has received all that it
            needs. By default the time that its cost says.
    """
    missing = {task: len(needed) for task, needed in waits.items()}
    followers: dict[Task, list[Task]] = {task: [] for task in waits}
    for task, needed in waits.items():
        for other in needed:
            followers[other].append(task)
    ready: dict[str, list[Task]] = {cost.device: [] for cost in costs}
    for task, count in missing.items():
        if not count:
            heapq.heappush(ready[costs[task.part].device], task)
    free = set(ready)
    running: list[tuple[float, Task]] = []
    events: list[Event] = []
    now = 0.0
    while True:
        for device in sorted(free):
            if ready[device]:
                task = heapq.heappop(ready[device])
                cost = costs[task.part]
                computed = receive(task.part, now) if receive else now + cost.receive
                events.append(Event(task, device, now, computed, computed + cost.compute))
                heapq.heappush(running, (events[-1].ended, task))
                free.discard(device)
        if not running:
            return events
        now, done = heapq.heappop(running)
        free.add(costs[done.part].device)
        for follower in followers[done]:
            missing[follower] -= 1
            if not missing[follower]:
                heapq.heappush(ready[costs[follower.part].device], follower)


def best_depth(parts: Sequence[Part], costs: Sequence[Cost], runs: int) -> tuple[int, float]:
    """How many sets of buffers to have, and how long all runs then take.

    Another is taken as long as it is worth its memory; never more than there are devices and one.
    """
    most = min(runs, len({cost.device for cost in costs}) + 1)
    best, least = 1, float("inf")
    for depth in range(1, most + 1):
        seconds = max(event.ended for event in simulate(tasks(parts, runs, depth), costs))
        if seconds < _WORTH * least:
            best, least = depth, seconds
    return best, least
