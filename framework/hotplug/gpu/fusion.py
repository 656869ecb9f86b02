"""Which nodes one kernel computes together; found in the graph, before anything is lowered.

    rope         a rotation of few tokens that only goes into rows of a table, such as a cache
    norm         a sum of two values and its norm; the sum is stored too
    elementwise  nodes of which only the last is needed elsewhere

Each pattern sees what earlier ones took. Their kernels give what the nodes would give one by one,
up to how a compiler rounds a sum of products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hotplug.dtypes import Kind
from hotplug.gpu.catalog.chains import OPERANDS, chain, ends_chain, in_chain, operands_of
from hotplug.gpu.catalog.reduction import NORMS, norm_of_sum
from hotplug.gpu.catalog.rows import rope_into_rows
from hotplug.gpu.catalog.table import Lowering
from hotplug.gpu.tensors import Tensor
from hotplug.graph import Graph
from hotplug.memory import Fusion
from hotplug.node import Node
from hotplug.verify import reads_state

__all__ = ["Fused", "find"]

_MOST_NODES = 32  # of a chain
_MOST_TOKENS = 8  # each looks through those after it for its own row

Emit = Callable[[Lowering, Sequence[Node], Mapping[Node, Tensor]], None]


@dataclass(frozen=True, slots=True)
class Fused(Fusion):
    """Nodes of a pattern, and the function of the catalog that adds their launch."""

    emit: Emit


def find(graph: Graph) -> tuple[Fused, ...]:
    """All patterns of a graph; no node is in two."""
    taken: set[Node] = set()
    found = []
    for pattern in (_ropes, _norms, _chains):
        for fused in pattern(graph, taken):
            taken.update(fused.nodes)
            found.append(fused)
    return tuple(found)


def _only_used_by(graph: Graph, node: Node, user: Node) -> bool:
    return node not in graph.results and graph.consumers[node] == (user,)


def _ropes(graph: Graph, taken: set[Node]) -> Iterator[Fused]:
    del taken
    for node in graph.nodes:
        if node.op == "scatter_rows":
            table, _, rows = node.operands
            path = [rows.operands[0], rows] if rows.op == "reshape" else [rows]
            users = [*path[1:], node]
            whole = all(map(_only_used_by, [graph] * len(path), path, users))
            if whole and _fits_rows(path[0], table) and not any(map(reads_state, path)):
                yield Fused((*path, node), frozenset({node}), rope_into_rows)


def _fits_rows(node: Node, table: Node) -> bool:
    if node.op != "rope" or len(node.shape) != 3:
        return False
    same = table.dtype == node.dtype
    narrows = node.dtype.name == "f32" and table.dtype.kind is Kind.FLOAT
    return node.shape[0] <= _MOST_TOKENS and node.type.size > 0 and (same or narrows)


def _norms(graph: Graph, taken: set[Node]) -> Iterator[Fused]:
    found: set[Node] = set()
    for node in graph.nodes:
        total = node.inputs[0] if node.op in NORMS else None
        if total is None or total in taken | found or not _fits_sum(total, node):
            continue
        if graph.consumers[total][0] == node and not reads_state(total):
            found.add(total)
            yield Fused((total, node), frozenset({total, node}), norm_of_sum)


def _fits_sum(total: Node, norm: Node) -> bool:
    if total.op != "add" or total.dtype.kind is not Kind.FLOAT or not total.type.size:
        return False
    same = all(operand.type == total.type for operand in total.operands)
    return same and total not in norm.operands[1:]


def _chains(graph: Graph, taken: set[Node]) -> Iterator[Fused]:
    order = {node: position for position, node in enumerate(graph.nodes)}
    found: set[Node] = set()
    for last in reversed(graph.nodes):
        if last in taken | found or not ends_chain(last):
            continue
        nodes = _chain(graph, order, last, taken | found)
        if len(nodes) > 1:
            found.update(nodes)
            yield Fused(nodes, frozenset({last}), chain)


def _chain(
    graph: Graph, order: Mapping[Node, int], last: Node, taken: set[Node]
) -> tuple[Node, ...]:
    """The nodes that can be computed with one that needs them, in the graph's order."""
    nodes = [last]
    candidates = set(last.operands)
    while candidates and len(nodes) < _MOST_NODES:
        node = max(candidates, key=order.__getitem__)  # all that may use it were looked at
        candidates.remove(node)
        grown = sorted([node, *nodes], key=order.__getitem__)
        fits = (
            node not in taken | graph.results
            and in_chain(node)
            and (node.shape == last.shape or node.op == "cast")  # what costs more, costs it once
            and set(graph.consumers[node]) <= set(nodes)
            and not reads_state(node)
            and len(operands_of(grown)) <= len(OPERANDS)
        )
        if fits:
            nodes = grown
            candidates.update(node.operands)
    return tuple(nodes)
