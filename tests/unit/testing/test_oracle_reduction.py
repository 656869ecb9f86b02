"""The oracle's reductions, order, softmax and norms against hand-worked values and definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hotplug import ops
from hotplug.graph import Graph
from hotplug.testing.oracle import evaluate
from hotplug.testing.oracle.reduction import alibi_slopes

INF, NAN = math.inf, math.nan


def value(node, **leaves):
    return evaluate(Graph.build({"y": node}), leaves)["y"]


def leaf(name, array, dtype="f64"):
    return ops.input(name=name, dtype=dtype, shape=np.shape(array))


def run(op, array, dtype="f64", **params):
    return value(ops.get(op)(leaf("x", array, dtype), **params), x=array)


X = np.array([[1.0, 2.0, 4.0], [-1.0, 0.5, 3.0]])


@pytest.mark.parametrize(
    ("op", "axis", "expected"),
    [
        ("sum", -1, [7, 2.5]), ("sum", 0, [0, 2.5, 7]), ("prod", 1, [8, -1.5]),
        ("mean", -1, [7 / 3, 2.5 / 3]), ("max", 0, [1, 2, 4]), ("min", 0, [-1, 0.5, 3]),
        ("argmax", 1, [2, 2]), ("argmin", 0, [1, 1, 1]),
    ],
)  # fmt: skip
def test_reductions(op, axis, expected):
    np.testing.assert_allclose(run(op, X, axis=axis), expected, rtol=1e-15)


def test_keepdims():
    assert run("sum", X, axis=0, keepdims=True).shape == (1, 3)
    assert run("max", X, axis=1, keepdims=True).tolist() == [[4], [3]]


def test_of_nothing():
    assert run("sum", np.zeros((2, 0))).tolist() == [0, 0]
    assert run("prod", np.zeros((2, 0))).tolist() == [1, 1]


def test_cumsum():
    np.testing.assert_array_equal(run("cumsum", X), [[1, 3, 7], [-1, -0.5, 2.5]])
    np.testing.assert_array_equal(run("cumsum", X, axis=0), [[1, 2, 4], [0, 2.5, 7]])


def test_integers_wrap_around():
    assert run("sum", np.array([100, 100]), dtype="i8") == -56
    assert run("prod", np.array([16, 16]), dtype="i8") == 0
    assert run("cumsum", np.array([127, 1]), dtype="i8").tolist() == [127, -128]


def test_nan_counts():
    x = np.array([1, NAN, 3, NAN])

    assert np.isnan(run("max", x))
    assert np.isnan(run("min", x))
    assert run("argmax", x) == run("argmin", x) == 1


def test_ties_go_to_the_first():
    x = np.array([2.0, 5, 5, 2])

    assert run("argmax", x) == 1
    assert run("argmin", x) == 0
    assert run("argsort", x).tolist() == [0, 3, 1, 2]
    assert run("argsort", x, descending=True).tolist() == [1, 2, 0, 3]
    assert run("top_k", x, k=3).tolist() == [1, 2, 0]


def test_count_equal():
    a, b = np.array([1, 2, 3]), np.array([1, 0, 3])
    node = ops.count_equal(leaf("a", a, "i32"), leaf("b", b, "i32"))

    got = value(node, a=a, b=b)

    assert got == 2
    assert got.dtype == np.int64
    assert got.shape == ()


def test_softmax_is_its_definition():
    e = np.exp(0.5 * X)

    np.testing.assert_allclose(run("softmax", X, scale=0.5), e / e.sum(-1, keepdims=True))


def test_softmax_does_not_overflow():
    np.testing.assert_allclose(run("softmax", np.array([1e4, 1e4])), [0.5, 0.5])


def test_softmax_adds_float_masks_and_hides_by_bool():
    x = np.array([0.0, 0.0, 0.0])
    floats, truth = np.array([0, math.log(3), -INF]), np.array([True, True, False])

    by_float = value(ops.softmax(leaf("x", x), leaf("m", floats)), x=x, m=floats)
    by_truth = value(ops.softmax(leaf("x", x), leaf("m", truth, "bool")), x=x, m=truth)

    np.testing.assert_allclose(by_float, [0.25, 0.75, 0])
    np.testing.assert_allclose(by_truth, [0.5, 0.5, 0])


@pytest.mark.parametrize("mask", [[-INF, -INF], [False, False]])
def test_a_row_that_sees_nothing_is_zeros(mask):
    mask = np.array(mask)
    dtype = "bool" if mask.dtype == bool else "f64"
    x = np.array([3.0, 4.0])

    got = value(ops.softmax(leaf("x", x), leaf("m", mask, dtype)), x=x, m=mask)

    np.testing.assert_array_equal(got, [0, 0])


def test_sinks_take_their_part_of_the_sum():
    x = np.zeros((2, 1, 3))
    sinks = np.array([0.0, math.log(2)])
    node = ops.softmax(leaf("x", x), None, leaf("s", sinks, "f32"))

    got = value(node, x=x, s=sinks)

    np.testing.assert_allclose(got[:, 0, 0], [1 / 4, 1 / 5], rtol=1e-7)


def test_alibi_slopes_of_the_paper():
    np.testing.assert_allclose(alibi_slopes(8, 8.0), [2.0**-k for k in range(1, 9)])


def test_alibi_slopes_between_powers_of_two():
    # The paper's rule: those of 8 heads, then every other one of 16.
    odd = [2.0 ** -(k / 2) for k in (1, 3, 5, 7)]
    np.testing.assert_allclose(alibi_slopes(12, 8.0), [*(2.0**-k for k in range(1, 9)), *odd])


def test_alibi_multiplies_the_mask():
    x, mask = np.zeros((2, 1, 2)), np.array([[0.0, -1.0]])
    node = ops.softmax(leaf("x", x), leaf("m", mask), max_bias=4.0)

    got = value(node, x=x, m=mask)

    slopes = np.array([2.0**-2, 2.0**-4])
    np.testing.assert_allclose(got[:, 0, 1], 1 / (1 + np.exp(slopes)))


def test_rms_norm():
    x, w = np.array([[3.0, 4.0]]), np.array([1.0, 2.0])
    node = ops.rms_norm(leaf("x", x), leaf("w", w), eps=0.0)

    np.testing.assert_allclose(value(node, x=x, w=w), [[3, 8]] / np.sqrt(12.5))


def test_rms_norm_of_zeros_is_zeros():
    np.testing.assert_array_equal(run("rms_norm", np.zeros(4)), np.zeros(4))


def test_layer_norm_gives_mean_and_variance():
    x = np.random.default_rng(0).normal(5, 3, (4, 50))
    got = run("layer_norm", x, eps=0.0)

    np.testing.assert_allclose(got.mean(-1), 0, atol=1e-12)
    np.testing.assert_allclose(got.var(-1), 1)
    np.testing.assert_allclose(run("layer_norm", np.array([1.0, 3.0]), eps=3.0), [-0.5, 0.5])


def test_layer_norm_scales_then_shifts():
    x, w, b = np.array([-1.0, 1.0]), np.array([2.0, 3.0]), np.array([10.0, 20.0])
    node = ops.layer_norm(leaf("x", x), leaf("w", w), leaf("b", b), eps=0.0)

    np.testing.assert_allclose(value(node, x=x, w=w, b=b), [8, 23])


def test_group_norm_is_layer_norm_of_each_group():
    x = np.random.default_rng(0).normal(size=(2, 6, 3))
    got = run("group_norm", x, groups=3, eps=1e-3)

    for batch in range(2):
        for group in range(3):
            part = x[batch, 2 * group : 2 * group + 2]
            expected = (part - part.mean()) / np.sqrt(part.var() + 1e-3)
            np.testing.assert_allclose(got[batch, 2 * group : 2 * group + 2], expected)


def test_group_norm_scales_by_channel():
    x, w = np.array([[[-1.0, 1.0], [-1.0, 1.0]]]), np.array([1.0, 10.0])
    node = ops.group_norm(leaf("x", x), leaf("w", w), groups=2, eps=0.0)

    np.testing.assert_allclose(value(node, x=x, w=w), [[[-1, 1], [-10, 10]]])


def test_l2_norm():
    np.testing.assert_allclose(run("l2_norm", np.array([3.0, 4.0])), [0.6, 0.8])
    np.testing.assert_allclose(run("l2_norm", np.array([3.0, 4.0]), eps=10.0), [0.3, 0.4])
    np.testing.assert_array_equal(run("l2_norm", np.zeros(2)), [0, 0])
