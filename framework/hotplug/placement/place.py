"""The passes in order."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from hotplug.backend import Device
from hotplug.errors import PlacementError, UsageError
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.placement.assign import assign, no_room
from hotplug.placement.build import Built, build
from hotplug.placement.cost import Peers, Rates, rates
from hotplug.placement.outline import Outline, alike, outline
from hotplug.placement.plan import MemoryUse, Plan, Stats
from hotplug.placement.residence import Homes, in_one, in_order, in_shares, restricted
from hotplug.placement.rules import find_rules
from hotplug.placement.search import Solution, alone, solve
from hotplug.placement.split import split
from hotplug.placement.support import PIECE, ask, fixed_to
from hotplug.verify import verify

__all__ = ["Wishes", "checked_shares", "place"]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asks of a placement.

    Attributes:
        pins: regular expression for names of weights, states or ops -> id of their device.
        limits: device id -> bytes that a plan may take there, computing included.
        shares: by device in order of preference, its share of the weights; None for the best.
    """

    pins: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    shares: Sequence[float] | None = None


def place(
    graph: Graph,
    devices: Sequence[Device],
    *,
    wishes: Wishes | None = None,
    budgets: Mapping[str, int | None] | None = None,
    settled: Mapping[str, str] | None = None,
    like: Plan | None = None,
    speeds: Mapping[str, Rates] | None = None,
    workload: Mapping[Graph, float] | None = None,
    peers: Peers | None = None,
    fixed: Mapping[Node, str] | None = None,
    eager: bool = False,
) -> Plan:
    """Decide where each node of a graph runs.

    Args:
        graph: what will run; it is verified first.
        devices: in order of preference.
        wishes: pins, limits and shares.
        budgets: device id -> bytes that weights and states may take there; None or absent for no
            limit.
        settled: name of a weight or state -> id of the device that it lives on already.
        like: an earlier plan, by which weights and states were to live where they are not yet.
        speeds: device id -> how fast it is; where one is absent, what it states or what is usual.
        workload: graphs like this one, itself included, -> how often each is run; what is decided
            for it is the best for all of them together. None for this one alone.
        peers: links of devices that need no host between them.
        fixed: node -> device that it belongs to, if that runs it.
        eager: whether devices are to work at the same time, see `split`.

    Raises:
        GraphError: the graph breaks a rule.
        UnsupportedOpError: a node runs on none of the devices.
        DeviceNotFoundError: a pin names a device that is not in use.
        PlacementError: there is no device, not enough memory, or a pin that cannot be honoured.
        UsageError: the workload or the shares do not fit.
    """
    began = time.perf_counter()
    if not devices:
        raise PlacementError("there is no device to run on")
    verify(graph)
    given = speeds or {}
    placer = _Placer(
        graph,
        devices,
        wishes or Wishes(),
        settled or {},
        like,
        {device.id: given.get(device.id) or rates(device.info) for device in devices},
        _runs(graph, workload),
        peers or {},
        fixed or {},
        eager,
    )
    return placer.within_limits({d.id: (budgets or {}).get(d.id) for d in devices}, began)


def _runs(graph: Graph, workload: Mapping[Graph, float] | None) -> list[tuple[Graph, float]]:
    runs = dict(workload or {graph: 1.0})
    if graph not in runs:
        raise UsageError("the workload lacks the graph that is to be placed")
    if not all(0 <= count < math.inf for count in runs.values()) or not any(runs.values()):
        raise UsageError("a workload says how often each graph is run, at least one of them")
    if not all(alike(graph, other) for other in runs):
        raise UsageError("the graphs of a workload may differ in nothing but sizes")
    return [(graph, runs.pop(graph)), *runs.items()]


