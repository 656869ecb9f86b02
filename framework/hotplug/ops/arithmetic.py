"""Elementwise arithmetic, comparison and choice, with broadcasting.

Operands must share a dtype: nothing is promoted silently.
"""

from __future__ import annotations

from hotplug.dtypes import Kind, get
from hotplug.node import Node
from hotplug.ops.checks import broadcast, require, require_plain, require_same_dtype
from hotplug.ops.spec import Op, op
from hotplug.tensor import TensorType

__all__ = [
    "add", "add_rows_by_id", "div", "equal", "greater", "greater_equal", "less", "less_equal",
    "logical_and", "logical_not", "logical_or", "maximum", "minimum", "mul", "not_equal", "pow",
    "scale", "sub", "where",
]  # fmt: skip


def _binary(name: str, text: str) -> Op[[Node, Node]]:
    def rule(a: Node, b: Node) -> TensorType:
        _check_numbers(a, b)
        return TensorType(a.dtype, broadcast(a.shape, b.shape))

    rule.__doc__ = text
    return op(name, inplace=(0, 1))(rule)


def _comparison(name: str, text: str) -> Op[[Node, Node]]:
    def rule(a: Node, b: Node) -> TensorType:
        _check_numbers(a, b)
        return TensorType(get("bool"), broadcast(a.shape, b.shape))

    rule.__doc__ = text
    return op(name)(rule)


def _logical(name: str, text: str) -> Op[[Node, Node]]:
    def rule(a: Node, b: Node) -> TensorType:
        _check_bool(a, b)
        return TensorType(get("bool"), broadcast(a.shape, b.shape))

    rule.__doc__ = text
    return op(name, inplace=(0, 1))(rule)


def _check_numbers(*nodes: Node) -> None:
    require_plain(*nodes)
    require_same_dtype(*nodes)
    require(nodes[0].dtype.kind is not Kind.BOOL, "bool operands need a logical op")


def _check_bool(*nodes: Node) -> None:
    for node in nodes:
        require(node.dtype.kind is Kind.BOOL, f"{node.type} must be bool")


add = _binary("add", "a + b; integers wrap around")
sub = _binary("sub", "a - b; integers wrap around")
mul = _binary("mul", "a * b; integers wrap around")
div = _binary("div", "a / b; integers truncate toward zero, and x / 0 is 0 for them")
maximum = _binary("maximum", "The larger; NaN if either is")
minimum = _binary("minimum", "The smaller; NaN if either is")
pow = _binary("pow", "a to the power b; a negative integer power gives 0")
equal = _comparison("equal", "a == b")
not_equal = _comparison("not_equal", "a != b")
less = _comparison("less", "a < b")
less_equal = _comparison("less_equal", "a <= b")
greater = _comparison("greater", "a > b")
greater_equal = _comparison("greater_equal", "a >= b")
logical_and = _logical("logical_and", "a and b")
logical_or = _logical("logical_or", "a or b")


@op("logical_not", inplace=(0,))
def logical_not(x: Node) -> TensorType:
    """Not x."""
    _check_bool(x)
    return x.type


@op("scale", inplace=(0,), flops=lambda node: 2 * node.type.size)
def scale(x: Node, *, factor: float, offset: float = 0.0) -> TensorType:
    """Factor * x + offset, of floats."""
    require(x.dtype.kind is Kind.FLOAT, f"{x.type} must hold floats")
    return x.type


@op("where")
def where(condition: Node, a: Node, b: Node) -> TensorType:
    """A where the condition holds, else b; all three broadcast."""
    _check_bool(condition)
    require_plain(a, b)
    require_same_dtype(a, b)
    return TensorType(a.dtype, broadcast(condition.shape, a.shape, b.shape))


@op("add_rows_by_id", inplace=(0,))
def add_rows_by_id(x: Node, bias: Node, ids: Node) -> TensorType:
    """X plus the bias row of each expert (ggml's add_id).

    Args:
        x: (tokens, used, n).
        bias: (experts, n), the same dtype.
        ids: (tokens, used), i32 or i64; an id outside 0..experts-1 adds nothing.
    """
    _check_numbers(x, bias)
    require(len(x.shape) == 3 and ids.shape == x.shape[:2], f"{x.type} does not go with {ids.type}")
    require(len(bias.shape) == 2 and bias.shape[1] == x.shape[2], f"bias {bias.type} for {x.type}")
    return x.type
