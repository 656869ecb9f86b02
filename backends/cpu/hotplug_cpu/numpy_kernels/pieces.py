"""Parts of tensors, for kernels that go through one matrix at a time."""

from __future__ import annotations

from hotplug_cpu.tensor_view import TensorView

__all__ = ["PIECE", "part_at"]

PIECE = 1 << 22
"""Elements of a temporary value beyond which kernels that may meet whole weights or caches work in
pieces: 16 MB of float32."""


def part_at(x: TensorView, at: tuple[int, ...], rank: int) -> TensorView:
    """The last `rank` axes at an index into leading axes that those of x broadcast to."""
    lead = x.shape[: len(x.shape) - rank]
    own = at[len(at) - len(lead) :]
    return x.part(tuple(i if n > 1 else 0 for i, n in zip(own, lead, strict=True)))
