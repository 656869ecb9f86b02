"""Other layouts over the same storage. None of these computes or copies anything.

A reshape that the operand's layout does not allow without a copy is still a view in the graph;
whoever runs it makes the operand contiguous first.
"""

from __future__ import annotations

from hotplug.layout import Layout
from hotplug.node import Node
from hotplug.ops.checks import normal_axis, require
from hotplug.ops.spec import op
from hotplug.tensor import TensorType

__all__ = ["permute", "reshape", "slice", "transpose", "view_layout"]


def _free(_: object) -> int:
    return 0


@op("reshape", view=True, flops=_free)
def reshape(x: Node, *, shape: tuple[int, ...]) -> TensorType:
    """The same elements in the same order under another shape; -1 once stands for what is left.

    A quantised tensor keeps its last axis.
    """
    known = 1
    for length in shape:
        known *= length if length != -1 else 1
    if -1 in shape:
        require(shape.count(-1) == 1, f"shape {shape} leaves more than one length open")
        require(known > 0 and x.type.size % known == 0, f"{x.type} cannot become {shape}")
        shape = tuple(x.type.size // known if n == -1 else n for n in shape)
    result = TensorType(x.dtype, shape)
    require(result.size == x.type.size, f"{x.type} cannot become {shape}: sizes differ")
    require(
        not x.dtype.quantised or shape[-1] == x.shape[-1],
        f"{x.type} is packed along its last axis, which must stay",
    )
    return result


@op("permute", view=True, flops=_free)
def permute(x: Node, *, axes: tuple[int, ...]) -> TensorType:
    """Axes in another order: result axis i is axis `axes[i]` of the operand."""
    rank = len(x.shape)
    require(sorted(axes) == list(range(rank)), f"{axes} is no permutation of {rank} axes")
    require(
        not x.dtype.quantised or axes[-1] == rank - 1,
        f"{x.type} is packed along its last axis, which must stay last",
    )
    return TensorType(x.dtype, tuple(x.shape[axis] for axis in axes))


@op("transpose", view=True, flops=_free)
def transpose(x: Node, *, axis0: int = -2, axis1: int = -1) -> TensorType:
    """Two axes exchanged."""
    rank = len(x.shape)
    first, second = normal_axis(axis0, rank), normal_axis(axis1, rank)
    require(
        not x.dtype.quantised or rank - 1 not in {first, second} or first == second,
        f"{x.type} is packed along its last axis, which must stay last",
    )
    shape = list(x.shape)
    shape[first], shape[second] = shape[second], shape[first]
    return TensorType(x.dtype, tuple(shape))


@op("slice", view=True, flops=_free)
def slice(
    x: Node,
    *,
    starts: tuple[int, ...],
    stops: tuple[int, ...],
    steps: tuple[int, ...] | None = None,
) -> TensorType:
    """The box from `starts` (included) to `stops` (excluded) by `steps` > 0, one each per axis."""
    rank = len(x.shape)
    steps = steps or (1,) * rank
    require(len(starts) == len(stops) == len(steps) == rank, f"need {rank} starts, stops and steps")
    for start, stop, step, length in zip(starts, stops, steps, x.shape, strict=True):
        require(0 <= start <= stop <= length and step > 0, f"{start}:{stop}:{step} of {length}")
    if x.dtype.quantised:
        whole = starts[-1] % x.dtype.block == 0 and stops[-1] % x.dtype.block == 0
        require(whole and steps[-1] == 1, f"a slice of {x.type} must keep blocks whole")
    return TensorType(x.dtype, Layout.contiguous(x.shape).slice(starts, stops, steps).shape)


def view_layout(node: Node, source: Layout) -> Layout | None:
    """Layout of a view node over its operand's layout; None where it takes a copy.

    Layouts of quantised tensors count elements too; every boundary falls on a whole block.
    """
    params = dict(node.params)
    if node.op == "reshape":
        return source.reshape(node.shape)
    if node.op == "slice":
        steps = params["steps"] or (1,) * len(node.shape)
        return source.slice(params["starts"], params["stops"], steps)  # type: ignore[arg-type]
    if node.op == "permute":
        return source.permute(params["axes"])  # type: ignore[arg-type]
    rank = len(node.shape)
    axes = list(range(rank))
    first, second = int(params["axis0"]) % rank, int(params["axis1"]) % rank  # type: ignore[arg-type]
    axes[first], axes[second] = axes[second], axes[first]
    return source.permute(tuple(axes))
