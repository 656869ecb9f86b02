"""Cases of reductions, order, softmax and norms."""

from __future__ import annotations

import math
from collections.abc import Iterator

from hotplug import ops
from hotplug.node import Node
from hotplug.testing.conformance.case import Case, single
from hotplug.testing.conformance.cases.operands import FLOATS, INTS, LAYOUTS, NUMBERS, PLAIN, leaf
from hotplug.testing.conformance.values import Recipe, given, integers, normal, uniform, whole_range

__all__ = ["cases"]

_SHAPES: tuple[tuple[tuple[int, ...], int], ...] = (
    ((7,), -1),
    ((3, 33), 1),
    ((3, 5), 0),
    ((2, 3, 4), -2),
    ((0, 4), -1),
)
_MORE_SHAPES: tuple[tuple[tuple[int, ...], int], ...] = (
    ((1,), 0),
    ((1, 1025), -1),
    ((130, 3), 0),
    ((2, 0, 3), -1),
    ((2, 2, 3, 2), 1),
    ((5, 64), -1),
)
_WITH_KEEPDIMS = ("sum", "prod", "mean", "max", "min")
_BY_INDEX = ("argmax", "argmin")


def cases() -> Iterator[Case]:
    """All of them."""
    for op in (*_WITH_KEEPDIMS, *_BY_INDEX, "cumsum"):
        yield from _along_axis(op)
    yield from _corners()
    yield from _argsort()
    yield from _top_k()
    yield from _count_equal()
    yield from _softmax()
    yield from _row_norms()
    yield from _group_norm()


def _data(op: str) -> dict[str, Recipe]:
    # Products must neither overflow f16 nor all be 0.
    return {"x": uniform(0.6, 1.5)} if op == "prod" else {}


def _along_axis(op: str) -> Iterator[Case]:
    row = ops.get(op)
    for dtype in FLOATS if op == "mean" else NUMBERS:
        for shape, axis in _SHAPES + _MORE_SHAPES:
            x, slow = leaf("x", dtype, shape), (shape, axis) in _MORE_SHAPES
            name = f"{op}/{dtype}/{shape} axis {axis}"
            yield single(name, row(x, axis=axis), _data(op), slow=slow)
            if op in _WITH_KEEPDIMS:
                result = row(x, axis=axis, keepdims=True)
                yield single(f"{name} kept", result, _data(op), slow=slow or dtype != "f32")
        for layout, make in LAYOUTS.items():
            for axis in (0, 1):
                result = row(make("x", dtype, (4, 6)), axis=axis)
                name = f"{op}/{dtype}/{layout} axis {axis}"
                yield single(name, result, _data(op), slow=dtype != "f32")


def _corners() -> Iterator[Case]:
    nans = given(1, math.nan, 3, 2, 5, 4, math.nan, 0, -1, math.nan, math.nan, -math.inf)
    ties = given(3, 1, 3, 1, 2, 2, 2, 2, -1, 5, 5, -1)
    for dtype in FLOATS:
        for op in ("max", "min", "argmax", "argmin"):
            x = leaf("x", dtype, (3, 4))
            yield single(f"{op}/{dtype}/nan", ops.get(op)(x), {"x": nans})
    for dtype in NUMBERS:
        for op in _BY_INDEX:
            for axis in (0, 1):
                x = leaf("x", dtype, (3, 4))
                name = f"{op}/{dtype}/ties axis {axis}"
                yield single(name, ops.get(op)(x, axis=axis), {"x": ties})
    for dtype in INTS:
        for op in ("sum", "prod", "cumsum", "max", "min", "argmax", "argmin"):
            x = leaf("x", dtype, (4, 9))
            yield single(f"{op}/{dtype}/whole range", ops.get(op)(x), {"x": whole_range})
    for op in _BY_INDEX:
        x = leaf("x", "f32", (2, 1100))
        yield single(f"{op}/f32/long", ops.get(op)(x, axis=-1), {"x": integers(-99, 99)})
    for op in ("sum", "prod"):
        x = leaf("x", "f32", (3, 0))
        yield single(f"{op}/f32/of nothing", ops.get(op)(x))


