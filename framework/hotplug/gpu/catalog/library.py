"""Products of many rows by the vendor's library, where a device has one.

A library multiplies matrices of one dtype, by units of the device that C code does not reach. Other
operands are first turned into such: the left one whole, the right one by panels of columns, so that
the memory for them is bounded. What they are turned into:

    weights are quantised, precision is "default"    bf16, where the device has it
    both operands are of one plain dtype             that
    all others                                       f32

bf16 and not f16, since it holds what f32 holds, and f16 ends at 65504. Rounding both operands to
bf16 is an error of 2^-8 at most of each product; rounding the left one to 8-bit blocks, which
"default" allows, is one of 2^-8 of a block's largest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from hotplug import dtypes
from hotplug.dtypes import DType
from hotplug.gpu.catalog.elementwise import cast
from hotplug.gpu.catalog.table import Geometry, Lowering, bucket
from hotplug.gpu.driver import Gemm, Operand
from hotplug.gpu.tensors import Place, Tensor, contiguous, joined
from hotplug.layout import Layout
from hotplug.node import Node

__all__ = ["FEWEST_ROWS", "PANEL_BYTES", "product"]

FEWEST_ROWS = 32
"""Rows from which on the library is asked, unless trying has shown otherwise.

Weights have to be decoded to memory and read again, some 5 bytes for each; our kernel decodes them
to local memory, but multiplies without tensor cores. By an H100's published figures the two meet
near 16 rows; not measured.
"""

PANEL_BYTES = 64 << 20
"""Memory for weights in another form: columns enough for all of a large device."""

_DOUBTFUL = range(9, 256)  # rows for which it is worth while to try
_FEWEST = 64  # columns, and depth: less is one tile of the library's
_ALIGNMENT = 256


def product(lowering: Lowering, node: Node, a: Tensor, b: Tensor, y: Tensor) -> bool:
    """Launch the library's product where it is likely the faster; tells whether it did.

    Args:
        lowering: gets the launches.
        node: op `matmul`.
        a: left operand.
        b: right operand.
        y: result, contiguous.
    """
    dtype = _dtype(node, lowering.capabilities.products)
    problem = _joined(node, a, b, y)
    if dtype is None or problem is None or not _preferred(lowering, node, problem):
        return False
    a, b = problem.a, problem.b
    ready = [_operand(x) if x.dtype == dtype else None for x in (a, b)]
    if None in ready and problem.batch > 1:
        return False
    used = 0
    if ready[0] is None:
        a = _temporary(dtype, a.shape, 0)
        cast(lowering, problem.a, a)
        used = -(-dtype.nbytes(a.size) // _ALIGNMENT) * _ALIGNMENT
        lowering.temporary(used)
    if ready[1] is not None:
        _launch(lowering, dtype, _Problem(a, b, problem.y))
        return True
    for part in _panels(problem, dtype):
        panel = _temporary(dtype, part.b.shape, used)
        lowering.temporary(used + dtype.nbytes(panel.size))
        cast(lowering, part.b, panel)
        _launch(lowering, dtype, _Problem(a, panel, part.y))
    return True


def _dtype(node: Node, able: frozenset[str]) -> DType | None:
    """What both operands are turned into; None if the library does not multiply that."""
    if node.dtype.name != "f32":
        return None
    a, b = (operand.dtype for operand in node.operands)
    name = a.name if a == b else "f32"
    if b.quantised and node.param("precision") == "default" and "bf16" in able:
        name = "bf16"
    return dtypes.get(name) if name in able else None


@dataclasses.dataclass(frozen=True, slots=True)
class _Problem:
    """A product with its leading axes joined.

    Attributes:
        a: (batch, rows, depth).
        b: (batch, columns, depth).
        y: (batch, rows, columns).
    """

    a: Tensor
    b: Tensor
    y: Tensor

    @property
    def batch(self) -> int:
        return self.y.shape[0]


def _preferred(lowering: Lowering, node: Node, problem: _Problem) -> bool:
    """Whether the library is the faster: by trying on the device, or else by the rule."""
    batch, rows, columns = problem.y.shape
    depth = problem.a.shape[2]
    if not batch or min(columns, depth) < _FEWEST:
        return False
    if rows not in _DOUBTFUL:
        return rows >= FEWEST_ROWS
    asked = f"library {node.param('precision')} {problem.a.dtype} {problem.b.dtype}"
    ways: list[Geometry] = [{"LIBRARY": 1}, {"LIBRARY": 0}]
    ways.sort(key=lambda way: way["LIBRARY"] != (rows >= FEWEST_ROWS))
    question = f"{asked} {batch} {bucket(rows, columns, depth)}"
    return bool(lowering.choose(question, ways)["LIBRARY"])


def _joined(node: Node, a: Tensor, b: Tensor, y: Tensor) -> _Problem | None:
    """None if the leading axes do not join to one."""
    if not node.param("transpose_b"):
        axes = (*range(len(b.shape) - 2), len(b.shape) - 1, len(b.shape) - 2)
        b = dataclasses.replace(b, layout=b.layout.permute(axes))
    lead = y.shape[:-2]
    strides = [tensor.broadcast((*lead, *tensor.shape[-2:]))[:-2] for tensor in (a, b, y)]
    lengths, steps = joined(lead, strides)
    if len(lengths) > 1:
        return None
    batch, rows = lengths[0], a.shape[-2]
    a_step, b_step, y_step = (step[0] for step in steps)
    if b_step == 0 and a_step == rows * a.strides[-2]:  # one matrix of all rows
        batch, rows, a_step, y_step = 1, batch * rows, 0, 0
    return _Problem(
        _matrices(a, batch, a_step, rows),
        _matrices(b, batch, b_step, b.shape[-2]),
        _matrices(y, batch, y_step, rows),
    )


def _matrices(x: Tensor, batch: int, step: int, rows: int) -> Tensor:
    """The last two axes of a tensor under one of another length and step."""
    layout = Layout((batch, rows, x.shape[-1]), (step, *x.strides[-2:]), x.layout.offset)
    return dataclasses.replace(x, layout=layout)


def _operand(x: Tensor) -> Operand | None:
    """How the library takes matrices; None if neither their rows nor their columns are dense."""
    batch, row, step = x.strides
    _, rows, columns = x.shape
    if step == 1 and row >= columns:
        return Operand(x.at, row, batch=batch)
    if row == 1 and step >= rows:
        return Operand(x.at, step, transposed=True, batch=batch)
    return None


def _ready(x: Tensor) -> Operand:
    operand = _operand(x)
    assert operand is not None, "operands are made so before"
    return operand


def _temporary(dtype: DType, shape: tuple[int, ...], at: int) -> Tensor:
    return contiguous(Place("scratch", at), dtype, shape)


def _panels(problem: _Problem, dtype: DType) -> Iterator[_Problem]:
    """The problem by columns, so many that they fit into a panel."""
    columns, depth = problem.b.shape[1:]
    most = max(_FEWEST, PANEL_BYTES // dtype.nbytes(depth))
    for start in range(0, columns, most):
        stop = min(start + most, columns)
        yield _Problem(
            problem.a, _part(problem.b, 1, start, stop), _part(problem.y, 2, start, stop)
        )


def _part(x: Tensor, axis: int, start: int, stop: int) -> Tensor:
    shape = tuple(stop - start if n == axis else length for n, length in enumerate(x.shape))
    offset = x.layout.offset + start * x.strides[axis]
    return dataclasses.replace(x, layout=Layout(shape, x.strides, offset))


def _launch(lowering: Lowering, dtype: DType, problem: _Problem) -> None:
    a, b, y = (_ready(tensor) for tensor in (problem.a, problem.b, problem.y))
    batch, rows, columns = problem.y.shape
    gemm = Gemm(dtype.name, rows, columns, problem.a.shape[2], a, b, y, batch)
    places = (problem.a.place, problem.b.place, problem.y.place)
    lowering.multiply(gemm, *places)
