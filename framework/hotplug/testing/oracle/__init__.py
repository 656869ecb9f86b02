"""The oracle: what every op means, computed in the plainest way.

Each op of the table has one function here, written from its rule's text for clarity and not for
speed, in float64. Backends are checked against it. It shares no code with any of them but the
dtype codecs, which have tests of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from hotplug.errors import GraphError
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.tensor import HostTensor
from hotplug.testing.oracle import (  # noqa: F401  (importing them fills the table)
    attention,
    convolution,
    elementwise,
    linear,
    movement,
    norm,
    recurrence,
    reduction,
    resample,
    rope,
)
from hotplug.testing.oracle.blocks import moved_blocks
from hotplug.testing.oracle.table import REFERENCES, Array
from hotplug.testing.oracle.values import from_bytes, leaf_value, rounded, to_bytes, widen

__all__ = [
    "REFERENCES",
    "Array",
    "evaluate",
    "evaluate_blocks",
    "evaluate_node",
    "evaluate_nodes",
    "from_bytes",
    "to_bytes",
]


def evaluate(graph: Graph, leaves: Mapping[str, Array | HostTensor]) -> dict[str, Array]:
    """Compute a graph once.

    Args:
        graph: what to compute.
        leaves: a value for every input and weight, by leaf name; states may be given and are zeros
            otherwise. Arrays are rounded to the leaf's dtype; for a quantised leaf an array stands
            for values that its blocks decode to, a HostTensor for the blocks.

    Returns:
        Outputs by name, and the states' next values as "state:" + name. bf16 and quantised values
        come as float32.

    Raises:
        GraphError: a leaf is missing or has another type.
    """
    values = evaluate_nodes(graph, leaves)
    results = {name: values[node] for name, node in graph.outputs}
    results.update({f"state:{name}": values[node] for name, node in graph.updates})
    return results


def evaluate_nodes(graph: Graph, leaves: Mapping[str, Array | HostTensor]) -> dict[Node, Array]:
    """Compute a graph once and give the value of every node, leaves too; see `evaluate`."""
    values: dict[Node, Array] = {}
    for node in graph.nodes:
        if node.is_leaf:
            values[node] = _leaf(node, leaves)
        else:
            operands = [None if item is None else values[item] for item in node.inputs]
            values[node] = evaluate_node(node, operands)
    return values


def evaluate_blocks(
    graph: Graph, leaves: Mapping[str, HostTensor]
) -> dict[Node, npt.NDArray[np.uint8]]:
    """The bytes of the quantised results of a graph.

    Values alone do not tell them: blocks that only move must stay as they are, and encoding what
    they decode to may give others.
    """
    results = [node for node in graph.results if node.dtype.quantised]
    if not results:
        return {}
    values = evaluate_nodes(graph, leaves)
    blocks = {node: moved_blocks(node, values, leaves) for node in results}
    return {node: np.ascontiguousarray(b).reshape(-1).view(np.uint8) for node, b in blocks.items()}


def evaluate_node(node: Node, operands: Sequence[Array | None]) -> Array:
    """Compute one node that is no leaf, and round to its dtype.

    Args:
        node: the node.
        operands: values of `node.inputs`, None where an optional operand is absent.
    """
    entry = REFERENCES[node.op]
    wide = [None if array is None else widen(array) for array in operands]
    head = (node,) if entry.typed else ()
    # Overflow to infinity and NaN are results here, not accidents.
    with np.errstate(all="ignore"):
        return rounded(entry.compute(*head, *wide, **dict(node.params)), node.type)


def _leaf(node: Node, leaves: Mapping[str, Array | HostTensor]) -> Array:
    value = leaves.get(node.name)
    if value is not None:
        return leaf_value(value, node.type)
    if node.op == "state":
        return rounded(np.zeros(node.shape), node.type)
    raise GraphError(f"no value for {node.op} {node.name!r}", op=node.op)
