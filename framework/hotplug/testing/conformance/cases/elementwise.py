"""Cases of the ops that treat every element alike."""

from __future__ import annotations

import math
from collections.abc import Iterator

from hotplug import ops
from hotplug.testing.conformance.case import Case, single
from hotplug.testing.conformance.cases.operands import (
    FLOATS,
    INTS,
    LAYOUTS,
    NUMBERS,
    PLAIN,
    Leaf,
    leaf,
)
from hotplug.testing.conformance.values import Recipe, given, integers, normal, uniform, whole_range

__all__ = ["cases"]

Params = dict[str, float]

_WIDE = normal(3.0)
_FAR = given(-100, -50, -20, -9.5, -3, -1e-3, -1e-7, 0, 1e-7, 1e-3, 0.5, 3, 9.5, 20, 50, 80)
_POSITIVE = uniform(0.01, 20)
_HALVES = given(-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, -0.4999, 0.4999, 1e6 + 0.5, -7, 0, 3.999)
_INFINITE = given(-math.inf, math.inf, 1.0, -2.0)

# Besides standard values, what each function does far from 0 or at its corners.
_UNARY: dict[str, tuple[Recipe, ...]] = {
    "abs": (_WIDE, _INFINITE),
    "sign": (_WIDE, given(-0.0, 0, 1e-30, -1e-30, 5)),
    "neg": (_WIDE, _INFINITE),
    "step": (_WIDE, given(-0.0, 0, 1e-30, -1e-30, 5)),
    "tanh": (_WIDE, _FAR),
    "elu": (_WIDE, _FAR),
    "relu": (_WIDE, _INFINITE),
    "sigmoid": (_WIDE, _FAR),
    "gelu": (_WIDE, _FAR),
    "gelu_erf": (_WIDE, _FAR),
    "gelu_quick": (_WIDE, _FAR),
    "silu": (_WIDE, _FAR),
    "hardswish": (_WIDE, _FAR),
    "hardsigmoid": (_WIDE, _FAR),
    "exp": (_WIDE, _FAR, _INFINITE),
    "expm1": (_WIDE, _FAR),
    "log": (_POSITIVE, given(0, 1, 1e-4, 6e4, math.inf, 1.001)),
    "softplus": (_WIDE, _FAR),
    "floor": (_WIDE, _HALVES),
    "ceil": (_WIDE, _HALVES),
    "round": (_WIDE, _HALVES),
    "trunc": (_WIDE, _HALVES),
    "square": (_WIDE, _INFINITE),
    "sqrt": (_POSITIVE, given(0, 1, 4, 2, 1e-4, math.inf)),
    "sin": (_WIDE, given(-30, -math.pi, 0, 1e-4, 31.4)),
    "cos": (_WIDE, given(-30, -math.pi, 0, 1e-4, 31.4)),
}

_UNARY_WITH_PARAMS: dict[str, tuple[Params, ...]] = {
    "leaky_relu": ({}, {"slope": 0.3}, {"slope": -2.0}),
    "xielu": ({"alpha_n": 0.8, "alpha_p": 0.9}, {"alpha_n": 0.3, "alpha_p": 1.5, "beta": 0.1}),
    "clamp": ({"low": -1.0, "high": 0.5}, {"low": -math.inf, "high": 1.0}, {"low": 2, "high": 2}),
    "scale": ({"factor": 0.5}, {"factor": -1.7, "offset": 0.3}, {"factor": 0.0, "offset": 1.0}),
}

_GATED = ("reglu", "geglu", "geglu_erf", "geglu_quick", "swiglu")
_ARITHMETIC = ("add", "sub", "mul", "div", "maximum", "minimum", "pow")
_COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
_LOGICAL = ("logical_and", "logical_or")

_SHAPES: tuple[tuple[int, ...], ...] = ((33,), (), (0, 4), (2, 3, 17))
_MORE_SHAPES: tuple[tuple[int, ...], ...] = ((1,), (257,), (5, 0), (2, 1, 3, 2, 2), (64, 65))

_PAIRS: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((3, 5), (3, 5)),
    ((3, 5), (5,)),
    ((2, 1, 5), (3, 1)),
    ((), (7,)),
    ((0, 3), (1, 3)),
)
_MORE_PAIRS: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((), ()),
    ((1,), (65,)),
    ((65,), (1, 1)),
    ((4, 1), (1, 6)),
    ((2, 3, 4, 5), (3, 1, 5)),
    ((1, 0), (4, 1)),
    ((17, 33), (17, 1)),
    ((128,), (128,)),
)


