"""The oracle's convolutions and pools against values worked by hand and definitions by products."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug import ops
from hotplug.graph import Graph
from hotplug.testing.oracle import evaluate

RNG = np.random.default_rng(3)


def value(node, **leaves):
    return evaluate(Graph.build({"y": node}), leaves)["y"]


def leaf(name, array):
    return ops.input(name=name, dtype="f64", shape=np.shape(array))


def conv(x, w, **params):
    return value(ops.conv(leaf("x", x), leaf("w", w), **params), x=x, w=w)


def test_conv_is_numpys_correlation():
    x, w = RNG.normal(size=9), RNG.normal(size=3)

    got = conv(x.reshape(1, 1, 9), w.reshape(1, 1, 3))

    np.testing.assert_allclose(got[0, 0], np.correlate(x, w, mode="valid"))


def test_conv_strides_pads_and_dilates():
    x, w = np.arange(1.0, 6).reshape(1, 1, 5), np.array([[[1.0, 10.0]]])

    got = conv(x, w, stride=(2,), padding=(1,), dilation=(2,))

    # places start at -1, 1 and 3: 0 + 10 * 2, 2 + 10 * 4, 4 + 0
    np.testing.assert_array_equal(got, [[[20, 42, 4]]])


def test_groups_are_convolutions_apart():
    x, w = RNG.normal(size=(2, 4, 5, 6)), RNG.normal(size=(6, 2, 3, 2))

    got = conv(x, w, groups=2)

    apart = [conv(x[:, :2], w[:3]), conv(x[:, 2:], w[3:])]
    np.testing.assert_allclose(got, np.concatenate(apart, axis=1))


@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
def test_transposed_convolution_is_the_transposed_map(stride):
    """<conv(x), y> = <x, conv_transpose(y)> for all x and y."""
    params = {"stride": stride, "padding": (1, 0), "dilation": (1, 2)}
    w = RNG.normal(size=(4, 3, 3, 2))
    x = RNG.normal(size=(2, 3, 7, 9))
    image = conv(x, w, **params)
    y = RNG.normal(size=image.shape)

    back = value(ops.conv_transpose(leaf("y", y), leaf("w", w), **params), y=y, w=w)

    assert back.shape == x.shape
    np.testing.assert_allclose((image * y).sum(), (x * back).sum())


def test_convolution_is_a_product_with_columns():
    params = {"stride": (2, 1), "padding": (1, 1)}
    x, w = RNG.normal(size=(2, 3, 5, 6)), RNG.normal(size=(4, 3, 3, 2))
    columns = value(ops.im2col(leaf("x", x), kernel=(3, 2), **params), x=x)

    products = np.moveaxis(columns @ w.reshape(4, -1).T, -1, 1)

    np.testing.assert_allclose(conv(x, w, **params), products)


def test_col2im_counts_how_often_im2col_took_an_element():
    columns = np.ones((1, 3, 2))
    node = ops.col2im(leaf("c", columns), shape=(4,), kernel=(2,))

    np.testing.assert_array_equal(value(node, c=columns), [[[1, 2, 2, 1]]])


def test_pools_by_hand():
    x = np.array([[[-1.0, -5.0, -3.0, -2.0]]])
    params = {"kernel": (2,), "stride": (2,), "padding": (1,)}

    largest = value(ops.max_pool(leaf("x", x), **params), x=x)
    mean = value(ops.avg_pool(leaf("x", x), **params), x=x)
    of_covered = value(ops.avg_pool(leaf("x", x), count_include_pad=False, **params), x=x)

    np.testing.assert_array_equal(largest, [[[-1, -3, -2]]])
    np.testing.assert_array_equal(mean, [[[-0.5, -4, -1]]])
    np.testing.assert_array_equal(of_covered, [[[-1, -4, -2]]])
