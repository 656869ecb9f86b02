"""Patterns of nodes that kernels of more than one backend compute at once."""

from __future__ import annotations

from collections.abc import Iterator

from hotplug.node import Node

__all__ = ["products_in_sum"]


def products_in_sum(node: Node) -> Iterator[tuple[Node, Node]]:
    """Each term of a sum that is a matrix product, with the other term.

    That is f32 and has as many rows as the product, or is one row that is added to each of them.
    """
    if node.op != "add" or len(node.operands) != 2:
        return
    first, second = node.operands
    for product, other in ((second, first), (first, second)):
        row = bool(other.shape) and other.type.size == node.shape[-1] == other.shape[-1]
        if (
            product.op == "matmul"
            and product != other
            and product.shape == node.shape
            and other.dtype.name == "f32"
            and (other.shape == node.shape or row)
        ):
            yield product, other
