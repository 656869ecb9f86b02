"""What GPUs can do at most, as NVIDIA's data sheets have it: the roof that kernels are held to."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["H100", "Peaks", "peaks_of"]


@dataclass(frozen=True, slots=True)
class Peaks:
    """A GPU's limits, each by itself.

    Attributes:
        name: as its data sheet has it.
        capability: ten times its compute capability.
        bandwidth: bytes of its memory a second.
        f32: multiplications and additions a second in f32, by ordinary units.
        tensor: the same of f16 or bf16 summed up in f32, by tensor cores and without sparsity.
    """

    name: str
    capability: int
    bandwidth: float
    f32: float
    tensor: float

    def seconds(self, nbytes: float, flops: float, *, tensor: bool = False) -> float:
        """The least time for work that reads and writes so many bytes (the roofline)."""
        return max(nbytes / self.bandwidth, flops / (self.tensor if tensor else self.f32))


def _peaks(name: str, capability: int, gigabytes: float, f32: float, tensor: float) -> Peaks:
    return Peaks(name, capability, gigabytes * 1e9, f32 * 1e12, tensor * 1e12)


H100 = _peaks("H100 SXM", 90, 3350, 67, 989)

# By the ends of the names that the driver gives.
_KNOWN = {
    "H100 80GB HBM3": H100,
    "H100 PCIe": _peaks("H100 PCIe", 90, 2000, 51, 756),
    "H200": _peaks("H200", 90, 4800, 67, 989),
    "A100-SXM4-40GB": _peaks("A100 40GB", 80, 1555, 19.5, 312),
    "A100-SXM4-80GB": _peaks("A100 80GB", 80, 2039, 19.5, 312),
    "L40S": _peaks("L40S", 89, 864, 91.6, 362),
    "L4": _peaks("L4", 89, 300, 30.3, 121),
    "RTX 4090": _peaks("GeForce RTX 4090", 89, 1008, 82.6, 165),
    "RTX 3090": _peaks("GeForce RTX 3090", 86, 936, 35.6, 71),
    "T4": _peaks("T4", 75, 320, 8.1, 65),
}


def peaks_of(name: str) -> Peaks | None:
    """A GPU's limits by the name that its driver gives; None if they are not in the table."""
    return next((peaks for end, peaks in _KNOWN.items() if name.endswith(f" {end}")), None)
