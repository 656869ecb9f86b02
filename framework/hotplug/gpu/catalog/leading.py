"""Leading axes of products, and strides in the unit in which their kernels count."""

from __future__ import annotations

from collections.abc import Sequence

from hotplug.gpu.tensors import Tensor, joined

__all__ = ["LEADING", "lead_of", "padded", "strides_of"]

LEADING = 3
"""Axes before the last two or three, joined; as many as a View leaves for them."""


def strides_of(tensor: Tensor, axes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Strides of leading axes and of the last ones, in the unit in which kernels count."""
    strides = tensor.byte_strides() if tensor.dtype.quantised else tensor.strides
    return strides[:-axes], strides[-axes:]


def lead_of(
    shape: tuple[int, ...], tensors: Sequence[Tensor], axes: int
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """The leading axes of a product, joined, and each operand's strides over them."""
    strides = []
    for tensor in tensors:
        own, lengths = strides_of(tensor, axes)[0], tensor.shape[:-axes]
        stretched = tuple(0 if n == 1 else s for n, s in zip(lengths, own, strict=True))
        strides.append((0,) * (len(shape) - len(own)) + stretched)
    return joined(shape, strides)


def padded(lead: tuple[int, ...], *rest: int) -> tuple[int, ...]:
    """Strides of a View: leading ones in the first three places, others after them."""
    if len(lead) > LEADING:
        raise ValueError(f"{len(lead)} leading axes")
    return (*lead, *[0] * (LEADING - len(lead)), *rest)
