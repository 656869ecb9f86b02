from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hotplug.quants import blocks


@pytest.mark.parametrize("bits", [1, 2, 4])
@settings(max_examples=40)
@given(data=st.data())
def test_planes_hold_bits_in_order_and_join_again(bits, data):
    shape = data.draw(st.tuples(st.integers(0, 3), st.integers(1, 3), st.sampled_from([8, 16, 32])))
    packed = data.draw(hnp.arrays(np.uint8, shape))

    planes = blocks.split_planes(packed, bits)

    count, groups, width = shape
    assert planes.shape == (count, groups, 8 // bits, width)
    for index in range(8 // bits):
        expected = (packed >> (index * bits)) & ((1 << bits) - 1)
        np.testing.assert_array_equal(planes[:, :, index], expected)
    np.testing.assert_array_equal(blocks.join_planes(planes), packed)


@given(st.floats(-1e6, 1e6, width=32))
def test_halves_round_away_from_zero(value):
    (rounded,) = blocks.round_half_away(np.array([value], np.float32))

    # Adding a half is exact in float64.
    assert rounded == np.copysign(np.floor(abs(np.float64(value)) + 0.5), value)


def test_reciprocal_is_zero_where_it_is_not_finite():
    scale = np.array([4.0, -0.5, 0.0, -0.0, 1e-40], np.float32)

    with np.errstate(divide="ignore", over="ignore"):
        np.testing.assert_array_equal(blocks.reciprocal(scale), [0.25, -2, 0, 0, 0])


def test_extreme_value_keeps_its_sign_and_is_the_first_of_equals():
    values = np.array([[1, -3, 3], [2, 2, -2]], np.float32)

    np.testing.assert_array_equal(blocks.extreme_values(values), [[-3], [2]])
