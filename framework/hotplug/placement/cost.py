"""What a node takes on a device, and a copy between two, in seconds.

Only ratios matter: they decide between devices. A device says how fast it is in its info's
properties, `bandwidth` (bytes a second of its memory) and `flops` (float32 operations a second);
where it does not, what is usual for its type is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

from hotplug import ops
from hotplug.backend import DeviceInfo, DeviceType
from hotplug.node import Node

__all__ = ["Rates", "copy_seconds", "node_seconds", "rates"]


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast a device is.

    Attributes:
        flops: float operations a second.
        bandwidth: bytes a second from and to its own memory.
        link: bytes a second between its memory and the host's; infinite where they are the same.
        latency: seconds that starting one copy takes.
    """

    flops: float
    bandwidth: float
    link: float
    latency: float


_USUAL = {
    DeviceType.GPU: Rates(1e13, 4e11, 1e10, 2e-5),
    DeviceType.IGPU: Rates(1e12, 5e10, 1e10, 2e-5),
    DeviceType.ACCELERATOR: Rates(1e12, 1e11, 5e9, 2e-5),
    DeviceType.REMOTE: Rates(1e12, 1e11, 1e8, 2e-4),
    DeviceType.CPU: Rates(1e11, 2e10, float("inf"), 0.0),
}


def rates(info: DeviceInfo) -> Rates:
    """Rates of a device: what it says, else the usual ones of its type."""
    usual = _USUAL[info.type]
    return Rates(
        flops=_stated(info, "flops", usual.flops),
        bandwidth=_stated(info, "bandwidth", usual.bandwidth),
        link=_stated(info, "link_bandwidth", usual.link),
        latency=_stated(info, "link_latency", usual.latency),
    )


def _stated(info: DeviceInfo, name: str, usual: float) -> float:
    value = info.properties.get(name)
    return float(value) if isinstance(value, int | float) and value > 0 else usual


def node_seconds(node: Node, on: Rates) -> float:
    """Time of one node: by its operations or by its bytes, whichever takes longer."""
    if ops.get(node.op).view:
        return 0.0
    moved = node.type.nbytes + sum(operand.type.nbytes for operand in node.operands)
    return max(ops.get(node.op).flops(node) / on.flops, moved / on.bandwidth)


def copy_seconds(nbytes: int, source: Rates, target: Rates) -> float:
    """Time of one copy, by way of host memory."""
    seconds = source.latency + target.latency
    return seconds + nbytes / source.link + nbytes / target.link
