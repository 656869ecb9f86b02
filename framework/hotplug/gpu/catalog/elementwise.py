"""Elementwise functions, choice, casts, copies, and elements moved along axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hotplug import quants
from hotplug.dtypes import Kind, get
from hotplug.gpu.catalog.expressions import (
    COMPARISONS,
    FLOAT_FUNCTIONS,
    INTEGER_FUNCTIONS,
    PARAMETERS,
    cases,
    number_of,
)
from hotplug.gpu.catalog.quantised import conversion, decode, decoded, encode
from hotplug.gpu.catalog.table import (
    ITEMS,
    Lowering,
    counts,
    groups_of,
    i32,
    i64,
    number,
    plain_type,
    present,
    real,
    row,
    u64,
    whole,
)
from hotplug.gpu.driver import Capabilities
from hotplug.gpu.sources import Variant
from hotplug.gpu.tensors import Tensor, as_bytes, joined, shape_bytes, view_bytes, walk
from hotplug.layout import Layout
from hotplug.node import Node

__all__ = ["beside", "cast", "copy", "nearest"]

_CAST_TARGETS = ("f32", "f16", "bf16", "f64", "i8", "i16", "i32", "i64", "bool")


def _functions(node: Node) -> dict[str, str]:
    if node.dtype.kind is Kind.BOOL:
        return COMPARISONS
    return FLOAT_FUNCTIONS if node.dtype.kind is Kind.FLOAT else INTEGER_FUNCTIONS


@row(*FLOAT_FUNCTIONS, *COMPARISONS, "outer", check=plain_type)
def _elementwise(
    lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor
) -> None:
    a, b = _two(operands)
    op = node.op
    if op == "outer":
        op = "mul"
        a, b = _with_axis(a, -1), _with_axis(b, -2)
    functions = _functions(node)
    variant = Variant.of(
        "elementwise",
        {"TYPE": a.dtype.name, "RESULT": y.dtype.name, "CASES": cases(functions), "ITEMS": ITEMS},
    )
    shape, (av, bv) = walk(y.shape, (a, b))
    given = [real(node, name) for name in PARAMETERS.get(op, ())]
    parameters = [number(a.dtype.name, value) for value in [*given, 0.0, 0.0, 0.0, 0.0][:4]]
    lowering.launch(
        variant, groups_of(y.size), ITEMS,
        a.place, av, b.place, bv, y.place, i64(y.at), shape, i32(number_of(functions, op)),
        *parameters,
    )  # fmt: skip


def _two(operands: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
    """Both operands; of one, that one twice."""
    first, last = present(operands[0], operands[-1])
    return first, last


def _with_axis(tensor: Tensor, axis: int) -> Tensor:
    """The same elements with an axis of length 1 at a negative place."""
    at = len(tensor.shape) + 1 + axis
    shape = (*tensor.shape[:at], 1, *tensor.shape[at:])
    strides = (*tensor.strides[:at], 0, *tensor.strides[at:])
    return Tensor(tensor.place, tensor.dtype, Layout(shape, strides, tensor.layout.offset))


@row("where", check=plain_type)
def _where(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    del node
    condition, a, b = present(*operands)
    shape, (cv, av, bv) = walk(y.shape, (condition, a, b))
    variant = Variant.of("where", {"WIDTH": y.dtype.block_bytes, "ITEMS": ITEMS}, "choose")
    lowering.launch(
        variant, groups_of(y.size), ITEMS,
        condition.place, cv, a.place, av, b.place, bv, y.place, i64(y.at), shape,
    )  # fmt: skip


def copy(lowering: Lowering, x: Tensor, y: Tensor) -> None:
    """Elements moved to another layout of the same shape; of quantised tensors whole blocks."""
    if x.dtype.quantised:
        x, y = as_bytes(x), as_bytes(y)
    lengths, (xs, ys) = joined(y.shape, [x.strides, y.strides])
    each = beside(lengths, (xs, ys), (x.at, y.at), y.dtype.block_bytes, _WIDEST)
    lengths = (*lengths[:-1], lengths[-1] // each)
    xs, ys = ((*(step // each for step in steps[:-1]), steps[-1]) for steps in (xs, ys))
    variant = Variant.of("copy", {"WIDTH": each * y.dtype.block_bytes, "ITEMS": ITEMS})
    lowering.launch(
        variant, groups_of(y.size // each), ITEMS,
        x.place, view_bytes(x.at, xs), y.place, view_bytes(y.at, ys), shape_bytes(lengths),
    )  # fmt: skip


_WIDEST = 16  # bytes that an item of `copy` moves


def beside(
    lengths: tuple[int, ...],
    strides: Sequence[tuple[int, ...]],
    at: Sequence[int],
    width: int,
    widest: int,
) -> int:
    """Elements that lie beside each other everywhere, and that an item may move at once.

    Args:
        lengths: of the axes.
        strides: of each tensor, in elements.
        at: first byte of each tensor.
        width: bytes of an element.
        widest: bytes that an item moves at most.
    """
    if any(steps[-1] != 1 for steps in strides):
        return 1
    each = widest // width
    whole_in = [lengths[-1], *(step for steps in strides for step in steps[:-1])]
    while each > 1 and (
        any(count % each for count in whole_in) or any(one % (each * width) for one in at)
    ):
        each //= 2
    return each


@row("contiguous", check=lambda node, caps: "" if node.dtype.quantised else plain_type(node, caps))
def _contiguous(
    lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor
) -> None:
    del node
    copy(lowering, _one(operands), y)


def _one(operands: Sequence[Tensor | None]) -> Tensor:
    return present(operands[0])[0]


@row("concat", check=plain_type)
def _concat(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    axis = whole(node, "axis") % len(y.shape)
    start = 0
    for tensor in present(*operands):
        offset = y.layout.offset + start * y.strides[axis]
        part = Tensor(y.place, y.dtype, Layout(tensor.shape, y.strides, offset))
        copy(lowering, tensor, part)
        start += tensor.shape[axis]


_CONSTANT, _WRAP, _REFLECT, _NEAREST = range(4)


@row("repeat", "roll", "pad", "pad_reflect", check=plain_type)
def _remap(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    before, mode, value = _mapping(node)
    _remapped(lowering, _one(operands), y, before, mode, _pattern(value, y))


def nearest(lowering: Lowering, x: Tensor, y: Tensor) -> None:
    """Along each axis the element at floor(i n / m), of n for m elements."""
    _remapped(lowering, x, y, (0,) * len(y.shape), _NEAREST, 0)


def _remapped(
    lowering: Lowering, x: Tensor, y: Tensor, before: tuple[int, ...], mode: int, outside: int
) -> None:
    variant = Variant.of("remap", {"WIDTH": y.dtype.block_bytes, "ITEMS": ITEMS})
    lowering.launch(
        variant, groups_of(y.size), ITEMS,
        x.place, view_bytes(x.at, x.strides), y.place, i64(y.at), shape_bytes(y.shape or (1,)),
        shape_bytes(x.shape or (1,)), _counts(before), i32(mode), u64(outside),
    )  # fmt: skip


def _counts(before: tuple[int, ...]) -> bytes:
    return i32(0, len(before), *before, *[0] * (6 - len(before)))


def _mapping(node: Node) -> tuple[tuple[int, ...], int, float]:
    """Elements before the first along each axis, what is there, and the constant."""
    rank = len(node.shape)
    if node.op == "roll":
        return counts(node, "shifts"), _WRAP, 0.0
    if node.op == "pad_reflect":
        return (0,) * (rank - 1) + (whole(node, "before"),), _REFLECT, 0.0
    if node.op == "pad":
        mode = _WRAP if node.param("mode") == "circular" else _CONSTANT
        return counts(node, "before"), mode, real(node, "value")
    return (0,) * rank, _WRAP, 0.0


def _pattern(value: float, y: Tensor) -> int:
    """The bits of a constant in a tensor's dtype."""
    return int.from_bytes(_encoded(np.array([value]), y.dtype.name), "little")


