"""The oracle's elementwise ops against hand-worked values and definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hotplug import ops
from hotplug.graph import Graph
from hotplug.testing.oracle import REFERENCES, evaluate

INF, NAN = math.inf, math.nan


def run(build, *arrays, dtype="f64"):
    """The value of an op over inputs of one dtype (bool arrays stay bool)."""
    leaves, nodes = {}, []
    for index, array in enumerate(map(np.asarray, arrays)):
        kind = "bool" if array.dtype == bool else dtype
        leaves[f"x{index}"] = array
        nodes.append(ops.input(name=f"x{index}", dtype=kind, shape=array.shape))
    return evaluate(Graph.build({"y": build(*nodes)}), leaves)["y"]


def test_every_op_that_computes_has_a_reference():
    assert REFERENCES.keys() == ops.OPS.keys() - {"input", "weight", "state"}


def phi(x):
    """Cumulative distribution of the standard normal."""
    return 0.5 * math.erfc(-x / math.sqrt(2))


DEFINITIONS = {
    "abs": math.fabs,
    "sign": lambda x: int(x > 0) - int(x < 0),
    "neg": lambda x: -x,
    "step": lambda x: float(x > 0),
    "tanh": lambda x: (math.exp(2 * x) - 1) / (math.exp(2 * x) + 1),
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "relu": lambda x: max(x, 0.0),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "gelu": lambda x: x / (1 + math.exp(-2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "gelu_erf": lambda x: x * phi(x),
    "gelu_quick": lambda x: x / (1 + math.exp(-1.702 * x)),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "hardswish": lambda x: x * min(max((x + 3) / 6, 0), 1),
    "hardsigmoid": lambda x: min(max((x + 3) / 6, 0), 1),
    "exp": lambda x: math.e**x,
    "expm1": lambda x: math.exp(x) - 1,
    "softplus": lambda x: math.log(1 + math.exp(x)),
    "floor": math.floor,
    "ceil": math.ceil,
    "round": lambda x: math.copysign(math.floor(abs(x) + 0.5), x),
    "trunc": int,
    "square": lambda x: x * x,
    "sin": math.sin,
    "cos": math.cos,
}
POSITIVE = {"log": math.log, "sqrt": math.sqrt}


@pytest.mark.parametrize("op", DEFINITIONS)
def test_unary_definitions(op):
    x = np.array([-6.3, -3.0, -2.5, -1.0, -0.5, -0.25, 0.0, 0.3, 0.5, 1.0, 1.5, 2.5, 3.0, 7.1])

    got = run(ops.get(op), x)

    np.testing.assert_allclose(got, [DEFINITIONS[op](v) for v in x], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("op", POSITIVE)
def test_unary_definitions_of_positive_numbers(op):
    x = np.array([1e-9, 0.3, 1.0, 2.0, 9.7, 1e9])

    np.testing.assert_allclose(run(ops.get(op), x), [POSITIVE[op](v) for v in x], rtol=1e-15)


def test_every_unary_op_has_a_definition_here():
    unary = {n for n, row in ops.OPS.items() if row.family == "activation" and not row.params
             and len(row.operands) == 1}  # fmt: skip

    assert unary == DEFINITIONS.keys() | POSITIVE.keys()


def test_expm1_is_exact_near_zero():
    assert run(ops.expm1, [1e-12])[0] == pytest.approx(1e-12 + 5e-25, rel=1e-15)


def test_round_takes_halves_away_from_zero_and_keeps_infinities():
    x = [-2.5, -0.5, 0.5, 1.5, 0.49999999999999994, INF, -INF]

    np.testing.assert_array_equal(run(ops.round, x), [-3, -1, 1, 2, 0, INF, -INF])


def test_functions_far_from_zero_do_not_overflow():
    x = [-1000.0, 1000.0]

    np.testing.assert_array_equal(run(ops.sigmoid, x), [0, 1])
    np.testing.assert_array_equal(run(ops.softplus, x), [0, 1000])
    np.testing.assert_array_equal(run(ops.silu, x), [0, 1000])
    np.testing.assert_array_equal(run(ops.gelu, x), [0, 1000])
    np.testing.assert_array_equal(run(ops.elu, x), [-1, 1000])


def test_parameters_of_unary_ops():
    x = np.array([-2.0, -0.5, 0.0, 2.0])

    np.testing.assert_allclose(run(lambda n: ops.leaky_relu(n, slope=0.1), x), [-0.2, -0.05, 0, 2])
    np.testing.assert_array_equal(run(lambda n: ops.clamp(n, low=-1, high=1), x), [-1, -0.5, 0, 1])
    np.testing.assert_allclose(
        run(lambda n: ops.scale(n, factor=3.0, offset=1.0), x), [-5, -0.5, 1, 7]
    )


def test_xielu():
    # alpha_p x^2 + beta x above 0; (expm1(x) - x) alpha_n + beta x below.
    x = np.array([2.0, -1.0, 0.0])
    got = run(lambda n: ops.xielu(n, alpha_n=0.8, alpha_p=0.9), x)

    at_zero = (math.expm1(-1e-6) - 0) * 0.8
    np.testing.assert_allclose(
        got, [0.9 * 4 + 1, (math.exp(-1) - 1 + 1) * 0.8 - 0.5, at_zero], rtol=1e-12
    )


GATES = {"reglu": "relu", "geglu": "gelu", "geglu_erf": "gelu_erf", "geglu_quick": "gelu_quick",
         "swiglu": "silu"}  # fmt: skip


@pytest.mark.parametrize("op", GATES)
def test_gated_units_are_their_activation_times_up(op):
    gate, up = np.linspace(-4, 4, 9), np.linspace(1, -2, 9)
    expected = [DEFINITIONS[GATES[op]](g) * u for g, u in zip(gate, up, strict=True)]

    np.testing.assert_allclose(run(ops.get(op), gate, up), expected, rtol=1e-12, atol=1e-15)


def test_swiglu_clamped():
    gate, up = np.array([1.0, 9.0, -9.0]), np.array([2.0, 9.0, -9.0])
    got = run(ops.swiglu_clamped, gate, up)

    def sigmoid(v):
        return 1 / (1 + math.exp(-v))

    expected = [
        1 * sigmoid(1.702) * 3,
        7 * sigmoid(1.702 * 7) * 8,
        -9 * sigmoid(-1.702 * 9) * -6,  # the gate has no lower limit
    ]
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        ("add", [4, 1, -6]),
        ("sub", [2, -7, -2]),
        ("mul", [3, -12, 8]),
        ("div", [3, 0, 2]),  # -3 / 4 truncates to 0
        ("maximum", [3, 4, -2]),
        ("minimum", [1, -3, -4]),
        ("pow", [3, 81, 0]),  # a negative power is 0
    ],
)
def test_integer_arithmetic(op, expected):
    got = run(ops.get(op), [3, -3, -4], [1, 4, -2], dtype="i32")

    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, expected)


def test_integer_division_truncates_and_survives_zero():
    got = run(ops.div, [7, -7, 7, -7, 5], [2, 2, -2, -2, 0], dtype="i16")

    np.testing.assert_array_equal(got, [3, -3, -3, 3, 0])


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [("i8", -128, 127), ("i32", -(2**31), 2**31 - 1)]
)
def test_integers_wrap_around(dtype, low, high):
    np.testing.assert_array_equal(run(ops.add, [high], [1], dtype=dtype), [low])
    np.testing.assert_array_equal(run(ops.sub, [low], [1], dtype=dtype), [high])
    np.testing.assert_array_equal(run(ops.mul, [high], [2], dtype=dtype), [-2])


def test_float_division_and_power():
    got = run(ops.div, [1.0, -1.0, 0.0], [0.0, 0.0, 0.0])
    np.testing.assert_array_equal(got, [INF, -INF, NAN])
    np.testing.assert_array_equal(run(ops.pow, [-2.0, 0.0, 4.0], [3.0, 0.0, 0.5]), [-8, 1, 2])


@pytest.mark.parametrize("op", ["maximum", "minimum"])
def test_nan_wins(op):
    got = run(ops.get(op), [NAN, 1.0, 2.0], [1.0, NAN, 3.0])

    np.testing.assert_array_equal(np.isnan(got), [True, True, False])


def test_comparisons_and_logic():
    a, b = [1.0, 2.0, NAN], [2.0, 2.0, NAN]
    expected = {
        "equal": [0, 1, 0], "not_equal": [1, 0, 1], "less": [1, 0, 0], "less_equal": [1, 1, 0],
        "greater": [0, 0, 0], "greater_equal": [0, 1, 0],
    }  # fmt: skip
    for op, truth in expected.items():
        got = run(ops.get(op), a, b)

        assert got.dtype == bool
        np.testing.assert_array_equal(got, np.array(truth, bool))
    yes, no = np.array([True, True, False, False]), np.array([True, False, True, False])
    np.testing.assert_array_equal(run(ops.logical_and, yes, no), [True, False, False, False])
    np.testing.assert_array_equal(run(ops.logical_or, yes, no), [True, True, True, False])
    np.testing.assert_array_equal(run(ops.logical_not, yes), [False, False, True, True])


def test_where_broadcasts_three_ways():
    got = run(ops.where, np.array([[True], [False]]), np.array([1.0, 2.0]), np.float64(9))

    np.testing.assert_array_equal(got, [[1, 2], [9, 9]])


def test_add_rows_by_id():
    x = ops.input(name="x", dtype="f64", shape=(2, 2, 2))
    bias = ops.input(name="b", dtype="f64", shape=(2, 2))
    ids = ops.input(name="i", dtype="i32", shape=(2, 2))
    graph = Graph.build({"y": ops.add_rows_by_id(x, bias, ids)})

    leaves = {"x": np.zeros((2, 2, 2)), "b": [[1, 2], [3, 4]], "i": [[0, 1], [-1, 2]]}
    got = evaluate(graph, leaves)["y"]

    np.testing.assert_array_equal(got, [[[1, 2], [3, 4]], [[0, 0], [0, 0]]])


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_results_are_rounded_once_to_their_dtype(dtype):
    # 1 + 2^-p lies halfway between 1 and its upper neighbour: to even, thus 1. Any more goes up.
    places = {"f32": 24, "f16": 11, "bf16": 8}[dtype]
    half, step = 2.0**-places, 2.0 ** (1 - places)

    assert run(ops.add, [1.0], [half], dtype=dtype)[0] == 1
    assert run(ops.add, [1 + step], [half], dtype=dtype)[0] == 1 + 2 * step
    assert run(ops.add, [1.0], [half * 1.5], dtype=dtype)[0] == 1 + step
