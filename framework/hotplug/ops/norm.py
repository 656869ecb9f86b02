"""Normalisation over the last axis, or over groups of channels."""

from __future__ import annotations

from hotplug.node import Node
from hotplug.ops.checks import require, require_float
from hotplug.ops.spec import op
from hotplug.tensor import TensorType

__all__ = ["group_norm", "l2_norm", "layer_norm", "rms_norm"]


def _flops(node: Node) -> int:
    return 5 * node.type.size


def _check_scale(x: Node, *scales: Node | None, length: int) -> None:
    require_float(x)
    for scale in scales:
        if scale is not None:
            require_float(scale)
            require(scale.shape == (length,), f"weight and bias must be ({length},)")


@op("rms_norm", inplace=(0,), flops=_flops)
def rms_norm(x: Node, weight: Node | None = None, *, eps: float = 1e-6) -> TensorType:
    """X / sqrt(mean(x^2) + eps) over the last axis, times weight (arXiv 1910.07467)."""
    _check_scale(x, weight, length=x.shape[-1])
    return x.type


@op("layer_norm", inplace=(0,), flops=_flops)
def layer_norm(
    x: Node, weight: Node | None = None, bias: Node | None = None, *, eps: float = 1e-5
) -> TensorType:
    """(x - mean) / sqrt(variance + eps) over the last axis, times weight, plus bias."""
    _check_scale(x, weight, bias, length=x.shape[-1])
    return x.type


@op("group_norm", inplace=(0,), flops=_flops)
def group_norm(
    x: Node,
    weight: Node | None = None,
    bias: Node | None = None,
    *,
    groups: int,
    eps: float = 1e-5,
) -> TensorType:
    """Layer norm over each group of channels of x (batch, channels, ...), then scale by channel."""
    require(len(x.shape) >= 2, f"{x.type} must be (batch, channels, ...)")
    require(groups > 0 and x.shape[1] % groups == 0, f"{x.shape[1]} channels in {groups} groups")
    _check_scale(x, weight, bias, length=x.shape[1])
    return x.type


@op("l2_norm", inplace=(0,), flops=_flops)
def l2_norm(x: Node, *, eps: float = 1e-12) -> TensorType:
    """X / max(sqrt(sum(x^2)), eps) over the last axis."""
    require_float(x)
    return x.type