def _encoded(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], dtype: str) -> bytes:
    return quants.encode(values, get(dtype)).tobytes()


@row("fill", check=plain_type)
def _fill(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    del operands
    one = lowering.constant(_encoded(np.array([real(node, "value")]), y.dtype.name))
    source = Tensor(one, y.dtype, Layout(y.shape, (0,) * len(y.shape)))
    copy(lowering, source, y)


@row("arange", check=plain_type)
def _arange(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    del operands
    start, step = real(node, "start"), real(node, "step")
    values = _encoded(start + step * np.arange(y.size, dtype=np.float64), y.dtype.name)
    copy(lowering, Tensor(lowering.constant(values), y.dtype, Layout.contiguous(y.shape)), y)


@row("triangular", "diag", check=plain_type)
def _triangle(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    x = _one(operands)
    rows, columns = y.shape[-2:]
    least, most, value = -rows, columns, 0.0
    if node.op == "diag":
        x, least, most = _with_axis(x, -2), 0, 0
    else:
        diagonal = whole(node, "diagonal")
        value = real(node, "value")
        least, most = (least, diagonal) if node.param("part") == "lower" else (diagonal, most)
    shape, (xv,) = walk(y.shape, (x,))
    variant = Variant.of("triangle", {"WIDTH": y.dtype.block_bytes, "ITEMS": ITEMS})
    lowering.launch(
        variant, groups_of(y.size), ITEMS,
        x.place, xv, y.place, i64(y.at), shape, i32(rows), i32(columns), i32(_int32(least)),
        i32(_int32(most)), u64(_pattern(value, y)),
    )  # fmt: skip


def _int32(value: int) -> int:
    return max(-(2**31), min(2**31 - 1, value))


def _cast_check(node: Node, capabilities: Capabilities) -> str:
    source = node.operands[0].dtype
    if source.quantised or node.dtype.quantised:
        return conversion(node, source, capabilities)
    return plain_type(node, capabilities)


@row("cast", check=_cast_check)
def _cast(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    del node
    cast(lowering, _one(operands), y)


def cast(lowering: Lowering, x: Tensor, y: Tensor) -> None:
    """Elements as those of another dtype, the result contiguous."""
    if x.dtype == y.dtype:
        copy(lowering, x, y)
        return
    if x.dtype.quantised and y.dtype.kind is Kind.FLOAT:
        decode(lowering, x, y)
        return
    x = decoded(lowering, x)
    if y.dtype.quantised:
        encode(lowering, x, y)
        return
    shape, (xv,) = walk(y.shape, (x,))
    defines = {
        "TYPE": x.dtype.name,
        "FROM_FLOAT": "1" if x.dtype.kind is Kind.FLOAT else None,
        "WIDER": "1" if x.dtype.name in {"f64", "i64", "i32"} else None,
        "ITEMS": ITEMS,
    }
    lowering.launch(
        Variant.of("cast", defines), groups_of(y.size), ITEMS,
        x.place, xv, y.place, i64(y.at), shape, i32(_CAST_TARGETS.index(y.dtype.name)),
    )  # fmt: skip


@row("add_rows_by_id", check=plain_type)
def _add_rows(lowering: Lowering, node: Node, operands: Sequence[Tensor | None], y: Tensor) -> None:
    del node
    x, bias, ids = present(*operands)
    shape, (xv, iv) = walk(y.shape, (x, _with_axis(ids, -1)))
    variant = Variant.of("add_rows", {"TYPE": x.dtype.name, "ITEMS": ITEMS})
    lowering.launch(
        variant, groups_of(y.size), ITEMS,
        x.place, xv, bias.place, view_bytes(bias.at, bias.strides), ids.place, iv, y.place,
        i64(y.at), shape, i32(y.shape[-1]), i32(bias.shape[0]), i32(ids.dtype.name == "i64"),
    )  # fmt: skip
