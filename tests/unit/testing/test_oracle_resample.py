"""The oracle's interpolation against values worked by hand and what its modes promise."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug import ops
from hotplug.graph import Graph
from hotplug.testing.oracle import evaluate

RAMP = np.arange(6.0)
SMOOTH = [
    {"mode": "linear"},
    {"mode": "linear", "align_corners": True},
    {"mode": "linear", "antialias": True},
    {"mode": "cubic"},
    {"mode": "cubic", "align_corners": True},
]


def interpolate(x, *size, **params):
    node = ops.interpolate(ops.input(name="x", dtype="f64", shape=x.shape), size=size, **params)
    return evaluate(Graph.build({"y": node}), {"x": x})["y"]


def test_nearest_takes_the_element_below():
    np.testing.assert_array_equal(interpolate(RAMP, 9), [0, 0, 1, 2, 2, 3, 4, 4, 5])
    np.testing.assert_array_equal(interpolate(RAMP, 4), [0, 1, 3, 4])


def test_linear_between_the_middles_of_elements():
    got = interpolate(RAMP[:3], 6, mode="linear")

    np.testing.assert_allclose(got, [0, 0.25, 0.75, 1.25, 1.75, 2])


def test_corners_that_are_aligned_stay():
    got = interpolate(RAMP, 11, mode="linear", align_corners=True)

    np.testing.assert_allclose(got, np.linspace(0, 5, 11))


def test_cubic_by_hand():
    """Half way between two elements the four weights are -3, 19, 19 and -3 thirty-seconds."""
    x = np.array([1.0, 5.0, 2.0, 7.0])

    got = interpolate(x, 7, mode="cubic", align_corners=True)

    assert got[3] == pytest.approx((-3 * 1 + 19 * 5 + 19 * 2 - 3 * 7) / 32)
    np.testing.assert_allclose(got[::2], x)


def test_antialias_counts_every_element():
    x = np.zeros(12)
    x[4] = 1

    # The new elements stand at 1.5, 5.5 and 9.5, each reaches as far as 4.
    got = interpolate(x, 3, mode="linear", antialias=True)

    np.testing.assert_allclose(got, [0.375 / 3.5, 0.625 / 4, 0])
    assert not interpolate(x, 3, mode="linear").any()


def test_antialias_changes_nothing_where_an_axis_grows():
    got = interpolate(RAMP, 9, mode="linear", antialias=True)

    np.testing.assert_allclose(got, interpolate(RAMP, 9, mode="linear"))


@pytest.mark.parametrize("params", SMOOTH, ids=str)
def test_a_constant_stays_and_axes_are_independent(params):
    x = np.random.default_rng(1).normal(size=(5, 7))

    np.testing.assert_allclose(interpolate(np.full((3, 4), 2.5), 5, 2, **params), 2.5)
    rows = np.stack([interpolate(row, 4, **params) for row in x])
    np.testing.assert_allclose(
        interpolate(x, 9, 4, **params),
        np.stack([interpolate(column, 9, **params) for column in rows.T], axis=1),
    )
