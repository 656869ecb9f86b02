"""Rows taken from tables and put into them; copies and casts."""

from __future__ import annotations

from hotplug.dtypes import get
from hotplug.node import Node
from hotplug.ops.checks import require, require_index, require_rank
from hotplug.ops.spec import op
from hotplug.tensor import TensorType

__all__ = ["cast", "contiguous", "index_select", "scatter_rows", "take"]


@op("take")
def take(table: Node, indices: Node) -> TensorType:
    """Rows of a table (ggml's get_rows): an embedding lookup.

    Args:
        table: (rows, ...); rows of a quantised table are decoded.
        indices: any shape, i32 or i64. An index outside 0..rows-1 gives a row of zeros, on every
            device: no device can raise from inside a kernel.

    Returns:
        indices.shape + table.shape[1:], f32 if the table is quantised, else the table's dtype.
    """
    require_index(indices)
    require(bool(table.shape), "a table needs at least one axis")
    require(not table.dtype.quantised or len(table.shape) > 1, f"{table.type} has no rows")
    dtype = get("f32") if table.dtype.quantised else table.dtype
    return TensorType(dtype, indices.shape + table.shape[1:])


@op("index_select", flops=lambda _: 0)
def index_select(table: Node, indices: Node) -> TensorType:
    """Entries of a table along its first axis as they are stored: blocks stay blocks.

    So some experts of a weight can be brought to another device (see `matmul_grouped`).

    Args:
        table: (n, ...); quantised ones have two axes at least.
        indices: (m,), i32 or i64. An index outside 0..n-1 gives an entry whose bytes are zero.

    Returns:
        (m, ...), of the table's dtype.
    """
    require_index(indices)
    require_rank(indices, 1)
    require(bool(table.shape), "a table needs at least one axis")
    require(not table.dtype.quantised or len(table.shape) > 1, f"{table.type} has no rows")
    return TensorType(table.dtype, indices.shape + table.shape[1:])


@op("scatter_rows", updates=0)
def scatter_rows(table: Node, indices: Node, rows: Node) -> TensorType:
    """The table with some rows replaced (ggml's set_rows): a KV cache write.

    Args:
        table: (n, ...), any dtype that can be encoded.
        indices: (m,), i32 or i64. An index outside 0..n-1 drops its row. Of equal indices the last
            row wins.
        rows: (m, ...), floats (or the table's dtype), cast to the table's dtype.
    """
    require_index(indices)
    require_rank(indices, 1)
    expected = indices.shape + table.shape[1:]
    require(rows.shape == expected, f"rows must be {list(expected)}, given {rows.type}")
    return table.type


@op("cast")
def cast(x: Node, *, dtype: str) -> TensorType:
    """The same values in another dtype, rounded to nearest, ties to even.

    Floats become integers by truncation toward zero, and NaN becomes 0. What an integer cannot
    hold, from a float or from a wider integer, becomes the nearest that it can. All but 0 is True.
    A quantised tensor is decoded to f32 first, unless the dtype stays what it is.
    """
    return TensorType(get(dtype), x.shape)


@op("contiguous", inplace=())
def contiguous(x: Node) -> TensorType:
    """A row-major copy."""
    return x.type
