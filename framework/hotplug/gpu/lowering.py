"""A graph as launches: where each value lies, and which kernels compute it."""

from __future__ import annotations

from collections.abc import Sequence

from hotplug import memory
from hotplug.errors import UnsupportedOpError
from hotplug.gpu import catalog, fusion
from hotplug.gpu.patterns import Fused
from hotplug.gpu.tensors import Place, Tensor, contiguous
from hotplug.graph import Graph
from hotplug.memory import MemoryPlan, Storage, StorageKind
from hotplug.node import Node
from hotplug.ops import OPS

__all__ = ["BOUND", "lower_graph"]

BOUND = "bound:"
"""Before the names of buffers that a caller binds."""


def lower_graph(
    graph: Graph, lowering: catalog.Lowering, device: str, *, fuse: bool = True
) -> MemoryPlan:
    """Launches of all nodes in order, then copies to outputs, then new values of states.

    Args:
        graph: what is computed.
        lowering: where launches go.
        device: its id, for errors.
        fuse: whether kernels may compute several nodes together.

    Raises:
        UnsupportedOpError: there is no kernel for a node.
    """
    fused = fusion.find(graph, lowering.capabilities) if fuse else ()
    plan = memory.plan(graph, fusions=fused)
    _check(graph, lowering, device)
    _Pass(graph, plan, lowering, fused).run()
    return plan


class _Pass:
    """One graph on its way to launches."""

    def __init__(
        self,
        graph: Graph,
        plan: MemoryPlan,
        lowering: catalog.Lowering,
        fused: Sequence[Fused],
    ) -> None:
        self._graph = graph
        self._plan = plan
        self._lowering = lowering
        self._fused = {node: group for group in fused for node in group.nodes}
        self._tensors: dict[Node, Tensor] = {}

    def run(self) -> None:
        for node in self._graph.nodes:
            self._place(node)
            group = self._fused.get(node)
            if group is None:
                with self._lowering.computing(node):
                    self._single(node)
            elif group.nodes[-1] == node:
                with self._lowering.computing(*group.nodes):
                    for stored in group.stored:
                        self._copy_operand(stored)
                    group.emit(self._lowering, group.nodes, self._tensors)
        for name, node in self._plan.output_copies:
            self._copy_to(node, f"output:{name}")
        for name, node in self._plan.state_writes:
            self._copy_to(node, name)

    def _place(self, node: Node) -> None:
        location = self._plan.locations.get(node)
        if location is not None:
            place = _place(location.storage)
            self._tensors[node] = Tensor(place, node.dtype, location.layout)

    def _single(self, node: Node) -> None:
        self._copy_operand(node)
        if not node.is_leaf and not OPS[node.op].view:
            operands = [None if item is None else self._tensors[item] for item in node.inputs]
            catalog.lower(self._lowering, node, operands, self._tensors[node])

    def _copy_operand(self, node: Node) -> None:
        """Give an update, or a view that is none, the operand's values to begin with."""
        if self._plan.locations[node].copies:
            operand, result = self._tensors[node.operands[0]], self._tensors[node]
            if node.op == "reshape":  # elements keep the order that the operand's shape gives
                result = contiguous(result.place, operand.dtype, operand.shape)
            catalog.copy(self._lowering, operand, result)

    def _copy_to(self, node: Node, name: str) -> None:
        with self._lowering.computing(node):
            target = contiguous(Place(BOUND + name), node.dtype, node.shape)
            catalog.copy(self._lowering, self._tensors[node], target)


def _place(storage: Storage) -> Place:
    if storage.kind is StorageKind.ARENA:
        return Place("arena", storage.offset)
    prefix = "output:" if storage.kind is StorageKind.OUTPUT else ""
    return Place(BOUND + prefix + storage.name)


def _check(graph: Graph, lowering: catalog.Lowering, device: str) -> None:
    for node in graph.nodes:
        answer = catalog.supports(node, lowering.capabilities)
        if not answer:
            raise UnsupportedOpError(
                f"{device} does not run {node.name}: {answer.reason}",
                op=node.op,
                reasons={device: answer.reason},
            )
