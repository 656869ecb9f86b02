"""Checks and shape arithmetic that op rules share."""

from __future__ import annotations

from hotplug.dtypes import Kind, get
from hotplug.errors import GraphError
from hotplug.node import Node
from hotplug.tensor import TensorType

__all__ = [
    "broadcast",
    "normal_axis",
    "require",
    "require_float",
    "require_index",
    "require_plain",
    "require_rank",
    "require_same_dtype",
    "with_dtype",
]


def require(condition: bool, message: str) -> None:
    """Raise GraphError(message) unless the condition holds."""
    if not condition:
        raise GraphError(message)


def require_plain(*nodes: Node) -> None:
    """Operands must not be quantised."""
    for node in nodes:
        require(not node.dtype.quantised, f"{node.type} must be cast to a plain dtype first")


def require_float(*nodes: Node) -> None:
    """Operands must hold plain floats."""
    for node in nodes:
        require(node.dtype.kind is Kind.FLOAT, f"{node.type} must hold floats")


def require_index(node: Node) -> None:
    """The operand must hold i32 or i64 indices."""
    require(node.dtype.name in {"i32", "i64"}, f"indices must be i32 or i64, given {node.type}")


def require_rank(node: Node, rank: int) -> None:
    """The operand must have exactly `rank` axes."""
    require(len(node.shape) == rank, f"{node.type} must have {rank} axes")


def require_same_dtype(*nodes: Node) -> None:
    """Operands must share one dtype; there is no silent promotion."""
    names = {node.dtype.name for node in nodes}
    require(len(names) == 1, f"operands must share a dtype, given {', '.join(sorted(names))}")


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The common shape by NumPy's rule: axes are matched from the last, and length 1 stretches.

    Raises:
        GraphError: two lengths differ and neither is 1.
    """
    rank = max((len(shape) for shape in shapes), default=0)
    result = [1] * rank
    for shape in shapes:
        for axis, length in enumerate(shape, start=rank - len(shape)):
            if length != 1:
                require(result[axis] in {1, length}, f"shapes {shapes} do not broadcast")
                result[axis] = length
    return tuple(result)


def normal_axis(axis: int, rank: int) -> int:
    """The axis counted from the front; negative ones count from the back."""
    require(-rank <= axis < rank, f"axis {axis} of {rank} axes")
    return axis % rank


def with_dtype(node: Node, dtype: str) -> TensorType:
    """The operand's shape with another dtype."""
    return TensorType(get(dtype), node.shape)
