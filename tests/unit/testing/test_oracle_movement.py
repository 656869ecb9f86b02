"""The oracle's constants, views, rows, arrangement and casts; blocks that move unchanged."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hotplug import ops, quants
from hotplug.dtypes import get
from hotplug.errors import GraphError
from hotplug.graph import Graph
from hotplug.tensor import HostTensor, TensorType
from hotplug.testing.oracle import evaluate, evaluate_blocks, evaluate_nodes

INF, NAN = math.inf, math.nan
X = np.arange(12.0).reshape(3, 4)


def value(node, **leaves):
    return evaluate(Graph.build({"y": node}), leaves)["y"]


def leaf(name, array, dtype="f32"):
    return ops.input(name=name, dtype=dtype, shape=np.shape(array))


def run(op, array=X, source="f32", **params):
    return value(ops.get(op)(leaf("x", array, source), **params), x=array)


def test_constants():
    assert value(ops.fill(value=2.7, dtype="i32", shape=(2,))).tolist() == [2, 2]
    assert value(ops.fill(value=1e9, dtype="i8", shape=())) == 127
    assert value(ops.arange(start=1, stop=6, step=2)).tolist() == [1, 3, 5]
    assert value(ops.arange(start=3, stop=0, step=-1.5, dtype="f64")).tolist() == [3, 1.5]
    assert value(ops.arange(start=0, stop=2, step=0.5, dtype="i32")).tolist() == [0, 0, 1, 1]


def test_views():
    np.testing.assert_array_equal(run("reshape", shape=(2, -1)), X.reshape(2, 6))
    np.testing.assert_array_equal(run("permute", axes=(1, 0)), X.T)
    np.testing.assert_array_equal(run("transpose"), X.T)
    got = run("slice", starts=(0, 1), stops=(3, 4), steps=(2, 2))
    np.testing.assert_array_equal(got, X[::2, 1::2])


def test_arrangement():
    np.testing.assert_array_equal(run("repeat", np.array([1, 2]), repeats=(2,)), [1, 2, 1, 2])
    row = np.array([1.0, 2, 3])
    assert run("pad", row, before=(1,), after=(2,), value=9.0).tolist() == [9, 1, 2, 3, 9, 9]
    circular = run("pad", row, before=(1,), after=(2,), mode="circular")
    assert circular.tolist() == [3, 1, 2, 3, 1, 2]
    assert run("pad_reflect", row, before=2, after=1).tolist() == [3, 2, 1, 2, 3, 2]
    assert run("roll", row, shifts=(1,)).tolist() == [3, 1, 2]
    assert run("diag", row[:2]).tolist() == [[1, 0], [0, 2]]
    both = ops.concat(leaf("a", row), leaf("b", row[:1]))
    assert value(both, a=row, b=row[:1]).tolist() == [1, 2, 3, 1]


def test_triangles():
    ones = np.ones((3, 3))

    assert run("triangular", ones).tolist() == np.tril(ones).tolist()
    assert run("triangular", ones, part="upper", diagonal=1).tolist() == np.triu(ones, 1).tolist()
    masked = run("triangular", np.zeros((2, 2)), value=-INF)
    assert masked.tolist() == [[0, -INF], [0, 0]]


def test_take_gives_zeros_outside():
    at = np.array([[2, -1], [3, 0]])
    got = value(ops.take(leaf("t", X), leaf("i", at, "i64")), t=X, i=at)

    np.testing.assert_array_equal(got, [[X[2], 0 * X[0]], [0 * X[0], X[0]]])


def test_scatter_drops_rows_outside_and_the_last_of_equals_wins():
    table, at, rows = np.zeros((3, 1)), np.array([1, 5, 1, -1]), np.array([[1.0], [2], [3], [4]])
    node = ops.scatter_rows(leaf("t", table), leaf("i", at, "i32"), leaf("r", rows))

    assert value(node, t=table, i=at, r=rows).tolist() == [[0], [3], [0]]


@pytest.mark.parametrize(
    ("source", "target", "given", "expected"),
    [
        ("f32", "i8", [1.9, -1.9, 200, -INF, NAN], [1, -1, 127, -128, 0]),
        ("i32", "i8", [300, -300, 5], [127, -128, 5]),
        ("f32", "bool", [0.0, -0.0, 0.1, NAN], [False, False, True, True]),
        ("bool", "f32", [True, False], [1, 0]),
        ("f32", "f16", [65519, 65520, 1 + 2**-11, 1 + 3 * 2**-11], [65504, INF, 1, 1 + 2**-9]),
        ("f32", "bf16", [1 + 2**-8, 1 + 3 * 2**-8], [1, 1 + 2**-6]),
        ("f64", "i64", [1e300, -1e300], [2**63 - 1, -(2**63)]),
    ],
)
def test_casts(source, target, given, expected):
    got = run("cast", np.array(given), source, dtype=target)

    np.testing.assert_array_equal(got, np.array(expected, got.dtype))


def test_a_double_is_rounded_once_on_its_way_to_bf16():
    # Just above half of a bf16 step; float32 would round it to the half, and that to even.
    assert run("cast", np.array([1 + 2.0**-8 + 2.0**-40]), "f64", dtype="bf16")[0] == 1 + 2**-7


# Leaves


def test_leaves_are_rounded_to_their_dtype():
    assert run("neg", np.array([0.1]), "f16")[0] == -np.float16(0.1)


def test_states_are_zeros_unless_given():
    state = ops.state(name="s", dtype="f32", shape=(2,))
    grown = ops.add(state, leaf("x", [1.0, 2.0]))
    graph = Graph.build({"y": grown}, {"s": grown})

    first = evaluate(graph, {"x": np.array([1.0, 2.0])})
    second = evaluate(graph, {"x": np.array([1.0, 2.0]), "s": first["state:s"]})

    assert first["y"].tolist() == first["state:s"].tolist() == [1, 2]
    assert second["y"].tolist() == [2, 4]


def test_missing_and_misshapen_leaves():
    node = ops.neg(leaf("x", X))

    with pytest.raises(GraphError, match="no value for input 'x'"):
        value(node)
    with pytest.raises(GraphError, match=r"leaf is f32\[3, 4\], given an array of shape \(4,\)"):
        value(node, x=np.zeros(4))
    wrong = HostTensor(TensorType(get("f16"), (3, 4)), np.zeros(24, np.uint8))
    with pytest.raises(GraphError, match=r"leaf is f32\[3, 4\], given f16\[3, 4\]"):
        value(node, x=wrong)


def test_every_node_has_a_value():
    node = ops.neg(ops.abs(leaf("x", X)))

    values = evaluate_nodes(Graph.build({"y": node}), {"x": X})

    assert [n.op for n in values] == ["input", "abs", "neg"]


# Blocks


def blocks(dtype, shape, seed=0):
    """A tensor whose blocks change when they are decoded and encoded again."""
    kind = TensorType(get(dtype), shape)
    data = np.random.default_rng(seed).integers(0, 256, kind.nbytes, np.uint8)
    data.view(np.dtype([("scale", "<f2"), ("low", "u1", 16)]))["scale"] = 0.01
    return HostTensor(kind, data)


def moved(node, **leaves):
    (data,) = evaluate_blocks(Graph.build({"y": node}), leaves).values()
    return data.reshape(-1, node.dtype.block_bytes)


def test_plain_results_have_no_blocks():
    assert evaluate_blocks(Graph.build({"y": leaf("x", X)}), {}) == {}


def test_blocks_move_as_they_are():
    tensor = blocks("q4_0", (2, 3, 64))
    w = ops.weight(name="w", dtype="q4_0", shape=(2, 3, 64))
    given = tensor.data.reshape(2, 3, 2, 18)

    turned = ops.contiguous(ops.transpose(w, axis0=0, axis1=1))
    part = ops.slice(w, starts=(1, 0, 32), stops=(2, 3, 64), steps=(1, 2, 1))
    flat = ops.reshape(ops.permute(w, axes=(1, 0, 2)), shape=(6, 64))

    expected = given.swapaxes(0, 1).reshape(-1, 18)
    np.testing.assert_array_equal(moved(turned, w=tensor), expected)
    np.testing.assert_array_equal(moved(flat, w=tensor), expected)
    np.testing.assert_array_equal(moved(part, w=tensor), given[1, ::2, 1].reshape(-1, 18))
    np.testing.assert_array_equal(moved(ops.cast(w, dtype="q4_0"), w=tensor), given.reshape(-1, 18))


def test_blocks_are_scattered_and_the_others_stay():
    table, row = blocks("q4_0", (3, 32)), np.linspace(-1, 1, 32)[None]
    node = ops.scatter_rows(leaf("t", np.zeros((3, 32)), "q4_0"), leaf("i", [1], "i32"),
                            leaf("r", row))  # fmt: skip
    leaves = {
        "t": table,
        "i": HostTensor(TensorType(get("i32"), (1,)), np.array([1, 0, 0, 0], np.uint8)),
        "r": HostTensor(TensorType(get("f32"), (1, 32)), row.astype(np.float32).view(np.uint8)[0]),
    }

    got = moved(node, **leaves)

    np.testing.assert_array_equal(got[[0, 2]], table.data.reshape(3, 18)[[0, 2]])
    np.testing.assert_array_equal(got[1], quants.encode(row.astype(np.float32), get("q4_0")))
