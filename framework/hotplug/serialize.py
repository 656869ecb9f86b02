"""Graphs as bytes, for other processes and for files.

    magic      8 bytes   "hotplug" and a zero byte
    version    2 x u16   major, minor, little-endian: another major cannot be read
    checksum   16 bytes  BLAKE2b of all that follows
    body       JSON in UTF-8:
        ops      fingerprint of the op table, see `hotplug.ops.fingerprint`
        nodes    [[op, [position of operand or null, ...], [parameter, ...]], ...]
        outputs  [[name, position of node], ...]
        updates  [[name, position of node], ...]

Types of values are not stored: they follow from the ops' rules, which thereby check what is read.
Nothing in the bytes is executed, and what they may ask for is limited. A float that is no number
JSON knows is written as {"float": "inf"}.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Sequence
from typing import Any

from hotplug import ops
from hotplug.errors import DTypeError, GraphError, SerializationError
from hotplug.graph import Graph
from hotplug.node import Node, Param
from hotplug.verify import verify

__all__ = ["MAX_BYTES", "VERSION", "dump", "load"]

VERSION = (1, 0)
MAX_BYTES = 1 << 28
"""Most bytes that `load` looks at: a graph of a million nodes has fewer."""

_MAGIC = b"hotplug\0"
_HEAD = struct.Struct("<8sHH16s")
_MAX_RANK = 32
_MAX_SIZE = 1 << 62  # elements of one tensor; beyond it, byte counts no longer fit in 64 bits


def dump(graph: Graph) -> bytes:
    """A graph as bytes; equal graphs in equal order give equal bytes."""
    positions = {node: position for position, node in enumerate(graph.nodes)}
    body = {
        "ops": ops.fingerprint(),
        "nodes": [
            [
                node.op,
                [None if operand is None else positions[operand] for operand in node.inputs],
                [_to_json(value) for _, value in node.params],
            ]
            for node in graph.nodes
        ],
        "outputs": [[name, positions[node]] for name, node in graph.outputs],
        "updates": [[name, positions[node]] for name, node in graph.updates],
    }
    text = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
    return _HEAD.pack(_MAGIC, *VERSION, _checksum(text)) + text


def load(data: bytes | bytearray | memoryview) -> Graph:
    """The graph that `dump` made bytes of, verified.

    Raises:
        SerializationError: the bytes are no graph, damaged, of another version, made with another
            op table, or the graph breaks a rule.
    """
    body = _body(bytes(memoryview(data)[: MAX_BYTES + 1]))
    if body.get("ops") != ops.fingerprint():
        raise SerializationError(
            "the graph was made with another op table",
            remedy="use the same version of hotplug-core on both sides",
        )
    try:
        graph = _graph(body)
        verify(graph)
    except (GraphError, DTypeError) as error:
        raise SerializationError(f"the bytes hold no valid graph: {error}") from error
    return graph


def _checksum(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=16).digest()


def _body(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        raise SerializationError(f"more than {MAX_BYTES} bytes are not read as a graph")
    if len(data) < _HEAD.size or not data.startswith(_MAGIC):
        raise SerializationError("the bytes are not a serialised graph")
    _, major, minor, checksum = _HEAD.unpack_from(data)
    if major != VERSION[0]:
        raise SerializationError(
            f"the graph is of format {major}.{minor}, and this version reads {VERSION[0]}.x",
            remedy="use the same version of hotplug-core on both sides",
        )
    text = data[_HEAD.size :]
    if _checksum(text) != checksum:
        raise SerializationError("the bytes of the graph are damaged: their checksum is wrong")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SerializationError(f"the graph's bytes are not JSON: {error}") from error
    if not isinstance(body, dict):
        raise SerializationError("the graph's bytes hold no JSON object")
    return body


def _graph(body: dict[str, Any]) -> Graph:
    nodes: list[Node] = []
    for row in _list(body.get("nodes"), "nodes"):
        nodes.append(_node(row, nodes))
    return Graph.ordered(
        nodes,
        _results(body.get("outputs"), "outputs", nodes),
        _results(body.get("updates"), "updates", nodes),
    )


def _node(row: Any, earlier: Sequence[Node]) -> Node:
    name, positions, values = _three(row)
    op = ops.get(name if isinstance(name, str) else repr(name))
    operands = _list(positions, f"operands of {name}")
    inputs = tuple(None if at is None else _at(at, earlier) for at in operands)
    if len(values) != len(op.params):
        raise GraphError(f"{name} has {len(op.params)} parameters, given {len(values)}", op=name)
    params = {
        parameter.name: parameter.convert(_from_json(value))
        for parameter, value in zip(op.params, values, strict=True)
    }
    node = op.build(inputs, params)
    if len(node.shape) > _MAX_RANK or node.type.size > _MAX_SIZE:
        raise GraphError(f"{name} gives {len(node.shape)} axes or more elements than fit", op=name)
    return node


def _three(row: Any) -> tuple[Any, Any, list[Any]]:
    if not isinstance(row, list) or len(row) != 3 or not isinstance(row[2], list):
        raise GraphError("a node is not written as [op, operands, parameters]")
    return row[0], row[1], row[2]


def _results(pairs: Any, what: str, nodes: Sequence[Node]) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for pair in _list(pairs, what):
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str):
            raise GraphError(f"the {what} are not [name, position] pairs")
        if pair[0] in found:
            raise GraphError(f"the {what} name {pair[0]!r} twice")
        found[pair[0]] = _at(pair[1], nodes)
    return found


def _at(position: Any, nodes: Sequence[Node]) -> Node:
    if type(position) is not int or not 0 <= position < len(nodes):
        raise GraphError(f"there is no node {position!r} among the {len(nodes)} before")
    return nodes[position]


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise GraphError(f"the {what} are not a list")
    return value


def _to_json(value: Param) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    return value


def _from_json(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    text = value.get("float")
    if text not in {"inf", "-inf", "nan"}:
        raise GraphError(f"{value!r} is no parameter")
    return float(text)
