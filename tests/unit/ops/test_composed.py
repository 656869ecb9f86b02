"""Functions made of ops against their definitions in NumPy, by way of the oracle."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug import ops
from hotplug.errors import GraphError
from hotplug.graph import Graph
from hotplug.ops import composed
from hotplug.testing.oracle import evaluate

RNG = np.random.default_rng(5)


def value(node, **leaves):
    return evaluate(Graph.build({"y": node}), leaves)["y"]


def leaf(name, array):
    return ops.input(name=name, dtype="f32", shape=array.shape)


def numbers(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def test_timestep_embedding():
    t = np.array([0, 1.5, 40], np.float32)

    got = value(composed.timestep_embedding(leaf("t", t), dim=5, max_period=100.0), t=t)

    angles = t[:, None] * np.array([1, 100**-0.5])
    expected = np.concatenate([np.cos(angles), np.sin(angles), np.zeros((3, 1))], axis=1)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_causal_conv1d():
    x, w = numbers(2, 3, 6), numbers(3, 4)

    got = value(composed.causal_conv1d(leaf("x", x), leaf("w", w)), x=x, w=w)

    expected = [[[w[c] @ x[b, c, t : t + 4] for c in range(3)] for t in range(3)] for b in range(2)]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_cross_entropy_loss():
    x = 100 * numbers(2, 3, 6)
    targets = np.abs(numbers(2, 3, 6))

    got = value(composed.cross_entropy_loss(leaf("x", x), leaf("t", targets)), x=x, t=targets)

    x = x.astype(np.float64)
    logs = x - np.logaddexp.reduce(x, axis=-1, keepdims=True)
    np.testing.assert_allclose(got, [-(targets * logs).sum() / 6], rtol=1e-5)


def test_slices_are_set_and_added_to():
    x, v = numbers(4, 5), numbers(2, 3)
    for function, expected in (
        (composed.set_slice, v),
        (composed.add_to_slice, x[1:3, 2:5] + v),
    ):
        got = value(function(leaf("x", x), leaf("v", v), starts=(1, 2)), x=x, v=v)

        np.testing.assert_array_equal(got[1:3, 2:5], expected)
        got[1:3, 2:5] = x[1:3, 2:5]
        np.testing.assert_array_equal(got, x)


def test_windows_are_cut_and_put_together():
    x = numbers(2, 5, 7, 3)
    windows = composed.window_partition(leaf("x", x), window=4)

    cut = value(windows, x=x)
    whole = value(composed.window_unpartition(windows, size=(5, 7)), x=x)

    assert cut.shape == (2 * 2 * 2, 4, 4, 3)
    np.testing.assert_array_equal(cut[1, :, :3], x[0, :4, 4:])
    np.testing.assert_array_equal(cut[6, :1], x[1, 4:, :4])
    assert not cut[6, 1:].any()
    np.testing.assert_array_equal(whole, x)


def test_relative_positions():
    table = numbers(6, 2)

    got = value(composed.get_rel_pos(leaf("t", table), queries=3, keys=4), t=table)

    for q in range(3):
        for k in range(4):
            np.testing.assert_array_equal(got[q, k], table[q - k + 3])


def test_relative_positions_are_added():
    scores, rel_h, rel_w = numbers(2, 5, 6), numbers(2, 5, 2), numbers(2, 5, 3)
    leaves = {"s": scores, "h": rel_h, "w": rel_w}
    node = composed.add_rel_pos(*(leaf(name, array) for name, array in leaves.items()))

    expected = scores.reshape(2, 5, 2, 3) + rel_h[..., None] + rel_w[..., None, :]

    np.testing.assert_allclose(value(node, **leaves), expected.reshape(2, 5, 6), rtol=1e-5)


def test_lightning_indexer():
    leaves = {"q": numbers(2, 3, 4, 8), "k": numbers(2, 5, 8), "w": numbers(2, 3, 4)}
    leaves["m"] = numbers(1, 3, 5)
    node = composed.lightning_indexer(*(leaf(name, array) for name, array in leaves.items()))

    products = np.maximum(np.einsum("bthd,bsd->bths", leaves["q"], leaves["k"]), 0)
    expected = np.einsum("bths,bth->bts", products, leaves["w"]) + leaves["m"]

    np.testing.assert_allclose(value(node, **leaves), expected, rtol=1e-4, atol=1e-5)


def test_mixing_matrices_are_nearly_doubly_stochastic():
    logits = numbers(3, 4, 4)

    mix = value(composed.hyper_connection_mix(leaf("x", logits), iterations=30), x=logits)

    np.testing.assert_allclose(mix.sum(axis=1), 1, atol=1e-3)
    np.testing.assert_allclose(mix.sum(axis=2), 1, atol=1e-3)


def test_streams_are_read_and_combined():
    leaves = {"x": numbers(3, 5), "s": numbers(3, 4, 5), "w": numbers(3, 4), "m": numbers(3, 4, 4)}
    x, s, w, m = (leaf(name, array) for name, array in leaves.items())

    read = value(composed.hyper_connection_read(s, w), s=leaves["s"], w=leaves["w"])
    combined = value(composed.hyper_connection_combine(x, s, w, m), **leaves)

    expected = np.einsum("th,thd->td", leaves["w"], leaves["s"])
    np.testing.assert_allclose(read, expected, rtol=1e-4, atol=1e-6)
    expected = leaves["w"][..., None] * leaves["x"][:, None]
    expected = expected + np.einsum("tij,tid->tjd", leaves["m"], leaves["s"])
    np.testing.assert_allclose(combined, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: composed.timestep_embedding(leaf("t", numbers(3)), dim=1), "at least 2"),
        (
            lambda: composed.set_slice(
                leaf("x", numbers(3, 3)), leaf("v", numbers(2)), starts=(0,)
            ),
            "is no place in",
        ),
        (
            lambda: composed.add_to_slice(
                leaf("x", numbers(3)), leaf("v", numbers(2)), starts=(2,)
            ),
            "must not be negative",
        ),
        (
            lambda: composed.window_unpartition(leaf("x", numbers(5, 4, 4, 3)), size=(7, 7)),
            "5 windows of 4",
        ),
        (
            lambda: composed.get_rel_pos(leaf("t", numbers(6, 2)), queries=3, keys=3),
            "3 and 3 places",
        ),
        (
            lambda: composed.cross_entropy_loss(leaf("x", numbers(2, 3)), leaf("t", numbers(2, 4))),
            "no targets of",
        ),
        (
            lambda: composed.hyper_connection_mix(leaf("x", numbers(1, 2, 2)), iterations=0),
            "must be positive",
        ),
    ],
)
def test_refused(build, message):
    with pytest.raises(GraphError, match=message):
        build()