@dataclass(slots=True)
class _Placer:
    graph: Graph
    devices: Sequence[Device]
    wishes: Wishes
    settled: Mapping[str, str]
    like: Plan | None
    speeds: Mapping[str, Rates]
    runs: Sequence[tuple[Graph, float]]
    peers: Peers
    fixed: Mapping[Node, str]
    eager: bool

    def within_limits(self, budgets: Mapping[str, int | None], began: float) -> Plan:
        """A plan that takes no more than the limits, intermediate values counted."""
        limits = self.wishes.limits
        rooms = {
            name: limits.get(name, room) if room is None else min(room, limits.get(name, room))
            for name, room in budgets.items()
        }
        plan: Plan | None = None
        over: dict[str, int] = {}
        for _ in range(_TRIES):
            try:
                plan = self.placed(rooms, began)
            except PlacementError:
                if plan is None:
                    raise
                break  # what it takes to compute leaves too little for weights
            over = {
                name: plan.memory[name].total - limits[name]
                for name in plan.devices
                if name in limits and plan.memory[name].total > limits[name]
            }
            if not over:
                return plan
            for name, excess in over.items():
                use = plan.memory[name]
                rooms[name] = max(0, use.weights + use.states - excess)
        assert plan is not None
        raise PlacementError(
            "; ".join(f"{name}: {_needed(plan.memory[name])}" for name in over)
            + " needed, which is more than allowed: "
            + ", ".join(f"{name}: {limits[name]}" for name in over),
            reasons={name: f"{excess} bytes too many" for name, excess in over.items()},
            remedy="raise the budget, or use more devices or a smaller context",
        )

    def placed(self, rooms: Mapping[str, int | None], began: float) -> Plan:
        """A plan whose weights and states take no more than there is room for."""
        support = fixed_to(ask(self.graph, self.devices), self.fixed)
        lines = outline(self.graph)
        rules = find_rules(lines, self.devices, self.wishes.pins, self.settled, self.like)
        known = all(speed.source != "usual" for speed in self.speeds.values())
        built = build(
            lines,
            self.devices,
            support,
            rules,
            self.speeds,
            budgets=rooms,
            settled=self.settled,
            workload=self.runs,
            peers=self.peers,
            known=known,
        )
        found = alone(built.problem) if self.wishes.shares is None else None
        if found is not None:
            homes = {} if known else in_one(built.problem)
        else:
            homes = self.homes(lines, built, known=known)
            found = self.solved(lines, built, homes, known=known)
        choices = assign(lines, built, found, homes, known=known)
        parts = split(self.graph, choices, eager=self.eager)
        limits = {name: self.wishes.limits.get(name, room) for name, room in rooms.items()}
        stats = Stats(
            time.perf_counter() - began,
            known,
            found.exact,
            1 - found.least / found.seconds if known and found.seconds else 0.0,
            found.labels,
            self.wishes.shares is not None and len(self.devices) > 1,
            *_refusals(lines, built, found, self._idle()),
        )
        return Plan(
            self.graph,
            parts,
            choices,
            limits,
            self.speeds,
            stats,
            self.peers,
            at_once=self.eager,
        )

    def homes(self, lines: Outline, built: Built, *, known: bool) -> Homes:
        """Homes that are given before time is looked at."""
        if self.wishes.shares is not None:
            return in_shares(built.problem, checked_shares(self.wishes.shares, len(self.devices)))
        if known:
            return {}
        return in_order(built.problem, built.ids, lines.steps, built.refused)

    def solved(self, lines: Outline, built: Built, homes: Homes, *, known: bool) -> Solution:
        """The best assignment.

        Raises:
            PlacementError: there is not enough memory.
        """
        problem = built.problem
        if self.wishes.shares is not None:
            problem = restricted(problem, homes, keep_budgets=True)
        elif not known:
            problem = restricted(problem, homes)
        found = solve(problem, _TOLERANCE)
        if found is None:
            raise no_room(built, lines, shared_out=self.wishes.shares is not None)
        return found

    def _idle(self) -> set[str]:
        """Devices that are to get nothing, by their share or by their budget."""
        shares = self.wishes.shares or [1] * len(self.devices)
        limits = self.wishes.limits
        given = zip(self.devices, shares, strict=True)
        return {device.id for device, share in given if not share or limits.get(device.id) == 0}


def _needed(use: MemoryUse) -> str:
    computing = use.values + use.arena
    return f"{use.total} bytes, {computing} of them to compute and for what crosses,"


Counts = Counter[tuple[str, str]]


def _refusals(
    lines: Outline, built: Built, found: Solution, idle: Collection[str]
) -> tuple[Counts, Counts, dict[tuple[str, str], str]]:
    """(device, op) -> nodes that it does not run; those that run on a later one for that; why.

    What is pinned to the later one would not have run on the earlier, and nothing on those that are
    to be idle.
    """
    refused, passed = Counts(), Counts()
    why: dict[tuple[str, str], str] = {}
    place = {name: number for number, name in enumerate(built.ids)}
    steps = zip(lines.steps, built.refused, found.devices, strict=True)
    for number, (node, reasons, at) in enumerate(steps):
        rule = built.rules.steps.get(number)
        for name, reason in reasons.items():
            key = name, node.op
            if reason.startswith(PIECE):
                continue
            refused[key] += 1
            if place[name] < at and name not in idle and not (rule and rule.firm):
                passed[key] += 1
                why.setdefault(key, reason)
    return refused, passed, why


def checked_shares(shares: Sequence[float], count: int) -> Sequence[float]:
    """Shares that make sense for so many devices.

    Raises:
        UsageError: they do not.
    """
    usable = len(shares) == count and all(share >= 0 for share in shares)
    if not usable or not 0 < sum(shares) < math.inf:
        raise UsageError(
            f"a split needs a share of 0 or more for each of the {count} devices in use, "
            f"not {list(shares)}"
        )
    return shares


_TOLERANCE = 0.01
"""An assignment that is known to be as near to the best as this is good enough."""

_TRIES = 4
"""How often a plan is made with less room for weights because its computing took too much."""
