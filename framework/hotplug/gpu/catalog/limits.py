"""Nodes whose launches are too large for a small device.

Nearly every device has what all kernels need; for another, a node is lowered as it would be, to see
what it asks for. That serves every row of the catalog, which need not know.
"""

from __future__ import annotations

from hotplug.gpu.catalog.table import ITEMS, ROWS, Launch, Lowering
from hotplug.gpu.driver import Capabilities
from hotplug.gpu.sources import uses_local_memory
from hotplug.gpu.tensors import Place, Tensor, contiguous
from hotplug.node import Node

__all__ = ["LOCAL_BYTES", "exceeded"]

LOCAL_BYTES = 32 << 10
"""What kernels take of local memory at most: as much as OpenCL's full profile promises."""


def exceeded(node: Node, capabilities: Capabilities) -> str:
    """Which limit of the device the node's launches exceed; empty if none."""
    large = capabilities.max_items >= ITEMS and capabilities.local_bytes >= LOCAL_BYTES
    if large or not node.type.size:
        return ""
    lowering = Lowering(capabilities)
    operands = [None if item is None else _somewhere(item) for item in node.inputs]
    ROWS[node.op].lower(lowering, node, operands, _somewhere(node))
    kernels = (launch for launch in lowering.launches if isinstance(launch, Launch))
    reasons = (_too_large(launch, capabilities) for launch in kernels)
    return next(filter(None, reasons), "")


def _somewhere(node: Node) -> Tensor:
    return contiguous(Place("arena"), node.dtype, node.shape)


def _too_large(launch: Launch, capabilities: Capabilities) -> str:
    if launch.items > capabilities.max_items:
        return (
            f"its kernel has work-groups of {launch.items} items; "
            f"the device takes {capabilities.max_items}"
        )
    if capabilities.local_bytes < LOCAL_BYTES and uses_local_memory(launch.variant.file):
        return (
            f"its kernel may need {LOCAL_BYTES} bytes of local memory; "
            f"the device has {capabilities.local_bytes}"
        )
    return ""
