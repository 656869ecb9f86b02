"""Elementwise nodes as one kernel, whose text is made from them.

All is computed in f32; a comparison's truth is an int. Operands of other float types are widened
when they are loaded, and a result is narrowed when it is stored.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from hotplug.dtypes import Kind
from hotplug.gpu.catalog.expressions import COMPARISONS, FLOAT_FUNCTIONS, PARAMETERS
from hotplug.gpu.catalog.table import ITEMS, Lowering, Part, groups_of, i64, real
from hotplug.gpu.sources import Variant
from hotplug.gpu.tensors import AXES, LIMIT, Tensor, view_bytes, walk
from hotplug.node import Node

__all__ = ["OPERANDS", "chain", "ends_chain", "in_chain", "operands_of"]

OPERANDS = "abcdef"
"""The kernel's operands by name."""

_WIDENED = frozenset({"f16", "bf16", "f32", "bool"})
_NARROWED = frozenset({"f16", "bf16"})
_COMPARED = frozenset({"f32", "bool"})


def in_chain(node: Node) -> bool:
    """Whether a node can be computed inside of a chain."""
    if node.type.size > LIMIT or len(node.shape) > AXES or not node.type.size:
        return False
    dtypes = [operand.dtype.name for operand in node.operands]
    if node.op == "cast":
        return node.dtype.name == "f32" and dtypes[0] in _WIDENED
    if node.op == "where":
        return dtypes[1:] == ["f32", "f32"]
    if node.op in COMPARISONS:
        return set(dtypes) <= _COMPARED and len(set(dtypes)) == 1
    return node.op in FLOAT_FUNCTIONS and {node.dtype.name, *dtypes} == {"f32"}


def ends_chain(node: Node) -> bool:
    """Whether a node can be a chain's last: then it may also narrow."""
    narrows = node.op == "cast" and node.dtype.name in _NARROWED
    return in_chain(node) or (narrows and node.operands[0].dtype.name == "f32")


def operands_of(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """What a chain reads, in the order of first use."""
    inside = set(nodes)
    used = (operand for node in nodes for operand in node.operands if operand not in inside)
    return tuple(dict.fromkeys(used))


def chain(lowering: Lowering, nodes: Sequence[Node], tensors: Mapping[Node, Tensor]) -> None:
    """Add the launch that computes the last of some nodes, for which `in_chain` holds.

    Args:
        lowering: where it is added.
        nodes: in order; all have the last one's shape, or broadcast to it.
        tensors: where the last one and all operands lie.
    """
    y = tensors[nodes[-1]]
    operands = operands_of(nodes)
    steps, parameters = _steps(nodes, operands)
    places = [tensors[operand] for operand in operands]
    shape, views = walk(y.shape, places)
    arguments: list[Part] = []
    for tensor, view in zip(places, views, strict=True):
        arguments += [tensor.place, view]
    arguments += [y.place, view_bytes(0, (0,))] * (len(OPERANDS) - len(operands))
    table = lowering.constant(struct.pack(f"<{len(parameters)}f", *parameters))
    defines = {
        "TYPE": "f32", "RESULT": y.dtype.name, "STEPS": steps,
        "VALUE": f"v{len(operands) + len(nodes) - 1}", "ITEMS": ITEMS,
    }  # fmt: skip
    lowering.launch(
        Variant.of("chain", defines), groups_of(y.size), ITEMS,
        *arguments, table, i64(table.at), y.place, i64(y.at), shape,
    )  # fmt: skip


def _steps(nodes: Sequence[Node], operands: Sequence[Node]) -> tuple[str, list[float]]:
    """The kernel's statements, and its parameters."""
    names: dict[Node, str] = {}
    lines: list[str] = []
    parameters: list[float] = []
    for letter, node in zip(OPERANDS, operands, strict=False):
        names[node] = f"v{len(names)}"
        load = f"LOAD({node.dtype.name}, {letter} + {letter}v.at, place({letter}v, shape, i))"
        lines.append(f"const {_number(node)} {names[node]} = {load};")
    for node in nodes:
        names[node] = f"v{len(names)}"
        given = [real(node, name) for name in PARAMETERS.get(node.op, ())]
        words = [
            f"const {_number(operand)} {letter} = {names[operand]};"
            for letter, operand in zip(_letters(node), node.inputs, strict=False)
            if operand is not None
        ]
        words += [f"const NUM p{i} = p[{len(parameters) + i}];" for i in range(len(given))]
        parameters += given
        name = names[node]
        lines.append(f"{_number(node)} {name}; {{ {' '.join(words)} {name} = {_text(node)}; }}")
    return "\n".join(lines), parameters


def _letters(node: Node) -> str:
    return "cxw" if node.op == "where" else "xw"


def _number(node: Node) -> str:
    return "int" if node.dtype.kind is Kind.BOOL else "NUM"


def _text(node: Node) -> str:
    if node.op == "cast":
        return "x"
    if node.op == "where":
        return "c ? x : w"
    return COMPARISONS.get(node.op) or FLOAT_FUNCTIONS[node.op]
