"""Every op of the table with NumPy: what runs where no compiled kernel does.

Floats are computed in float32, f64 in float64; what adds up many numbers does so in float64. Each
kernel takes operands of any strides and writes into memory that it is given. That memory may be
the very memory of an operand whose position the op's row lists as `inplace` or `updates`, never
memory that overlaps an operand otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

from hotplug import quants
from hotplug.backend import YES, Support, no
from hotplug.node import Node
from hotplug_cpu.numpy_kernels import (  # noqa: F401  (importing them fills the table)
    activation,
    arithmetic,
    arrange,
    attention,
    convolution,
    leaves,
    linear,
    norm,
    recurrence,
    reduction,
    resample,
    rope,
    rows,
    views,
)
from hotplug_cpu.numpy_kernels.table import KERNELS
from hotplug_cpu.tensor_view import TensorView

__all__ = ["KERNELS", "run", "supports"]

_MOVES_BLOCKS = frozenset({"contiguous", "reshape", "permute", "transpose", "slice"})


def run(node: Node, inputs: Sequence[TensorView | None], out: TensorView) -> None:
    """Compute one node.

    Call it with NumPy's floating-point warnings off: infinities and NaN are results.

    Args:
        node: what to compute; a view copies its operand's elements.
        inputs: values of `node.inputs`, None where an optional operand is absent.
        out: where the result goes; of the node's type.

    Raises:
        DTypeError: a quantised dtype cannot hold a value, such as NaN.
    """
    KERNELS[node.op](out, *inputs, **dict(node.params))


def supports(node: Node) -> Support:
    """Whether `run` computes a node: all but what needs an encoder that there is not."""
    if node.op not in KERNELS:
        return no(f"there is no NumPy kernel for op {node.op!r}")
    if node.op in _MOVES_BLOCKS or _keeps_dtype(node):
        return YES
    if node.dtype.quantised and not quants.can_encode(node.dtype):
        return no(f"{node.dtype} cannot be encoded")
    return YES


def _keeps_dtype(node: Node) -> bool:
    """A cast or a write of rows whose elements stay as they are stored."""
    source = {"cast": 0, "scatter_rows": 2}.get(node.op)
    operand = None if source is None else node.inputs[source]
    return operand is not None and operand.dtype == node.dtype
