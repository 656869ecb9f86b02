"""Experts that were sent to a device need not be sent again: parts that take them from a pool.

By the plan, the host selects the experts that rows name (`hotplug.placement.experts`), and the
device gets them in that order. When parts are compiled, this is made shorter: the host gives the
names alone, and the device takes experts from a pool in its memory, by their places in it. Before
it runs, those that are not there are brought (`hotplug.session.pools`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hotplug import ops
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.placement import Copy, Part, Plan
from hotplug.session.fleet import Fleet
from hotplug.session.storage import Storage
from hotplug.settings import settings

__all__ = ["PLACES", "Pooled"]

PLACES = "@places of "
"""With a value's name behind it, the name of the places that rows have in its pool."""


@dataclass(frozen=True, slots=True)
class Pooled:
    """Copies of a plan that pools take the place of.

    Attributes:
        copies: by name.
        rooms: for how many experts there is room in the pool of each.
    """

    copies: Mapping[str, Copy] = field(default_factory=dict)
    rooms: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan, fleet: Fleet, storage: Storage) -> Pooled:
        """Those that are worth it.

        Raises:
            DeviceFault: a device failed at telling how much of its memory is free.
        """
        copies = {copy.name: copy for copy in selected(plan) if _goes_far(copy, fleet)}
        rooms = {}
        for name, copy in copies.items():
            weight = copy.node.operands[0].name
            held = storage.shelf(fleet.members[copy.target].device).pools.get(weight)
            if held is not None:
                room = held.room
            else:
                sharing = sum(other.target == copy.target for other in copies.values())
                room = room_for(copy, _most(copy.target, fleet) // sharing)
            if room >= copy.node.shape[0]:
                rooms[name] = room
        return cls({name: copies[name] for name in rooms}, rooms)

    def part(self, part: Part) -> Part:
        """A part that gives names of experts instead of these, and takes them from pools."""
        return part if not self.rooms else replace(part, graph=self._graph(part.graph))

    def _graph(self, graph: Graph) -> Graph:
        made: dict[Node, Node] = {}
        nodes: list[Node] = []
        for node in graph.nodes:
            inputs = [None if operand is None else made[operand] for operand in node.inputs]
            name = self._pool_of(node)
            if node.op == "input" and node.name in self.rooms:
                shape = (self.rooms[node.name], *node.shape[1:])
                made[node] = ops.input(name=node.name, dtype=node.dtype.name, shape=shape)
            elif name is not None:
                dtype = self.copies[name].node.operands[1].dtype.name
                shape = node.operands[2].shape
                places = ops.input(name=PLACES + name, dtype=dtype, shape=shape)
                nodes.append(places)
                made[node] = Node(node.op, (*inputs[:2], places), node.params, node.type)
            else:
                made[node] = Node(node.op, tuple(inputs), node.params, node.type)
            nodes.append(made[node])
        given = {n: made[v.operands[1] if n in self.rooms else v] for n, v in graph.outputs}
        return Graph.ordered(nodes, given, {name: made[node] for name, node in graph.updates})

    def _pool_of(self, node: Node) -> str | None:
        """Name of the experts that a node takes from a pool."""
        if node.op != "matmul_grouped" or node.operands[1].op != "input":
            return None
        name = node.operands[1].name
        return name if name in self.rooms else None


def _goes_far(copy: Copy, fleet: Fleet) -> bool:
    here, there = fleet.members[copy.source], fleet.members[copy.target]
    return here.device.buffers.is_host and not there.device.buffers.is_host


def _most(device: str, fleet: Fleet) -> int:
    """Bytes that all pools of a device may take: no more than half of what is free."""
    most = settings().expert_cache_bytes
    free = fleet.ask(device, fleet.members[device].device.memory).free
    return most if free is None else min(most, free // 2)


def selected(plan: Plan) -> list[Copy]:
    """Copies of experts that rows name, which one product takes in the order in which they come."""
    return [copy for part in plan.parts for copy in part.receives if _is_selection(copy, plan)]


def _is_selection(copy: Copy, plan: Plan) -> bool:
    node, graph = copy.node, plan.graph
    if node.op != "index_select" or node.operands[0].op != "weight" or node in graph.results:
        return False
    users = graph.consumers[node]
    if len(users) != 1 or users[0].op != "matmul_grouped" or users[0].operands[1] != node:
        return False
    order = users[0].operands[2]
    counted = order.operands[0] if order.op == "reshape" else order
    return counted.op == "arange" and (counted.param("start"), counted.param("step")) == (0, 1)


def room_for(copy: Copy, nbytes: int) -> int:
    """How many experts a pool has room for that may take so many bytes."""
    experts = copy.node.operands[0].shape[0]
    room = nbytes * copy.node.shape[0] // max(1, copy.nbytes)
    return min(experts, room)
