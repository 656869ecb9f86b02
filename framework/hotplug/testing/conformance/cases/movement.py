"""Cases of the ops that make, move, pick and convert elements, and of views as results."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from hotplug import ops, quants
from hotplug.dtypes import DTYPES
from hotplug.node import Node
from hotplug.testing.conformance.case import Case, single
from hotplug.testing.conformance.cases.operands import (
    FLOATS,
    LAYOUTS,
    PLAIN,
    QUANTS,
    leaf,
)
from hotplug.testing.conformance.values import Recipe, given, integers, normal, whole_range

__all__ = ["cases"]

_ENCODABLE = tuple(name for name in QUANTS if quants.can_encode(DTYPES[name]))

_ARRANGED: tuple[tuple[str, tuple[int, ...], dict[str, Any]], ...] = (
    ("repeat", (2, 3), {"repeats": (2, 3)}),
    ("repeat", (5,), {"repeats": (1,)}),
    ("repeat", (), {"repeats": ()}),
    ("repeat", (0, 2), {"repeats": (3, 2)}),
    ("repeat", (2, 1, 3), {"repeats": (1, 4, 2)}),
    ("pad", (2, 3), {"before": (1, 0), "after": (0, 2)}),
    ("pad", (2, 3), {"before": (1, 2), "after": (1, 3), "value": 1.0}),
    ("pad", (2, 3), {"before": (2, 3), "after": (1, 3), "mode": "circular"}),
    ("pad", (), {"before": (), "after": (), "value": 2.0}),
    ("pad", (0, 2), {"before": (1, 0), "after": (1, 1), "value": -1.0}),
    ("pad", (3,), {"before": (0,), "after": (0,)}),
    ("pad_reflect", (5,), {"before": 4, "after": 4}),
    ("pad_reflect", (2, 3), {"before": 1, "after": 0}),
    ("pad_reflect", (3, 1), {"before": 0, "after": 0}),
    ("roll", (5,), {"shifts": (2,)}),
    ("roll", (3, 4), {"shifts": (-1, 7)}),
    ("roll", (3, 4), {"shifts": (0, -9)}),
    ("roll", (0, 4), {"shifts": (1, 1)}),
    ("roll", (2, 3, 4), {"shifts": (1, 0, 3)}),
    ("diag", (4,), {}),
    ("diag", (2, 3), {}),
    ("diag", (0,), {}),
    ("diag", (2, 1), {}),
)

_TRIANGLES: tuple[tuple[tuple[int, ...], dict[str, Any]], ...] = (
    ((4, 4), {}),
    ((4, 4), {"part": "upper"}),
    ((3, 5), {"diagonal": 1, "value": -math.inf}),
    ((5, 3), {"part": "upper", "diagonal": -2, "value": 2.5}),
    ((2, 3, 3), {"diagonal": -1}),
    ((2, 3), {"diagonal": -9}),
    ((0, 3), {}),
)

_VIEWS: tuple[tuple[str, tuple[int, ...], dict[str, Any]], ...] = (
    ("reshape", (3, 4), {"shape": (2, 6)}),
    ("reshape", (3, 4), {"shape": (12,)}),
    ("reshape", (3, 4), {"shape": (-1, 2)}),
    ("reshape", (1,), {"shape": ()}),
    ("reshape", (), {"shape": (1, 1)}),
    ("reshape", (0, 4), {"shape": (2, 0)}),
    ("permute", (2, 3, 4), {"axes": (2, 0, 1)}),
    ("permute", (3, 4), {"axes": (0, 1)}),
    ("permute", (), {"axes": ()}),
    ("transpose", (3, 4), {}),
    ("transpose", (2, 3, 4), {"axis0": 0, "axis1": 2}),
    ("transpose", (0, 4), {}),
    ("slice", (6, 7), {"starts": (1, 2), "stops": (5, 7)}),
    ("slice", (6, 7), {"starts": (0, 1), "stops": (6, 7), "steps": (4, 3)}),
    ("slice", (6,), {"starts": (3,), "stops": (3,)}),
    ("slice", (), {"starts": (), "stops": ()}),
)

_QUANTISED_VIEWS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("reshape", {"shape": (6, 512)}),
    ("permute", {"axes": (1, 0, 2)}),
    ("transpose", {"axis0": 0, "axis1": 1}),
    ("slice", {"starts": (0, 1, 256), "stops": (2, 3, 512)}),
    ("slice", {"starts": (1, 0, 256), "stops": (2, 3, 512), "steps": (1, 2, 1)}),
)


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _leaves()
    yield from _constants()
    yield from _views()
    yield from _contiguous()
    yield from _arranged()
    yield from _triangular()
    yield from _concat()
    yield from _take()
    yield from _index_select()
    yield from _scatter()
    yield from _casts()


def _leaves() -> Iterator[Case]:
    """Leaves that are results: they must be copied out."""
    for dtype in PLAIN + QUANTS:
        shape = (2, 256) if dtype in QUANTS else (3, 5)
        for row in (ops.input, ops.weight, ops.state):
            yield single(f"{row.name}/{dtype}/as output", row(name="x", dtype=dtype, shape=shape))
    yield single("input/f32/scalar", leaf("x", "f32", ()))
    yield single("input/f32/empty", leaf("x", "f32", (0, 3)))


def _constants() -> Iterator[Case]:
    for dtype in PLAIN:
        for value in (0.0, 1.0, -2.5, 100.0):
            for shape in ((3, 5), (), (0, 2)):
                result = ops.fill(value=value, dtype=dtype, shape=shape)
                yield single(f"fill/{dtype}/{value} {shape}", result)
    for dtype in PLAIN:
        for start, stop, step in ((0, 7, 1), (5, -4, -2), (3, 3, 1), (2, 90, 7), (0, 1, 5)):
            result = ops.arange(start=start, stop=stop, step=step, dtype=dtype)
            yield single(f"arange/{dtype}/{start} {stop} {step}", result)
    for value in (math.inf, -math.inf, math.nan):
        yield single(f"fill/f32/{value}", ops.fill(value=value, dtype="f32", shape=(5,)))
        yield single(f"fill/i8/{value}", ops.fill(value=value, dtype="i8", shape=(5,)))
    for dtype in FLOATS:
        result = ops.arange(start=-1.5, stop=3, step=0.3, dtype=dtype)
        yield single(f"arange/{dtype}/fractions", result)


def _views() -> Iterator[Case]:
    """Views that are results: they must be written out contiguously."""
    for dtype in PLAIN:
        for op, shape, params in _VIEWS:
            result = ops.get(op)(leaf("x", dtype, shape), **params)
            yield single(f"{op}/{dtype}/{shape} {_text(params)}", result)
    for dtype in QUANTS:
        for op, params in _QUANTISED_VIEWS:
            x = ops.weight(name="x", dtype=dtype, shape=(2, 3, 512))
            yield single(f"{op}/{dtype}/{_text(params)}", ops.get(op)(x, **params))
    for layout, make in LAYOUTS.items():
        # The first two joined axes do not lie evenly in memory: this reshape takes a copy.
        result = ops.reshape(make("x", "f32", (2, 3, 4)), shape=(6, 4))
        yield single(f"reshape/f32/{layout}", result)
        yield single(f"transpose/f32/{layout}", ops.transpose(make("x", "f32", (3, 4))))
        part = ops.slice(make("x", "f32", (6, 7)), starts=(1, 1), stops=(6, 6), steps=(2, 3))
        yield single(f"slice/f32/{layout}", part)
        turned = ops.permute(make("x", "f32", (2, 3, 4)), axes=(1, 2, 0))
        yield single(f"permute/f32/{layout}", turned)


def _text(params: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in params.items())


def _contiguous() -> Iterator[Case]:
    for dtype in PLAIN:
        for layout, make in LAYOUTS.items():
            yield single(f"contiguous/{dtype}/{layout}", ops.contiguous(make("x", dtype, (3, 5))))
        for shape in ((), (0, 3), (7,)):
            yield single(f"contiguous/{dtype}/{shape}", ops.contiguous(leaf("x", dtype, shape)))
    for dtype in QUANTS:
        x = ops.weight(name="x", dtype=dtype, shape=(2, 3, 512))
        for op, params in _QUANTISED_VIEWS:
            result = ops.contiguous(ops.get(op)(x, **params))
            yield single(f"contiguous/{dtype}/{op} {_text(params)}", result)


def _arranged() -> Iterator[Case]:
    for op, shape, params in _ARRANGED:
        for dtype in PLAIN:
            result = ops.get(op)(leaf("x", dtype, shape), **params)
            yield single(f"{op}/{dtype}/{shape} {_text(params)}", result)
        if len(shape) == 2 and 0 not in shape:
            for layout, make in LAYOUTS.items():
                result = ops.get(op)(make("x", "f32", shape), **params)
                yield single(f"{op}/f32/{shape} {_text(params)} {layout}", result)
    huge = ops.pad(leaf("x", "i8", (3,)), before=(1,), after=(1,), value=1000.0)
    yield single("pad/i8/value out of range", huge)
    hidden = ops.pad(leaf("x", "f32", (3,)), before=(1,), after=(1,), value=-math.inf)
    yield single("pad/f32/value -inf", hidden)


def _triangular() -> Iterator[Case]:
    for dtype in FLOATS:
        for shape, params in _TRIANGLES:
            result = ops.triangular(leaf("x", dtype, shape), **params)
            yield single(f"triangular/{dtype}/{shape} {_text(params)}", result)
    for layout, make in LAYOUTS.items():
        result = ops.triangular(make("x", "f32", (2, 4, 5)), diagonal=1)
        yield single(f"triangular/f32/{layout}", result)


def _concat() -> Iterator[Case]:
    shapes: tuple[tuple[tuple[tuple[int, ...], ...], int], ...] = (
        (((2, 3), (4, 3)), 0),
        (((2, 3), (2, 1), (2, 5)), 1),
        (((5,),), 0),
        (((2, 0), (2, 3)), -1),
        (((2, 2, 2), (2, 3, 2)), -2),
    )
    for dtype in PLAIN:
        for group, axis in shapes:
            parts = [leaf(f"x{i}", dtype, shape) for i, shape in enumerate(group)]
            yield single(f"concat/{dtype}/{group} axis {axis}", ops.concat(*parts, axis=axis))
    for layout, make in LAYOUTS.items():
        for axis in (0, 1):
            parts = [make("a", "f32", (3, 4)), make("b", "f32", (3, 4))]
            yield single(f"concat/f32/{layout} axis {axis}", ops.concat(*parts, axis=axis))
    twice = leaf("x", "f32", (2, 3))
    yield single("concat/f32/one operand twice", ops.concat(twice, twice, axis=1))


_INDICES = given(0, 4, 2, -1, 2, 5, 1, 1000, -1000, 3)


def _take() -> Iterator[Case]:
    data: dict[str, Recipe] = {"indices": _INDICES}
    for index in ("i32", "i64"):
        for dtype in PLAIN:
            for shape in ((5, 3), (5,), (5, 2, 2)):
                indices = leaf("indices", index, (2, 5))
                result = ops.take(leaf("table", dtype, shape), indices)
                yield single(f"take/{dtype}/{shape} by {index}", result, data)
        for dtype in QUANTS:
            table = ops.weight(name="table", dtype=dtype, shape=(5, 512))
            result = ops.take(table, leaf("indices", index, (10,)))
            yield single(f"take/{dtype}/rows by {index}", result, data)
    table, scalar = leaf("table", "f32", (5, 3)), leaf("indices", "i32", ())
    yield single("take/f32/scalar index", ops.take(table, scalar), {"indices": given(2)})
    yield single("take/f32/no index", ops.take(table, leaf("indices", "i32", (0,))))
    empty = ops.take(leaf("table", "f32", (0, 3)), leaf("indices", "i32", (2,)))
    yield single("take/f32/empty table", empty, data)
    for layout, make in LAYOUTS.items():
        result = ops.take(make("table", "f32", (5, 3)), make("indices", "i32", (2, 5)))
        yield single(f"take/f32/{layout}", result, {"indices": integers(0, 4)})
    beyond: dict[str, Recipe] = {"indices": given(2**32, 2**40 + 1, -(2**32), 1)}
    result = ops.take(table, leaf("indices", "i64", (4,)))
    yield single("take/f32/indices beyond 32 bits", result, beyond)


def _index_select() -> Iterator[Case]:
    data: dict[str, Recipe] = {"indices": _INDICES}
    indices = leaf("indices", "i32", (10,))
    for dtype in PLAIN:
        result = ops.index_select(leaf("table", dtype, (5, 3)), indices)
        yield single(f"index_select/{dtype}", result, data)
    for dtype in QUANTS:
        table = ops.weight(name="table", dtype=dtype, shape=(5, 2, 256))
        yield single(f"index_select/{dtype}", ops.index_select(table, indices), data)
    table = leaf("table", "f32", (5, 3))
    wide = leaf("indices", "i64", (10,))
    yield single("index_select/f32/by i64", ops.index_select(table, wide), data)
    yield single("index_select/f32/none", ops.index_select(table, leaf("indices", "i32", (0,))))
    for layout, make in LAYOUTS.items():
        result = ops.index_select(make("table", "f32", (5, 3)), make("indices", "i32", (4,)))
        yield single(f"index_select/f32/{layout}", result, {"indices": integers(0, 4)})


def _scatter() -> Iterator[Case]:
    data: dict[str, Recipe] = {"indices": given(0, 4, 2, -1, 2, 5, 1000)}
    for dtype in PLAIN:
        for source in dict.fromkeys((dtype, "f32")):
            for shape in ((5, 3), (5,), (5, 2, 2)):
                result = _scattered(dtype, source, shape)
                yield single(f"scatter_rows/{dtype}/{shape} from {source}", result, data)
    for dtype in _ENCODABLE:
        for source in ("f32", "f16", dtype):
            result = _scattered(dtype, source, (5, 512))
            yield single(f"scatter_rows/{dtype}/from {source}", result, data)
    none = ops.scatter_rows(
        leaf("table", "f32", (3, 2)), leaf("indices", "i64", (0,)), leaf("rows", "f32", (0, 2))
    )
    yield single("scatter_rows/f32/no rows", none)
    for layout, make in LAYOUTS.items():
        table, rows = make("table", "f16", (5, 3)), make("rows", "f32", (4, 3))
        result = ops.scatter_rows(table, make("indices", "i32", (4,)), rows)
        yield single(f"scatter_rows/f16/{layout}", result, {"indices": integers(0, 4)})


def _scattered(dtype: str, source: str, shape: tuple[int, ...]) -> Node:
    rows = leaf("rows", source, (7, *shape[1:]))
    return ops.scatter_rows(leaf("table", dtype, shape), leaf("indices", "i32", (7,)), rows)


_FLOAT_CORNERS = given(
    0, -0.0, 0.5, -0.5, 1.5, -1.5, 2.5, 127, 128, -129, 255.5, 300, -40000, 40000, 65519, 65520,
    2147483520, 2147483648, -3e9, 9.3e18, -9.3e18, 1e30, -1e30, math.inf, -math.inf, math.nan,
    1.0009765625, 1.00048828125, 1.00146484375, 1.00390625, 1.01171875, 6e-8, 3e-8, 1e-7,
)  # fmt: skip


def _casts() -> Iterator[Case]:
    for source in PLAIN:
        for target in PLAIN:
            x = leaf("x", source, (5, 7))
            yield single(f"cast/{source} to {target}/values", ops.cast(x, dtype=target))
            corners: Recipe = _FLOAT_CORNERS if source in FLOATS else whole_range
            if source != "bool":
                result = ops.cast(leaf("x", source, (34,)), dtype=target)
                yield single(f"cast/{source} to {target}/corners", result, {"x": corners})
    for source in QUANTS:
        for target in (*FLOATS, source):
            x = ops.weight(name="x", dtype=source, shape=(3, 512))
            yield single(f"cast/{source} to {target}/blocks", ops.cast(x, dtype=target))
    for target in _ENCODABLE:
        for source in ("f32", "f16", "q4_0"):
            x = leaf("x", source, (3, 512))
            yield single(f"cast/{source} to {target}/encoded", ops.cast(x, dtype=target))
        zeros: dict[str, Recipe] = {"x": given(0)}
        result = ops.cast(leaf("x", "f32", (1, 256)), dtype=target)
        yield single(f"cast/f32 to {target}/zeros", result, zeros)
    for layout, make in LAYOUTS.items():
        for target in ("f16", "i32", "bf16"):
            result = ops.cast(make("x", "f32", (3, 5)), dtype=target)
            yield single(f"cast/f32 to {target}/{layout}", result, {"x": normal(9)})
    for shape in ((), (0, 4)):
        yield single(f"cast/f32 to f16/{shape}", ops.cast(leaf("x", "f32", shape), dtype="f16"))
