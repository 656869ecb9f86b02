"""Finds products that one kernel computes together: few rows of a value, rounded to 8 bits.

The value may be a norm that only products need; a product may be added to something, or be the gate
of another. Queries, keys and values of a layer are so one launch, and gate and up with SwiGLU.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hotplug.gpu.catalog import int8
from hotplug.gpu.catalog.together import Product, Products
from hotplug.gpu.driver import Capabilities
from hotplug.gpu.patterns import Found
from hotplug.node import Node
from hotplug.ops import OPS
from hotplug.patterns import products_in_sum
from hotplug.verify import reads_state

__all__ = ["find"]


def find(found: Found, capabilities: Capabilities) -> None:
    """Take all products of each value together, or else each with what it is added to."""
    for x in found.graph.nodes:
        products = [
            node
            for node in found.graph.consumers[x]
            if node not in found and _fits(node, x, capabilities)
        ]
        if products and not _take(found, x, products):
            for product in products:
                _take(found, x, [product])


def _fits(node: Node, x: Node, capabilities: Capabilities) -> bool:
    if node.op != "matmul" or node.operands[0] != x:
        return False
    w = node.operands[1]
    return (
        len(node.shape) == 2
        and node.shape[0] <= int8.FEW_ROWS
        and node.type.size > 0
        and node.dtype.name == "f32"
        and w.op in {"weight", "input"}
        and w != x
        and int8.wanted(capabilities, node)
    )


def _take(found: Found, x: Node, matmuls: Sequence[Node]) -> bool:
    """Take some products of a value, if that saves a launch and nobody sees a difference."""
    products = _joined(found, matmuls)
    members = set[Node]().union(*(product.nodes for product in products))
    stored = {product.result for product in products}
    normed = _only_rounded(found, x, members)
    if normed:
        members.add(x)
    addends = {product.addend for product in products}
    if len(members) == 1 or addends & members or any(map(reads_state, members)):
        return False
    if not found.may_wait(members, stored):
        return False
    found.add(members, stored, Products(x, tuple(products), normed).lower)
    return True


def _joined(found: Found, matmuls: Sequence[Node]) -> list[Product]:
    """Products, each with what can be computed of its columns alone."""
    products = []
    through: set[Node] = set()
    for node in matmuls:
        gate = _gate(found, node, matmuls)
        if gate is not None:
            through.add(gate.operands[1])
            products.append(Product(node, gate, through=gate.operands[1]))
        else:
            products.append(_with_sum(found, node, matmuls))
    return [product for product in products if product.matmul not in through]


def _gate(found: Found, node: Node, matmuls: Iterable[Node]) -> Node | None:
    """The SwiGLU that alone needs a product, as its gate, and another one."""
    user = _only_user(found, node)
    if user is None or user.op != "swiglu" or user.operands[0] != node:
        return None
    up = user.operands[1]
    alike = up.operands[1:] and up.operands[1].type == node.operands[1].type
    return user if up != node and up in matmuls and alike and _only_user(found, up) else None


def _with_sum(found: Found, node: Node, matmuls: Iterable[Node]) -> Product:
    user = _only_user(found, node)
    for product, addend in products_in_sum(user) if user else ():
        if product == node and addend not in matmuls and _is_dense(addend):
            return Product(node, user or node, addend)
    return Product(node, node)


def _only_user(found: Found, node: Node) -> Node | None:
    """The node that alone needs another, if no pattern has taken it."""
    users = found.graph.consumers[node]
    alone = len(users) == 1 and node not in found.graph.results and users[0] not in found
    return users[0] if alone else None


def _only_rounded(found: Found, x: Node, products: set[Node]) -> bool:
    """Whether a value is a norm that is only needed in steps of 8 bits."""
    return (
        x.op == "rms_norm"
        and x not in found
        and x.inputs[1] is not None
        and {node.dtype.name for node in (x, *x.operands)} == {"f32"}
        and _is_dense(x.operands[1])
        and x not in found.graph.results
        and set(found.graph.consumers[x]) <= products
    )


def _is_dense(node: Node) -> bool:
    """Whether a value's elements lie in their order, whatever it is a view of."""
    while node.op == "reshape":
        node = node.operands[0]
    return not OPS[node.op].view
