"""Which nodes one kernel computes together; found in the graph, before anything is lowered.

    heads        what attention reads of few new tokens: queries and keys turned, keys and values
                 put into the cache
    products     of one value with several matrices, the norm that makes it, what is added to them,
                 and the gate that two of them are; see `fused_products`
    norm         a sum of two values and its norm; the sum is stored too
    elementwise  nodes of which only the last is needed elsewhere

Each pattern sees what earlier ones took. Their kernels give what the nodes would give one by one,
up to how a compiler rounds a sum of products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hotplug.dtypes import Kind
from hotplug.gpu import fused_products
from hotplug.gpu.catalog.chains import OPERANDS, chain, ends_chain, in_chain, operands_of
from hotplug.gpu.catalog.reduction import NORMS, norm_of_sum
from hotplug.gpu.catalog.rotation import CachedHeads
from hotplug.gpu.catalog.table import Lowering
from hotplug.gpu.driver import Capabilities
from hotplug.gpu.patterns import Emit, Found, Fused
from hotplug.gpu.tensors import Tensor
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.verify import reads_state

__all__ = ["find"]

_MOST_NODES = 32  # of a chain
_MOST_TOKENS = 8  # each looks through those after it for its row of the cache

_CACHED = frozenset({"f32", "f16", "bf16"})


def find(graph: Graph, capabilities: Capabilities) -> tuple[Fused, ...]:
    """All patterns of a graph for a device; no node is in two."""
    found = Found(graph)
    _cached_heads(found)
    fused_products.find(found, capabilities)
    _norms(found)
    _chains(found)
    return tuple(found.groups)


def _cached_heads(found: Found) -> None:
    for node in found.graph.nodes:
        if node.op != "scaled_dot_product_attention":
            continue
        heads = _heads_of(node.operands[0], *map(_reshaped, node.operands[1:3]))
        members = _members(heads) if heads else set()
        if heads and not any(node in found for node in members) and _may_wait(found, heads):
            stored = {heads.queries, heads.key_rows, heads.value_rows}
            found.add(members, stored, _emitted(heads))


def _reshaped(node: Node) -> Node:
    """What a node is, in another shape maybe."""
    while node.op == "reshape":
        node = node.operands[0]
    return node


def _heads_of(q: Node, keys: Node, values: Node) -> CachedHeads | None:
    """What an attention's operands are made by, if that is what one kernel does."""
    if q.op != "rope" or keys.op != "scatter_rows" or values.op != "scatter_rows":
        return None
    k, v = _reshaped(keys.operands[2]), values.operands[2]
    fits = (
        k.op == "rope"
        and k.params == q.params
        and k.inputs[1:] == q.inputs[1:]
        and keys.operands[1] == values.operands[1]
        and keys.operands[0].op == values.operands[0].op == "state"
        and keys.shape[0] == values.shape[0]
        and len(q.shape) == len(k.shape) == 3
        and 0 < q.shape[0] <= _MOST_TOKENS
        and q.type.size > 0 < v.type.size
        and {node.dtype.name for node in (keys, values)} <= _CACHED
        and {node.dtype.name for node in (q, k, v)} == {"f32"}
    )
    return CachedHeads(q, k, keys, values) if fits else None


def _members(heads: CachedHeads) -> set[Node]:
    """All that is computed, and the keys' other shapes on the way."""
    members = {heads.queries, heads.keys, heads.key_rows, heads.value_rows}
    node = heads.key_rows.operands[2]
    while node != heads.keys:
        members.add(node)
        node = node.operands[0]
    return members


def _may_wait(found: Found, heads: CachedHeads) -> bool:
    """Whether all may be computed when the last of them is due, and nobody sees a difference."""
    members = _members(heads)
    results = (heads.queries, heads.key_rows, heads.value_rows)
    # Whoever else reads a cache might do so in between.
    caches = [update.operands[0] for update in (heads.key_rows, heads.value_rows)]
    consumers = found.graph.consumers
    readers = (user for cache in caches for user in consumers[cache] if user not in members)
    reads = map(reads_state, (heads.queries, heads.keys))
    return found.may_wait(members, results) and not any(readers) and not any(reads)


def _emitted(heads: CachedHeads) -> Emit:
    def emit(lowering: Lowering, nodes: Sequence[Node], tensors: Mapping[Node, Tensor]) -> None:
        del nodes
        heads.lower(lowering, tensors)

    return emit


def _norms(found: Found) -> None:
    for node in found.graph.nodes:
        total = node.inputs[0] if node.op in NORMS and node not in found else None
        if total is None or total in found or not _fits_sum(total, node):
            continue
        if found.graph.consumers[total][0] == node and not reads_state(total):
            found.add((total, node), (total, node), norm_of_sum)


def _fits_sum(total: Node, norm: Node) -> bool:
    if total.op != "add" or total.dtype.kind is not Kind.FLOAT or not total.type.size:
        return False
    same = all(operand.type == total.type for operand in total.operands)
    return same and total not in norm.operands[1:]


def _chains(found: Found) -> None:
    for last in reversed(found.graph.nodes):
        if last not in found and ends_chain(last):
            nodes = _chain(found, last)
            if len(nodes) > 1:
                found.add(nodes, {last}, chain)


def _chain(found: Found, last: Node) -> tuple[Node, ...]:
    """The nodes that can be computed with one that needs them, in the graph's order."""
    graph, order = found.graph, found.order
    nodes = [last]
    candidates = set(last.operands)
    while candidates and len(nodes) < _MOST_NODES:
        node = max(candidates, key=order.__getitem__)  # all that may use it were looked at
        candidates.remove(node)
        grown = sorted([node, *nodes], key=order.__getitem__)
        fits = (
            node not in found
            and node not in graph.results
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
