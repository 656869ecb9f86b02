"""Sixth pass: a device for every node, and the reason, from what the search found."""

from __future__ import annotations

import math
from collections.abc import Mapping

from hotplug import ops
from hotplug.amounts import time_text
from hotplug.errors import PlacementError
from hotplug.node import Node
from hotplug.placement.build import Built
from hotplug.placement.outline import Outline
from hotplug.placement.plan import Choice
from hotplug.placement.residence import Homes
from hotplug.placement.search import Solution

__all__ = ["assign", "no_room"]


def assign(
    outline: Outline, built: Built, solution: Solution, homes: Homes, *, known: bool
) -> dict[Node, Choice]:
    """The device of every node with the reason; an input's is that of its first user.

    Args:
        outline: the graph.
        built: its problem.
        solution: of the problem.
        homes: what had a home before the search.
        known: whether speeds decided.
    """
    teller = _Teller(outline, built, solution, homes, known=known)
    choices = {node: teller.step(number) for number, node in enumerate(outline.steps)}
    users = _first_users(outline)
    for position, node in enumerate(outline.graph.nodes):
        if node.is_leaf:
            choices[node] = teller.leaf(node, users.get(position), choices)
    return choices


def _first_users(outline: Outline) -> dict[int, int]:
    """Position of a node -> number of the first step that reads it."""
    users: dict[int, int] = {}
    number = 0
    for node, reads in zip(outline.graph.nodes, outline.graph.reads, strict=True):
        if not node.is_leaf:
            for position in reads:
                users.setdefault(position, number)
            number += 1
    return users


class _Teller:
    def __init__(
        self, outline: Outline, built: Built, solution: Solution, homes: Homes, *, known: bool
    ) -> None:
        self._outline = outline
        self._built = built
        self._devices = solution.devices
        self._homes = homes
        self._known = known
        self._told: dict[tuple[object, ...], Choice] = {}
        self._left = [
            most - used for most, used in zip(built.problem.budgets, solution.memory, strict=True)
        ]

    def step(self, number: int) -> Choice:
        """Where a step runs, and why."""
        at = self._devices[number]
        simple = number not in self._homes and number not in self._built.rules.steps
        if not (simple and self._known) or self._built.refused[number]:
            return Choice(self._built.ids[at], self._why(number))
        step = self._built.problem.steps[number]  # what is told depends on no more than this
        view = ops.get(self._outline.steps[number].op).view
        key = at, step.seconds, view, step.need
        found = self._told.get(key)
        if found is None:
            found = self._told[key] = Choice(self._built.ids[at], self._why(number))
        return found

    def _why(self, number: int) -> str:
        built = self._built
        rule = built.rules.steps.get(number)
        if rule is not None:
            refusal = built.refused[number].get(rule.device)
            return rule.reason if refusal is None else f"{rule.device} does not: {refusal}"
        if len(built.ids) == 1:
            return "the only device"
        if number in self._homes:
            return self._home(number)
        refused = built.refused[number]
        if len(refused) == len(built.ids) - 1 or (refused and not self._known):
            return "; ".join(f"{name} does not: {reason}" for name, reason in refused.items())
        return self._by_time(number) if self._known else self._by_order(number)

    def _home(self, number: int) -> str:
        leaves = self._outline.weights[number]
        if self._outline.states[number]:
            return f"state {self._outline.states[number][0]} lives there"
        largest = max(leaves, key=lambda leaf: leaf.type.nbytes)
        return f"weight {largest.name} lives there"

    def _by_time(self, number: int) -> str:
        step, at = self._built.problem.steps[number], self._devices[number]
        if ops.get(self._outline.steps[number].op).view:
            return "a view of what is there"
        best = min(range(len(step.seconds)), key=step.seconds.__getitem__)
        if step.seconds[at] <= step.seconds[best]:
            others = [
                f"{self._built.ids[d]} {time_text(seconds)}"
                for d, seconds in enumerate(step.seconds)
                if d != at and seconds < math.inf
            ]
            return f"fastest there: {time_text(step.seconds[at])}, {', '.join(others)}"
        faster = self._built.ids[best]
        if step.need > self._left[best]:
            return f"{faster} is faster and has no room"
        saved = step.seconds[at] - step.seconds[best]
        return f"near its operands: {faster} saves {time_text(saved)}, less than going there costs"

    def _by_order(self, number: int) -> str:
        node = self._outline.steps[number]
        here = self._devices[number]
        if ops.get(node.op).view:
            return "a view of what is there"
        reads = self._outline.reads[number]
        if reads and all(self._devices[read] == here for read in reads):
            return "its operands are there"
        return "first choice" if here == 0 else "fewest bytes to copy"

    def leaf(self, node: Node, first: int | None, choices: Mapping[Node, Choice]) -> Choice:
        """Where a leaf lives, and why; a weight of several devices, on the first one's."""
        rule = self._built.rules.leaves.get(node.name) if node.op != "input" else None
        if rule is not None:
            return Choice(rule.device, rule.reason)
        if first is None:
            return Choice(self._built.ids[0], "first choice")
        device = choices[self._outline.steps[first]].device
        if node.op != "input" and first in self._homes:
            return Choice(device, self._homes[first][1])
        why = "where it is used first" if node.op == "input" else "where it is used"
        return Choice(device, why)


def no_room(built: Built, outline: Outline, *, shared_out: bool) -> PlacementError:
    """What to raise where no assignment was found, with the numbers."""
    problem = built.problem
    needed = sum(step.need for step in problem.steps) + sum(problem.shared)
    rooms = {
        name: "no limit" if most == math.inf else f"room for {max(0, int(most))} bytes"
        for name, most in zip(built.ids, problem.budgets, strict=True)
    }
    needs = [step.need + sum(problem.shared[w] for w in step.shares) for step in problem.steps]
    largest = max(range(len(needs)), key=needs.__getitem__)
    told = ", ".join(f"{name}: {room}" for name, room in rooms.items())
    return PlacementError(
        f"weights and states of {needed} bytes do not fit{' in given shares' * shared_out} "
        f"({told}); the largest step, "
        f"{outline.steps[largest].label}, needs {needs[largest]}",
        reasons=rooms,
        remedy="use other shares, or none"
        if shared_out
        else "use more devices, or a smaller model or context",
    )
