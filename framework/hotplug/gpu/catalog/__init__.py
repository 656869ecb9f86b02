"""The catalog: which kernels compute an op, in which geometry, and why an op is not supported."""

from __future__ import annotations

from collections.abc import Sequence

from hotplug.backend import YES, Support, no
from hotplug.gpu.catalog import (
    attention,
    convolution,
    elementwise,
    limits,
    order,
    products,
    recurrence,
    reduction,
    resample,
    rotation,
    rows,
    solve,
)
from hotplug.gpu.catalog.elementwise import copy
from hotplug.gpu.catalog.table import ROWS, Launch, LibraryLaunch, Lowering, answer
from hotplug.gpu.driver import Capabilities
from hotplug.gpu.tensors import Tensor
from hotplug.node import Node
from hotplug.ops import OPS

__all__ = ["Launch", "LibraryLaunch", "Lowering", "copy", "families", "lower", "supports"]

families = (
    attention,
    convolution,
    elementwise,
    order,
    products,
    recurrence,
    reduction,
    resample,
    rotation,
    rows,
    solve,
)
"""The modules whose import fills the table."""


def supports(node: Node, capabilities: Capabilities) -> Support:
    """Whether kernels compute a node on a device, or why not."""
    op = OPS.get(node.op)
    if node.is_leaf:
        return YES
    if op is not None and op.view:
        return YES
    entry = ROWS.get(node.op)
    if entry is None:
        return no(f"there is no kernel for {node.op}")
    return answer(entry.check(node, capabilities) or limits.exceeded(node, capabilities))


def lower(
    lowering: Lowering, node: Node, operands: Sequence[Tensor | None], result: Tensor
) -> None:
    """Add the launches that compute a node."""
    if result.size or node.op == "scatter_rows":
        ROWS[node.op].lower(lowering, node, operands, result)