def _argsort() -> Iterator[Case]:
    ties: dict[str, Recipe] = {"x": integers(-2, 2)}
    for dtype in NUMBERS:
        for descending in (False, True):
            way = "descending" if descending else "ascending"
            for shape in ((3, 33), (1,), (2, 0), (2, 3, 5)):
                x = leaf("x", dtype, shape)
                result = ops.argsort(x, descending=descending)
                yield single(f"argsort/{dtype}/{shape} {way}", result, {"x": normal(20)})
            result = ops.argsort(leaf("x", dtype, (2, 40)), descending=descending)
            yield single(f"argsort/{dtype}/ties {way}", result, ties)
    long = ops.argsort(leaf("x", "f32", (2, 2100)))
    yield single("argsort/f32/(2, 2100)", long, {"x": normal(20)})
    for layout, make in LAYOUTS.items():
        yield single(f"argsort/f32/{layout}", ops.argsort(make("x", "f32", (4, 6))))


def _top_k() -> Iterator[Case]:
    for dtype in NUMBERS:
        for shape, k in (((3, 33), 5), ((4,), 4), ((0, 3), 1), ((2, 2, 9), 1)):
            result = ops.top_k(leaf("x", dtype, shape), k=k)
            yield single(f"top_k/{dtype}/{shape} {k}", result, {"x": normal(20)})
        result = ops.top_k(leaf("x", dtype, (2, 40)), k=13)
        yield single(f"top_k/{dtype}/ties", result, {"x": integers(-2, 2)})
    for layout, make in LAYOUTS.items():
        yield single(f"top_k/f32/{layout}", ops.top_k(make("x", "f32", (4, 6)), k=3))
    long = leaf("x", "f32", (2, 1100))
    yield single("top_k/f32/long", ops.top_k(long, k=40), {"x": integers(-99, 99)})


def _count_equal() -> Iterator[Case]:
    data: dict[str, Recipe] = {"a": integers(0, 2), "b": integers(0, 2)}
    for dtype in PLAIN:
        for shape in ((33,), (), (0, 3), (3, 4)):
            a, b = leaf("a", dtype, shape), leaf("b", dtype, shape)
            yield single(f"count_equal/{dtype}/{shape}", ops.count_equal(a, b), data)
    for layout, make in LAYOUTS.items():
        a, b = make("a", "i32", (3, 5)), leaf("b", "i32", (3, 5))
        yield single(f"count_equal/i32/{layout}", ops.count_equal(a, b), data)


def _softmax() -> Iterator[Case]:
    for dtype in FLOATS:
        for shape in ((5,), (3, 33), (0, 4), (2, 3, 4, 7), (1, 1)):
            result = ops.softmax(leaf("x", dtype, shape), scale=1.5)
            yield single(f"softmax/{dtype}/{shape}", result, {"x": normal(3)})
        x = leaf("x", dtype, (3, 4, 9))
        for name, mask, sinks, params in _softmax_operands():
            result = ops.softmax(x, mask, sinks, scale=0.5, **params)
            data: dict[str, Recipe] = {"x": normal(3), "mask": _HIDING}
            yield single(f"softmax/{dtype}/{name}", result, data)
    yield from _softmax_corners()


_HIDING = given(0, -math.inf, -1.5, 0.5, 0, -math.inf, 2.0)


def _softmax_operands() -> Iterator[tuple[str, Node | None, Node | None, dict[str, float]]]:
    sinks = leaf("sinks", "f32", (3,))
    hidden = leaf("hidden", "bool", (4, 9))
    for dtype in ("f32", "f16"):
        yield f"mask {dtype}", leaf("mask", dtype, (4, 9)), None, {}
    yield "mask per head", leaf("mask", "f32", (3, 1, 9)), None, {}
    yield "mask bool", hidden, None, {}
    yield "sinks", None, sinks, {}
    yield "mask and sinks", leaf("mask", "f32", (4, 9)), sinks, {}
    yield "alibi", leaf("mask", "f32", (4, 9)), None, {"max_bias": 8.0}
    yield "alibi, mask per head, sinks", leaf("mask", "f32", (3, 4, 9)), sinks, {"max_bias": 4.0}


