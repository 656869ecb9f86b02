"""Systems of equations with triangular matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hotplug.gpu.catalog.table import Lowering, i32, i64, plain_type, present, row
from hotplug.gpu.sources import Variant
from hotplug.gpu.tensors import Tensor, joined, shape_bytes, view_bytes
from hotplug.node import Node

__all__: list[str] = []

_PARTS = 16  # columns of an item, on a processor


@row("solve_triangular", check=plain_type)
def _solve(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    a, b = present(*operands)
    n, m = y.shape[-2:]
    lead = y.shape[:-2]
    strides = [x.broadcast((*lead, *x.shape[-2:]))[: len(lead)] for x in (a, b)]
    lengths, (a_lead, b_lead) = joined(lead, strides)
    a_row, a_column = a.strides[-2:]
    b_row, b_column = b.strides[-2:]
    a_at, b_at, y_at, y_row = a.at, b.at, y.at, m
    if not node.param("lower"):  # from the last row up, and the last column of a back
        a_at += (n - 1) * (a_row + a_column) * a.dtype.block_bytes
        b_at += (n - 1) * b_row * b.dtype.block_bytes
        y_at += (n - 1) * y_row * y.dtype.block_bytes
        a_row, a_column, b_row, y_row = -a_row, -a_column, -b_row, -y_row
    items = 1 if lowering.capabilities.is_cpu else 32 if m <= 32 else 64
    across = -(-m // (_PARTS if items == 1 else items))
    defines = {"TYPE": y.dtype.name, "A": a.dtype.name, "B": b.dtype.name, "ITEMS": items}
    lowering.launch(
        Variant.of("solve", defines), math.prod(lead) * across, items,
        a.place, view_bytes(a_at, a_lead), b.place, view_bytes(b_at, b_lead), y.place, i64(y_at),
        shape_bytes(lengths), i64(a_row), i64(a_column), i64(b_row), i64(b_column), i64(y_row),
        i32(n), i32(m), i32(across), i32(bool(node.param("unit_diagonal"))),
    )  # fmt: skip