def cases() -> Iterator[Case]:
    """All of them."""
    for op, recipes in _UNARY.items():
        yield from _unary(op, {}, recipes)
    for op, sets in _UNARY_WITH_PARAMS.items():
        for params in sets:
            yield from _unary(op, params, (_WIDE, _FAR))
    for op in _GATED:
        yield from _binary(op, FLOATS, same_shape=True)
    for params in ({}, {"alpha": 1.0, "shift": 0.0}, {"limit": 0.5}):
        yield from _binary("swiglu_clamped", FLOATS, params, same_shape=True)
    for op in (*_ARITHMETIC, *_COMPARISONS):
        yield from _binary(op, NUMBERS)
    for op in _LOGICAL:
        yield from _binary(op, ("bool",))
    yield from _corners()
    yield from _logical_not()
    yield from _where()
    yield from _add_rows_by_id()


def _label(op: str, dtype: str, params: Params, rest: object) -> str:
    values = "".join(f",{name}={value}" for name, value in params.items())
    return f"{op}/{dtype}{values}/{rest}"


def _unary(op: str, params: Params, recipes: tuple[Recipe, ...]) -> Iterator[Case]:
    row = ops.get(op)
    for dtype in FLOATS:
        for shape in _SHAPES + _MORE_SHAPES:
            slow = shape in _MORE_SHAPES
            x = leaf("x", dtype, shape)
            name = _label(op, dtype, params, shape)
            yield single(name, row(x, **params), {"x": recipes[0]}, slow=slow)
        for layout, make in LAYOUTS.items():
            x = make("x", dtype, (3, 5))
            name = _label(op, dtype, params, layout)
            slow = dtype != "f32" or bool(params)
            yield single(name, row(x, **params), {"x": recipes[0]}, slow=slow)
        for index, recipe in enumerate(recipes[1:]):
            name = _label(op, dtype, params, f"corners{index or ''}")
            yield single(name, row(leaf("x", dtype, (16,)), **params), {"x": recipe})


def _operand_data(op: str, dtype: str) -> dict[str, Recipe]:
    """Powers must neither overflow nor be of negative numbers; equal values must occur."""
    if op == "pow":
        if dtype in INTS:
            return {"a": integers(-3, 3), "b": integers(-2, 4)}
        return {"a": uniform(0.1, 3), "b": uniform(-3, 3)}
    return {"a": integers(-3, 3), "b": integers(-3, 3)} if op in _COMPARISONS else {}


def _binary(
    op: str, dtypes: tuple[str, ...], params: Params | None = None, *, same_shape: bool = False
) -> Iterator[Case]:
    row, params = ops.get(op), params or {}
    for dtype in dtypes:
        data = _operand_data(op, dtype)
        for left, right in _shape_pairs(same_shape=same_shape):
            a, b = leaf("a", dtype, left), leaf("b", dtype, right)
            slow = (left, right) in _MORE_PAIRS or left in _MORE_SHAPES
            name = _label(op, dtype, params, f"{left}{right}")
            yield single(name, row(a, b, **params), data, slow=slow)
        for layout, make in LAYOUTS.items():
            slow = dtype not in {"f32", "bool"} or bool(params)
            yield from _binary_layouts(op, dtype, params, layout, make, slow=slow)


def _binary_layouts(
    op: str, dtype: str, params: Params, layout: str, make: Leaf, *, slow: bool
) -> Iterator[Case]:
    row, data = ops.get(op), _operand_data(op, dtype)
    plain, viewed = leaf("a", dtype, (3, 5)), make("b", dtype, (3, 5))
    name = _label(op, dtype, params, layout)
    yield single(f"{name} right", row(plain, viewed, **params), data, slow=slow)
    plain, viewed = leaf("b", dtype, (3, 5)), make("a", dtype, (3, 5))
    yield single(f"{name} left", row(viewed, plain, **params), data, slow=slow)


def _shape_pairs(*, same_shape: bool) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    if same_shape:
        return tuple((shape, shape) for shape in _SHAPES + _MORE_SHAPES)
    return _PAIRS + _MORE_PAIRS


