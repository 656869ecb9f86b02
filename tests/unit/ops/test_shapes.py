"""Shape rules against NumPy, over any shapes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hotplug import ops
from hotplug.errors import GraphError
from hotplug.layout import Layout
from hotplug.ops.checks import broadcast, normal_axis

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def x(shape, name="x"):
    return ops.input(name=name, dtype="f32", shape=tuple(shape))


@given(st.lists(SHAPES, min_size=1, max_size=3))
def test_broadcast_is_numpys(shapes):
    try:
        expected = np.broadcast_shapes(*shapes)
    except ValueError:
        expected = None
    try:
        found = broadcast(*shapes)
    except GraphError:
        found = None

    assert found == expected


@given(SHAPES, SHAPES)
def test_elementwise_results_broadcast(left, right):
    try:
        expected = np.broadcast_shapes(left, right)
    except ValueError:
        return

    assert ops.add(x(left), x(right, "y")).shape == expected


@given(st.integers(0, 5), st.integers(-8, 8))
def test_axes_count_from_either_end(rank, axis):
    try:
        found = normal_axis(axis, rank)
    except GraphError:
        assert not -rank <= axis < rank
    else:
        assert found == range(rank)[axis]


@given(SHAPES, st.data())
def test_reductions(shape, data):
    if not shape:
        return
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    values = np.zeros(shape)

    for keepdims in (False, True):
        assert (
            ops.sum(x(shape), axis=axis, keepdims=keepdims).shape
            == np.sum(values, axis=axis, keepdims=keepdims).shape
        )


@given(SHAPES, st.data())
def test_views_lie_where_numpys_do(shape, data):
    """A view's layout, read by hand from the storage, is NumPy's view."""
    storage = np.arange(int(np.prod(shape)))
    array, node, layout = storage.reshape(shape), x(shape), Layout.contiguous(shape)
    for _ in range(data.draw(st.integers(1, 4))):
        array, view = data.draw(views(array, node))
        seen = ops.view_layout(view, layout)
        if seen is None:
            assert not np.shares_memory(array, storage) or array.size <= 1
            return
        node, layout = view, seen

        assert node.shape == layout.shape == array.shape
        if array.size:
            index = sum(
                (np.arange(n) * s).reshape((-1,) + (1,) * (len(layout.shape) - 1 - axis))
                for axis, (n, s) in enumerate(zip(layout.shape, layout.strides, strict=True))
            )
            np.testing.assert_array_equal(storage[layout.offset + index], array)


@st.composite
def views(draw, array, node):
    kind = draw(st.sampled_from(["permute", "slice", "transpose", "reshape"]))
    rank = array.ndim
    if kind == "slice":
        starts = tuple(draw(st.integers(0, n)) for n in array.shape)
        stops = tuple(draw(st.integers(a, n)) for a, n in zip(starts, array.shape, strict=True))
        steps = tuple(draw(st.integers(1, 3)) for _ in array.shape)
        boxes = tuple(slice(*box) for box in zip(starts, stops, steps, strict=True))
        return array[boxes], ops.slice(node, starts=starts, stops=stops, steps=steps)
    if kind == "transpose" and rank >= 2:
        first, second = (draw(st.integers(-rank, rank - 1)) for _ in range(2))
        return np.swapaxes(array, first, second), ops.transpose(node, axis0=first, axis1=second)
    if kind == "reshape":
        shape = draw(st.sampled_from([(array.size,), (1, *array.shape), (*array.shape, 1)]))
        return array.reshape(shape), ops.reshape(node, shape=shape)
    axes = tuple(draw(st.permutations(range(rank))))
    return array.transpose(axes), ops.permute(node, axes=axes)


@given(SHAPES, st.data())
def test_repeat_and_pad_and_concat(shape, data):
    repeats = tuple(data.draw(st.integers(1, 3)) for _ in shape)
    before = tuple(data.draw(st.integers(0, 2)) for _ in shape)
    after = tuple(data.draw(st.integers(0, 2)) for _ in shape)
    values = np.zeros(shape)

    assert ops.repeat(x(shape), repeats=repeats).shape == np.tile(values, repeats).shape
    padded = np.pad(values, tuple(zip(before, after, strict=True))) if shape else values
    assert ops.pad(x(shape), before=before, after=after).shape == padded.shape
    if shape:
        axis = data.draw(st.integers(-len(shape), len(shape) - 1))
        joined = np.concatenate([values, values], axis=axis)
        assert ops.concat(x(shape), x(shape, "y"), axis=axis).shape == joined.shape


@given(SHAPES, SHAPES, st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_matmul_is_numpys(left, right, m, k, n):
    try:
        expected = np.matmul(np.zeros((*left, m, k)), np.zeros((*right, k, n))).shape
    except ValueError:
        return

    a = x((*left, m, k))
    assert ops.matmul(a, x((*right, k, n), "b")).shape == expected
    assert ops.matmul(a, x((*right, n, k), "b"), transpose_b=True).shape == expected
