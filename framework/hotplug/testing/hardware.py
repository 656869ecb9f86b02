"""Figures of real devices and links, as their makers publish them, for machines that are not here.

Operations are those of dense products of f16 with f32 accumulation on tensor units; bandwidths are
peaks. Nothing reaches them: `Cluster` takes the share that `EFFICIENCY` says of each.

    H100 SXM5       NVIDIA H100 Tensor Core GPU datasheet, 2023: 3.35 TB/s, 989 TFLOPS, 80 GB,
                    NVLink 900 GB/s both ways together
    A100 SXM4 80GB  NVIDIA A100 datasheet, 2021: 2039 GB/s, 312 TFLOPS, NVLink 600 GB/s
    L4              NVIDIA L4 datasheet, 2023: 300 GB/s, 121 TFLOPS (242 with sparsity), 24 GB
    RTX 4090        NVIDIA Ada GPU architecture whitepaper, 2022: 1008 GB/s, 165.2 TFLOPS, 24 GB
    RTX 3090        NVIDIA Ampere GA102 whitepaper 2.1, 2021: 936 GB/s, 71 TFLOPS, 24 GB
    PCIe            PCI-SIG: 16 GT/s (4.0) and 32 GT/s (5.0) a lane with 128b/130b coding, 16 lanes
    InfiniBand      NVIDIA ConnectX-7 datasheet, 2022: NDR, 400 Gbit/s
"""

from __future__ import annotations

from dataclasses import dataclass

from hotplug.placement.cost import Link

__all__ = ["EFFICIENCY", "GPU", "GPUS", "LINKS"]

EFFICIENCY = 0.7
"""Share of a peak that well-written kernels and copies reach, a round figure."""

_NVLINK_LATENCY, _PCIE_LATENCY, _NETWORK_LATENCY = 3e-6, 1e-5, 1.5e-5
"""Seconds of a small copy, host calls included: an order of magnitude, not from datasheets."""


@dataclass(frozen=True, slots=True)
class GPU:
    """A device.

    Attributes:
        name: what its maker calls it.
        flops: operations a second.
        bandwidth: bytes a second of its memory.
        memory: bytes.
        host: its way to the host's memory, each direction.
        peer: its way to other devices of the machine without the host, each direction; None where
            there is none.
    """

    name: str
    flops: float
    bandwidth: float
    memory: int
    host: Link
    peer: Link | None = None


LINKS = {
    "pcie4": Link(_PCIE_LATENCY, 16e9 * 16 / 8 * 128 / 130),
    "pcie5": Link(_PCIE_LATENCY, 32e9 * 16 / 8 * 128 / 130),
    "nvlink3": Link(_NVLINK_LATENCY, 300e9),
    "nvlink4": Link(_NVLINK_LATENCY, 450e9),
    "ndr": Link(_NETWORK_LATENCY, 400e9 / 8),
}

GPUS = {
    gpu.name: gpu
    for gpu in (
        GPU("H100 SXM5", 989e12, 3.35e12, 80 << 30, LINKS["pcie5"], LINKS["nvlink4"]),
        GPU("A100 SXM4 80GB", 312e12, 2.039e12, 80 << 30, LINKS["pcie4"], LINKS["nvlink3"]),
        GPU("L4", 121e12, 300e9, 24 << 30, LINKS["pcie4"]),
        GPU("RTX 4090", 165.2e12, 1008e9, 24 << 30, LINKS["pcie4"]),
        GPU("RTX 3090", 71e12, 936e9, 24 << 30, LINKS["pcie4"]),
    )
}
