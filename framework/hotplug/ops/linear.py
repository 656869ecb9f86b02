"""Matrix products."""

from __future__ import annotations

from hotplug.dtypes import get
from hotplug.node import Node
from hotplug.ops.checks import (
    broadcast,
    require,
    require_float,
    require_index,
    require_plain,
    require_rank,
)
from hotplug.ops.spec import op
from hotplug.tensor import TensorType

__all__ = ["PRECISIONS", "matmul", "matmul_grouped", "outer", "solve_triangular"]

PRECISIONS = ("default", "exact")
"""`default` lets a device round float operands to 8-bit blocks before a product with quantised
weights, as all fast inference engines do, and both operands to 14-bit blocks where the weights are
f16 or bf16; `exact` keeps them in float32."""


def _product_flops(node: Node) -> int:
    left = node.operands[0]
    return 2 * node.type.size * left.shape[-1]


def _check_precision(precision: str) -> None:
    require(precision in PRECISIONS, f"precision must be one of {PRECISIONS}, not {precision!r}")


@op("matmul", flops=_product_flops)
def matmul(
    a: Node, b: Node, *, transpose_b: bool = False, precision: str = "default"
) -> TensorType:
    """Matrix product over the last two axes; leading axes broadcast.

    Args:
        a: (..., m, k), plain floats.
        b: (..., k, n), or (..., n, k) with `transpose_b`. Quantised weights are packed along k, so
            they need `transpose_b`.
        transpose_b: b holds its columns as rows, as weight files do.
        precision: see PRECISIONS.

    Returns:
        (..., m, n): f64 if both operands are, else f32.
    """
    _check_precision(precision)
    require_float(a)
    require(len(a.shape) >= 2 and len(b.shape) >= 2, "operands need at least two axes")
    if b.dtype.quantised:
        require(transpose_b, f"quantised {b.type} can only be multiplied with transpose_b")
    else:
        require_float(b)
    inner, columns = (b.shape[-1], b.shape[-2]) if transpose_b else b.shape[-2:]
    require(a.shape[-1] == inner, f"inner lengths {a.shape[-1]} and {inner} differ")
    lead = broadcast(a.shape[:-2], b.shape[:-2])
    both_f64 = a.dtype.name == b.dtype.name == "f64"
    return TensorType(get("f64" if both_f64 else "f32"), (*lead, a.shape[-2], columns))


@op("matmul_grouped", flops=_product_flops)
def matmul_grouped(x: Node, w: Node, ids: Node, *, precision: str = "default") -> TensorType:
    """Each row times the matrix that its expert id names (ggml's mul_mat_id).

    Args:
        x: (tokens, used, k), or (tokens, 1, k) when all experts of a token take the same row.
        w: (experts, n, k), plain floats or quantised.
        ids: (tokens, used), i32 or i64; an id outside 0..experts-1 gives a row of zeros.
        precision: see PRECISIONS.

    Returns:
        (tokens, used, n), f32.
    """
    _check_precision(precision)
    require_float(x)
    require_index(ids)
    require_rank(x, 3)
    require_rank(w, 3)
    require_rank(ids, 2)
    tokens, used = ids.shape
    require(
        x.shape[0] == tokens and x.shape[1] in {1, used}, f"{x.type} does not go with {ids.type}"
    )
    require(x.shape[2] == w.shape[2], f"inner lengths {x.shape[2]} and {w.shape[2]} differ")
    return TensorType(get("f32"), (tokens, used, w.shape[1]))


@op("outer")
def outer(a: Node, b: Node) -> TensorType:
    """Outer product: a (..., m) and b (..., n) give (..., m, n); leading axes broadcast."""
    require_plain(a, b)
    require_float(a, b)
    require(a.dtype == b.dtype, f"operands must share a dtype, given {a.dtype} and {b.dtype}")
    require(bool(a.shape) and bool(b.shape), "operands need at least one axis")
    lead = broadcast(a.shape[:-1], b.shape[:-1])
    return TensorType(a.dtype, (*lead, a.shape[-1], b.shape[-1]))


def _solve_flops(node: Node) -> int:
    return node.type.size * node.shape[-2]


@op("solve_triangular", flops=_solve_flops)
def solve_triangular(
    a: Node, b: Node, *, lower: bool = True, unit_diagonal: bool = False
) -> TensorType:
    """X with a x = b, by substitution (SciPy's solve_triangular; ggml's solve_tri).

    Args:
        a: (..., n, n), floats; what lies in the other triangle is not read. A 0 on the diagonal
            gives infinities or NaN.
        b: (..., n, m), floats; leading axes broadcast.
        lower: whether a is lower triangular, else upper.
        unit_diagonal: take the diagonal for ones, whatever it holds.

    Returns:
        (..., n, m), f64 if both operands are, else f32.
    """
    require_float(a, b)
    require(len(a.shape) >= 2 and len(b.shape) >= 2, "operands need at least two axes")
    require(a.shape[-1] == a.shape[-2], f"{a.type} is not square")
    require(a.shape[-1] == b.shape[-2], f"{a.type} and {b.type} differ in rows")
    lead = broadcast(a.shape[:-2], b.shape[:-2])
    both_f64 = a.dtype.name == b.dtype.name == "f64"
    return TensorType(get("f64" if both_f64 else "f32"), (*lead, *b.shape[-2:]))