def _softmax_corners() -> Iterator[Case]:
    x, hidden = leaf("x", "f32", (3, 4, 9)), leaf("mask", "bool", (4, 9))
    nothing: dict[str, Recipe] = {"mask": given(0)}
    yield single("softmax/f32/rows that see nothing", ops.softmax(x, hidden), nothing)
    floats = leaf("mask", "f32", (4, 9))
    data: dict[str, Recipe] = {"mask": given(-math.inf)}
    yield single("softmax/f32/rows masked by -inf", ops.softmax(x, floats), data)
    sinks = leaf("sinks", "f32", (3,))
    yield single("softmax/f32/nothing but sinks", ops.softmax(x, hidden, sinks), nothing)
    data = {"x": given(-1e4, 1e4, 0, 9.9e3)}
    yield single("softmax/f32/large scores", ops.softmax(x), data)
    for heads in (1, 2, 8, 12):
        x, mask = leaf("x", "f32", (heads, 2, 5)), leaf("mask", "f32", (2, 5))
        yield single(f"softmax/f32/alibi of {heads}", ops.softmax(x, mask, max_bias=8.0))
    for layout, make in LAYOUTS.items():
        x, mask = make("x", "f32", (3, 4, 9)), make("mask", "f32", (4, 9))
        yield single(f"softmax/f32/{layout}", ops.softmax(x, mask))


def _row_norms() -> Iterator[Case]:
    for dtype in FLOATS:
        for shape in ((3, 33), (5,), (0, 4), (2, 3, 64), (1, 1)):
            yield from _norms(dtype, shape)
        zeros: dict[str, Recipe] = {"x": given(0)}
        x = leaf("x", dtype, (2, 8))
        for result in (ops.rms_norm(x), ops.layer_norm(x), ops.l2_norm(x, eps=1e-6)):
            yield single(f"{result.op}/{dtype}/zeros", result, zeros)
    x, bias = leaf("x", "f32", (3, 64)), leaf("bias", "f32", (64,))
    far = {"x": normal(1, 100)}
    yield single("layer_norm/f32/far from 0", ops.layer_norm(x, bias=bias), far)
    yield single("rms_norm/f32/small, large eps", ops.rms_norm(x, eps=0.5), {"x": normal(0.01)})
    for layout, make in LAYOUTS.items():
        x, weight = make("x", "f32", (4, 6)), make("weight", "f32", (6,))
        for result in (ops.rms_norm(x, weight), ops.layer_norm(x, weight), ops.l2_norm(x)):
            yield single(f"{result.op}/f32/{layout}", result)


def _norms(dtype: str, shape: tuple[int, ...]) -> Iterator[Case]:
    x = leaf("x", dtype, shape)
    weight, bias = leaf("weight", "f32", shape[-1:]), leaf("bias", "f32", shape[-1:])
    yield single(f"rms_norm/{dtype}/{shape}", ops.rms_norm(x))
    yield single(f"rms_norm/{dtype}/{shape} weight", ops.rms_norm(x, weight, eps=1e-5))
    yield single(f"layer_norm/{dtype}/{shape}", ops.layer_norm(x))
    yield single(f"layer_norm/{dtype}/{shape} weight, bias", ops.layer_norm(x, weight, bias))
    yield single(f"l2_norm/{dtype}/{shape}", ops.l2_norm(x))
    same = leaf("weight", dtype, shape[-1:])
    yield single(f"rms_norm/{dtype}/{shape} weight of the same", ops.rms_norm(x, same))


def _group_norm() -> Iterator[Case]:
    for dtype in FLOATS:
        for shape, groups in (((2, 6, 5), 3), ((1, 4), 2), ((2, 4, 3, 2), 1), ((3, 3, 7), 3)):
            x = leaf("x", dtype, shape)
            weight, bias = leaf("weight", "f32", (shape[1],)), leaf("bias", "f32", (shape[1],))
            name = f"group_norm/{dtype}/{shape} in {groups}"
            yield single(name, ops.group_norm(x, groups=groups))
            yield single(f"{name} scaled", ops.group_norm(x, weight, bias, groups=groups, eps=1e-3))
    for layout, make in LAYOUTS.items():
        result = ops.group_norm(make("x", "f32", (2, 6, 5)), groups=2)
        yield single(f"group_norm/f32/{layout}", result)
