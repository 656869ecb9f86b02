"""Mixtures of experts whose weights stay in the host's memory, for models larger than a GPU's.

A product with experts (`matmul_grouped`) needs of its weight only those that its rows are sent to.
There are three ways to compute it, and the cost model chooses one for each product:

    on the host         nothing crosses but activations
    used experts sent   those that rows name are selected and brought to the device, once for each
                        row: for few rows, where that is less than
    all experts sent    the whole weight is brought to the device: for many rows
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hotplug import ops
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.placement.cost import Rates, copy_seconds, node_seconds

__all__ = ["Experts", "send_experts"]


@dataclass(frozen=True, slots=True)
class Experts:
    """A graph whose experts' weights live on the host.

    Attributes:
        graph: it computes the same.
        devices: node -> the device it belongs to.
    """

    graph: Graph
    devices: Mapping[Node, str]


def send_experts(graph: Graph, host: str, device: str, speeds: Mapping[str, Rates]) -> Experts:
    """Let experts' weights live on the host.

    Args:
        graph: any graph.
        host: id of the device whose memory is the host's.
        device: id of the one that computes all else.
        speeds: how fast both are.
    """
    mover = _Mover(host, device, speeds)
    for node in graph.nodes:
        if not node.is_leaf:
            mover.take(node)
    outputs = {name: mover.get(node) for name, node in graph.outputs}
    updates = {name: mover.get(node) for name, node in graph.updates}
    return Experts(Graph.build(outputs, updates), mover.devices)


class _Mover:
    def __init__(self, host: str, device: str, speeds: Mapping[str, Rates]) -> None:
        self.devices: dict[Node, str] = {}
        self._host = host
        self._device = device
        self._speeds = speeds
        self._made: dict[Node, Node] = {}

    def get(self, node: Node) -> Node:
        """What stands for a node of the old graph."""
        return node if node.is_leaf else self._made[node]

    def take(self, node: Node) -> None:
        """Put a node into the new graph."""
        inputs = tuple(None if item is None else self.get(item) for item in node.inputs)
        same = Node(node.op, inputs, node.params, node.type)
        if node.op != "matmul_grouped" or node.operands[1].op != "weight":
            self._made[node] = same
            return
        weight, ids = same.operands[1:]
        few = ids.type.size < weight.shape[0]
        sent = weight.type.nbytes // weight.shape[0] * min(ids.type.size, weight.shape[0])
        here, there = self._speeds[self._host], self._speeds[self._device]
        if node_seconds(same, here) <= copy_seconds(sent, here, there) + node_seconds(same, there):
            self._made[node] = self._placed(same, self._host)
        else:
            self._made[node] = self._sent(same, few=few)

    def _sent(self, node: Node, *, few: bool) -> Node:
        x, weight, ids = node.operands
        if few:
            count = ids.type.size
            named = ops.reshape(ids, shape=(count,))
            weight = ops.index_select(weight, named)
            ids = ops.reshape(ops.arange(start=0, stop=count, dtype="i32"), shape=ids.shape)
        else:
            weight = ops.contiguous(weight)
        self._placed(weight, self._host)
        product = ops.matmul_grouped(x, weight, ids, precision=str(node.param("precision")))
        return self._placed(product, self._device)

    def _placed(self, node: Node, device: str) -> Node:
        self.devices[node] = device
        return node
