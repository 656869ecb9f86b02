"""Third pass: a device for every node, with the reason.

In graph order: a node that reads or updates a state runs where the state lives; one that reads a
weight, where the largest of its weights lives; a view, where what it looks at is; any other, where
it and the copies it needs take the least time. Where a node does not run on that device, it runs on
the one of the others that costs least, and the reason says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hotplug import ops
from hotplug.backend import Device
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.placement.cost import Rates, copy_seconds, node_seconds, rates
from hotplug.placement.plan import Choice
from hotplug.placement.residence import Residence
from hotplug.placement.support import SupportTable

__all__ = ["assign"]


def assign(
    graph: Graph, devices: Sequence[Device], support: SupportTable, homes: Residence
) -> dict[Node, Choice]:
    """The device of every node; a leaf's is its home, an input's that of its first user.

    Args:
        graph: what will run.
        devices: in order of preference; the first of equally good ones is taken.
        support: answers of the first pass.
        homes: where weights and states live.
    """
    assigner = _Assigner({device.id: rates(device.info) for device in devices}, support, homes)
    for node in graph.nodes:
        if not node.is_leaf:
            assigner.assign(node)
    for node in graph.nodes:
        if node.is_leaf:
            assigner.assign_leaf(node, graph.consumers[node])
    return assigner.choices


@dataclass(slots=True)
class _Wish:
    """Where a node should run, and why."""

    device: str
    reason: str


class _Assigner:
    def __init__(
        self, speeds: Mapping[str, Rates], support: SupportTable, homes: Residence
    ) -> None:
        self.choices: dict[Node, Choice] = {}
        self._speeds = speeds
        self._support = support
        self._homes = homes
        self._state_of: dict[Node, str] = {}  # node -> the state that it is, or is a part of

    def assign(self, node: Node) -> None:
        self._follow_state(node)
        wish = self._wish(node)
        answers = self._support[node]
        if wish is not None and answers[wish.device]:
            self.choices[node] = Choice(wish.device, wish.reason)
            return
        able = [device for device, answer in answers.items() if answer]
        best = min(able, key=lambda device: self._seconds(node, device))
        refused = [wish.device] if wish else [d for d in answers if d not in able]
        self.choices[node] = Choice(best, self._explain(node, best, able, refused))

    def assign_leaf(self, node: Node, users: Sequence[Node]) -> None:
        home = self._homes.get(node.name)
        if node.op != "input" and home is not None:
            self.choices[node] = Choice(home.device, home.reason)
        elif users:
            self.choices[node] = Choice(self.choices[users[0]].device, "where it is used first")
        else:
            self.choices[node] = Choice(next(iter(self._speeds)), "first choice")

    def _wish(self, node: Node) -> _Wish | None:
        for operand in node.operands:
            state = self._state_of.get(operand)
            if state is not None:
                return _Wish(self._homes[state].device, f"state {state} lives there")
        weights = [operand for operand in node.operands if operand.op == "weight"]
        if weights:
            largest = max(weights, key=lambda weight: weight.type.nbytes)
            return _Wish(self._homes[largest.name].device, f"weight {largest.name} lives there")
        if ops.get(node.op).view and node.operands[0] in self.choices:
            return _Wish(self.choices[node.operands[0]].device, "a view of what is there")
        if len(self._speeds) == 1:
            return _Wish(next(iter(self._speeds)), "the only device")
        return None

    def _follow_state(self, node: Node) -> None:
        for operand in node.operands:
            if operand.op == "state":
                self._state_of[operand] = operand.name
        row = ops.get(node.op)
        position = 0 if row.view else row.updates
        origin = None if position is None else node.inputs[position]
        if origin is not None and origin in self._state_of:
            self._state_of[node] = self._state_of[origin]

    def _seconds(self, node: Node, device: str) -> float:
        speed = self._speeds[device]
        seconds = node_seconds(node, speed)
        for operand in dict.fromkeys(node.operands):
            source = self._place_of(operand)
            if source is not None and source != device:
                seconds += copy_seconds(operand.type.nbytes, self._speeds[source], speed)
        return seconds

    def _place_of(self, operand: Node) -> str | None:
        """The device a value is on; None for an input, which goes wherever it is wanted."""
        if operand.op == "input":
            return None
        if operand.is_leaf:
            return self._homes[operand.name].device
        return self.choices[operand].device

    def _explain(self, node: Node, best: str, able: Sequence[str], refused: Sequence[str]) -> str:
        if refused:
            return "; ".join(f"{d} does not: {self._support[node][d].reason}" for d in refused)
        here = [operand for operand in node.operands if self._place_of(operand) == best]
        if here and len(here) == len(node.operands):
            return "its operands are there"
        return "least time" if len(able) > 1 else "the only device that runs it"
