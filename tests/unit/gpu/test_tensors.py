"""Walks over operands: axes are joined where all operands allow it."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotplug.dtypes import get
from hotplug.gpu.tensors import AXES, Place, Tensor, joined, shape_bytes, view_bytes, walk
from hotplug.layout import Layout


def tensor(shape, dtype="f32", at=0):
    return Tensor(Place("x", at), get(dtype), Layout.contiguous(shape))


def places(lengths, strides):
    indices = itertools.product(*(range(n) for n in lengths))
    return [sum(i * s for i, s in zip(index, strides, strict=True)) for index in indices]


def test_contiguous_operands_walk_one_axis():
    shape, strides = joined((2, 3, 4), [(12, 4, 1), (12, 4, 1)])
    assert shape == (24,)
    assert strides == [(1,), (1,)]


def test_a_stretched_operand_keeps_its_axes_apart():
    shape, strides = joined((2, 3, 4), [(12, 4, 1), (0, 0, 1)])
    assert shape == (6, 4)
    assert strides == [(4, 1), (0, 1)]


@given(
    st.lists(st.integers(1, 4), max_size=5).flatmap(
        lambda shape: st.tuples(
            st.just(tuple(shape)),
            st.lists(st.tuples(*[st.integers(0, 9) for _ in shape]), min_size=1, max_size=3),
        )
    )
)
def test_joined_axes_visit_the_same_places_in_the_same_order(case):
    shape, strides = case
    lengths, steps = joined(shape, strides)
    for before, after in zip(strides, steps, strict=True):
        assert places(shape, before) == places(lengths, after)


def test_views_count_bytes_to_the_first_element():
    layout = Layout((2, 2), (4, 1), 5)
    assert Tensor(Place("x", 64), get("f16"), layout).at == 64 + 10


def test_quantised_offsets_count_whole_blocks():
    layout = Layout((2, 32), (64, 1), 32)
    quantised = Tensor(Place("x"), get("q4_1"), layout)
    assert quantised.at == 20
    assert quantised.byte_strides() == (40, 0)


def test_structs_have_the_sizes_of_their_c_declarations():
    shape, (view,) = walk((2, 3), [tensor((2, 3), at=8)])
    assert len(shape) == struct.calcsize(f"<{AXES + 2}i")
    assert struct.unpack_from("<q", view) == (8,)
    assert struct.unpack_from("<2i", shape) == (6, 1)


def test_more_axes_than_a_view_has_are_an_error():
    with pytest.raises(ValueError, match="do not fit"):
        view_bytes(0, (1,) * (AXES + 1))
    with pytest.raises(ValueError, match="do not fit"):
        shape_bytes((2,) * (AXES + 1))