def _corners() -> Iterator[Case]:
    """What the ops' texts say of NaN, of division by zero, and of integers that overflow."""
    for op in ("maximum", "minimum"):
        for dtype in FLOATS:
            a, b = leaf("a", dtype, (6,)), leaf("b", dtype, (6,))
            data = {"a": given(math.nan, 1, math.nan), "b": given(1, math.nan, math.nan, -math.inf)}
            yield single(f"{op}/{dtype}/nan", ops.get(op)(a, b), data)
    for op in _COMPARISONS:
        a, b = leaf("a", "f32", (6,)), leaf("b", "f32", (6,))
        data = {"a": given(math.nan, 1, -0.0), "b": given(math.nan, math.nan, 0, math.inf, 1, 0)}
        yield single(f"{op}/f32/nan and zeros", ops.get(op)(a, b), data)
    for op in ("add", "sub", "mul"):
        for dtype in INTS:
            a, b = leaf("a", dtype, (40,)), leaf("b", dtype, (40,))
            name = f"{op}/{dtype}/wraps around"
            yield single(name, ops.get(op)(a, b), {"a": whole_range, "b": whole_range})
    for dtype in INTS:
        a, b = leaf("a", dtype, (40,)), leaf("b", dtype, (40,))
        data = {"a": integers(-99, 99), "b": given(-7, 0, 3, -1, 10)}
        yield single(f"div/{dtype}/zeros and signs", ops.div(a, b), data)
    for dtype in FLOATS:
        a, b = leaf("a", dtype, (8,)), leaf("b", dtype, (8,))
        data = {"a": given(1, -1, 0, 2, -3, 4, 5, 0), "b": given(0, 0, 0, math.inf, 2, -1, 4, 3)}
        yield single(f"div/{dtype}/infinities", ops.div(a, b), data)
        data = {"a": given(-2, -3, 0, 0, 1, -1, 4, 2), "b": given(3, 2, 0, 2, 100, 5, 0.5, -3)}
        yield single(f"pow/{dtype}/signs and zeros", ops.pow(a, b), data)


def _logical_not() -> Iterator[Case]:
    for shape in _SHAPES + _MORE_SHAPES:
        x = leaf("x", "bool", shape)
        yield single(f"logical_not/bool/{shape}", ops.logical_not(x), slow=shape in _MORE_SHAPES)
    for layout, make in LAYOUTS.items():
        yield single(f"logical_not/bool/{layout}", ops.logical_not(make("x", "bool", (3, 5))))


def _where() -> Iterator[Case]:
    shapes = (((3, 5), (3, 5), (3, 5)), ((5,), (3, 1), ()), ((), (4,), (2, 1)), ((0,), (1,), (0,)))
    for dtype in PLAIN:
        for chosen, left, right in shapes:
            condition = leaf("condition", "bool", chosen)
            a, b = leaf("a", dtype, left), leaf("b", dtype, right)
            name = f"where/{dtype}/{chosen}{left}{right}"
            yield single(name, ops.where(condition, a, b))
    for layout, make in LAYOUTS.items():
        nodes = make("condition", "bool", (3, 5)), make("a", "f32", (3, 5)), make("b", "f32", (5,))
        yield single(f"where/f32/{layout}", ops.where(*nodes))
    nodes = leaf("condition", "bool", (4,)), leaf("a", "f32", (4,)), leaf("b", "f32", (4,))
    data = {"condition": given(0, 1), "a": given(math.nan, 1), "b": given(2, math.nan)}
    yield single("where/f32/nan that is not chosen", ops.where(*nodes), data)


def _add_rows_by_id() -> Iterator[Case]:
    for dtype in NUMBERS:
        for index in ("i32", "i64"):
            x, bias = leaf("x", dtype, (4, 2, 5)), leaf("bias", dtype, (3, 5))
            ids = leaf("ids", index, (4, 2))
            data = {"ids": given(0, 2, -1, 1, 3, 0, 99, 2)}
            name = f"add_rows_by_id/{dtype}/ids {index}, some of no expert"
            yield single(name, ops.add_rows_by_id(x, bias, ids), data)
    for layout, make in LAYOUTS.items():
        x, bias = make("x", "f32", (4, 2, 5)), make("bias", "f32", (3, 5))
        ids = leaf("ids", "i32", (4, 2))
        name = f"add_rows_by_id/f32/{layout}"
        yield single(name, ops.add_rows_by_id(x, bias, ids), {"ids": integers(0, 2)})
