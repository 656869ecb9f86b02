"""What a node takes on a device, a part, and a copy between two, in seconds: pure functions.

A node takes as long as its bytes or its operations do, whichever is longer (the roofline model,
doi:10.1145/1498765.1498785), and `Rates.step` for being one more in its part. A part takes
`Rates.launch` besides, however many nodes it has: a device gets it by one call.

How fast a device is comes from one of three sources, the best that there is: *measured*
(`calibrate`); *stated* in the properties of its info (`bandwidth` and `flops`, with
`link_bandwidth`, `link_latency`, `launch_seconds`, `step_seconds`); else *usual* for devices of its
type, which is a guess.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import permutations
from typing import Literal, TypeAlias

from hotplug import ops
from hotplug.backend import DeviceInfo, DeviceType
from hotplug.node import Node
from hotplug.tensor import TensorType

__all__ = [
    "FILLED",
    "NO_LINK",
    "Link",
    "Peers",
    "Rates",
    "Source",
    "Work",
    "copy_seconds",
    "direct_link",
    "node_seconds",
    "rates",
    "slowest_link",
    "work",
    "work_seconds",
    "worthwhile",
]

FILLED = 0.5
"""Share of a KV cache that attention reads: over a whole context it is half on average."""

Source: TypeAlias = Literal["measured", "stated", "usual"]


@dataclass(frozen=True, slots=True)
class Link:
    """A way for bytes.

    Attributes:
        latency: seconds that a copy takes however small it is.
        bandwidth: bytes a second.
        least: bytes of the smallest copy that takes it.
    """

    latency: float
    bandwidth: float
    least: int = 0

    def seconds(self, nbytes: int) -> float:
        """Time of one copy."""
        return self.latency + nbytes / self.bandwidth


NO_LINK = Link(0.0, float("inf"))
"""Of a device whose memory is the host's own."""


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast a device is.

    Attributes:
        flops: float operations a second, of a product of matrices.
        bandwidth: bytes a second from and to its own memory.
        upload: from the host's memory to its own.
        download: the other way.
        launch: seconds of a part beside its nodes.
        step: seconds of a node beside its work.
        gemv: dtype of a weight -> bytes of it a second in a product with one row; where a dtype is
            missing, `bandwidth` counts.
        gemm: dtype of a weight -> operations a second in a product with many rows; where one is
            missing, `flops` counts.
        source: where all this comes from.
    """

    flops: float
    bandwidth: float
    upload: Link = NO_LINK
    download: Link = NO_LINK
    launch: float = 0.0
    step: float = 0.0
    gemv: Mapping[str, float] = field(default_factory=dict)
    gemm: Mapping[str, float] = field(default_factory=dict)
    source: Source = "stated"


def _usual(flops: float, bandwidth: float, link: Link, launch: float, step: float) -> Rates:
    return Rates(flops, bandwidth, link, link, launch, step, source="usual")


_USUAL = {
    DeviceType.GPU: _usual(1e13, 4e11, Link(2e-5, 1e10), 2e-5, 3e-6),
    DeviceType.IGPU: _usual(1e12, 5e10, Link(2e-5, 1e10), 2e-5, 5e-6),
    DeviceType.ACCELERATOR: _usual(1e12, 1e11, Link(2e-5, 5e9), 5e-5, 5e-6),
    DeviceType.REMOTE: _usual(1e12, 1e11, Link(2e-4, 1e8), 2e-4, 5e-6),
    DeviceType.CPU: _usual(1e11, 2e10, NO_LINK, 1e-5, 1e-6),
}


def rates(info: DeviceInfo) -> Rates:
    """Rates of a device that was not measured: what it states, else what is usual for its type."""
    usual = _USUAL[info.type]
    if _stated(info, "flops") is None and _stated(info, "bandwidth") is None:
        return usual
    link = Link(
        _stated(info, "link_latency") or usual.upload.latency,
        _stated(info, "link_bandwidth") or usual.upload.bandwidth,
    )
    return Rates(
        flops=_stated(info, "flops") or usual.flops,
        bandwidth=_stated(info, "bandwidth") or usual.bandwidth,
        upload=link,
        download=link,
        launch=_stated(info, "launch_seconds") or usual.launch,
        step=_stated(info, "step_seconds") or usual.step,
        source="stated",
    )


def _stated(info: DeviceInfo, name: str) -> float | None:
    value = info.properties.get(name)
    return float(value) if isinstance(value, int | float) and value > 0 else None


@dataclass(frozen=True, slots=True)
class Work:
    """What a node asks of any device.

    Attributes:
        flops: operations.
        nbytes: bytes read and written, those of `weight_bytes` apart.
        weight: dtype of the matrix that a product streams; "" for other nodes.
        weight_bytes: its bytes.
        steps: 1; 0 for a view, which takes nothing.
    """

    flops: int
    nbytes: int
    weight: str = ""
    weight_bytes: int = 0
    steps: int = 1


_NOTHING = Work(0, 0, steps=0)


def work(node: Node, filled: float = FILLED) -> Work:
    """The work of a node.

    Args:
        node: any but a leaf.
        filled: share of a KV cache that attention reads.
    """
    row = ops.get(node.op)
    if row.view:
        return _NOTHING
    if row.updates is not None:  # only the rows that are written move, not the whole state
        return Work(0, 2 * sum(_bytes(n) for i, n in enumerate(node.inputs) if i != row.updates))
    if node.op in {"take", "index_select"}:  # only the rows that are taken, not the whole table
        return Work(0, 2 * node.type.nbytes + _bytes(node.inputs[1]))
    if node.op in _PRODUCTS:
        return _product(node, row.flops(node))
    if node.op == "scaled_dot_product_attention" and node.inputs[4] is not None:
        q, k, v = (_bytes(operand) for operand in node.inputs[:3])
        read = int(filled * (k + v))
        return Work(int(filled * row.flops(node)), q + read + node.type.nbytes)
    return Work(row.flops(node), sum(map(_bytes, node.inputs)) + node.type.nbytes)


_PRODUCTS = frozenset({"matmul", "matmul_grouped"})


def _product(node: Node, flops: int) -> Work:
    a, b = node.operands[:2]
    read = _nbytes(b.type)
    if node.op == "matmul_grouped":  # of the experts, those that rows are sent to
        experts = b.shape[0]
        read = read * min(node.operands[2].type.size, experts) // max(experts, 1)
    return Work(flops, _nbytes(a.type) + _nbytes(node.type), b.dtype.name, read)


def _bytes(node: Node | None) -> int:
    return 0 if node is None else _nbytes(node.type)


@lru_cache(4096)
def _nbytes(tensor: TensorType) -> int:
    return tensor.nbytes


def work_seconds(work: Work, on: Rates) -> float:
    """Time of some work on a device, as one of several nodes of a part."""
    if not work.steps:
        return 0.0
    moving = work.nbytes / on.bandwidth
    flops = on.flops
    if work.weight:
        moving += work.weight_bytes / on.gemv.get(work.weight, on.bandwidth)
        flops = on.gemm.get(work.weight, flops)
    return on.step + max(work.flops / flops, moving)


def node_seconds(node: Node, on: Rates, filled: float = FILLED) -> float:
    """Time of one node on a device, as one of several of a part."""
    return work_seconds(work(node, filled), on)


Peers: TypeAlias = Mapping[tuple[str, str], Link]
"""(from, to) -> the link of two devices whose copies do not go by way of the host."""


def slowest_link(devices: Mapping[str, Rates], peers: Peers) -> Link:
    """A link as slow as the slowest between any two of some devices."""
    pairs = [_way(devices[a], devices[b], peers.get((a, b))) for a, b in permutations(devices, 2)]
    return Link(max(link.latency for link in pairs), min(link.bandwidth for link in pairs))


def _way(source: Rates, target: Rates, direct: Link | None) -> Link:
    """The link of small copies between two devices, which goes by way of the host or not."""
    return direct if direct is not None and not direct.least else _by_host(source, target)


def _by_host(source: Rates, target: Rates) -> Link:
    down, up = source.download, target.upload
    pace = 1 / down.bandwidth + 1 / up.bandwidth
    return Link(down.latency + up.latency, 1 / pace if pace else math.inf)


def copy_seconds(nbytes: int, source: Rates, target: Rates, direct: Link | None = None) -> float:
    """Time of one copy between two devices: by a direct way that takes it, else by the host."""
    if direct is not None and nbytes >= direct.least:
        return direct.seconds(nbytes)
    return source.download.seconds(nbytes) + target.upload.seconds(nbytes)


def worthwhile(direct: Link, source: Rates, target: Rates) -> Link | None:
    """A direct link for large copies that are slower by the host; None where these are not."""
    by_host = _by_host(source, target)
    late = direct.latency - by_host.latency
    gain = 1 / by_host.bandwidth - 1 / direct.bandwidth  # seconds a byte
    if gain <= 0:
        return direct if gain == 0 and late <= 0 else None
    return replace(direct, least=max(direct.least, math.ceil(late / gain)))


def direct_link(source: Rates, target: Rates, least: int = 0) -> Link:
    """A guess of a link that was not measured: as slow as the slower way of the two to the host.

    Cards on one bus send to each other by the ways that they have to the host, but once.
    """
    ways = source.download, target.upload
    return Link(max(way.latency for way in ways), min(way.bandwidth for way in ways), least)
