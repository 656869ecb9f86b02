"""Conversions between plain dtypes, against exact arithmetic."""

from __future__ import annotations

import bisect
import math
from fractions import Fraction

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotplug import quants
from hotplug.dtypes import DTYPES, get

INTEGERS = ("i8", "i16", "i32", "i64")
FLOATS = ("f16", "bf16", "f32", "f64")

# Every bf16 that is at least 0 and finite, in order; the index of a value is its bit pattern.
BF16_VALUES = (np.arange(0x7F80, dtype=np.uint32) << 16).view(np.float32).astype(float).tolist()


def nearest_bf16(number: float) -> int:
    """Bits of the bf16 nearest to a number of any exactness, by rational arithmetic."""
    magnitude = abs(Fraction(number))
    above = bisect.bisect_left(BF16_VALUES, magnitude)
    if above == len(BF16_VALUES):
        last, beyond = Fraction(BF16_VALUES[-1]), Fraction(2) ** 128
        bits = 0x7F80 if magnitude >= (last + beyond) / 2 else above - 1
    elif above and BF16_VALUES[above] != magnitude:
        below = above - 1
        doubled = Fraction(BF16_VALUES[below]) + Fraction(BF16_VALUES[above])
        even = below if below % 2 == 0 else above
        bits = even if 2 * magnitude == doubled else above if 2 * magnitude > doubled else below
    else:
        bits = above
    return bits | (0x8000 if math.copysign(1, number) < 0 else 0)


def bf16_bits(values: np.ndarray) -> list[int]:
    return list(quants.encode(values, DTYPES["bf16"]).view("<u2"))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=8))
def test_float64_is_rounded_to_bf16_once(numbers):
    assert bf16_bits(np.array(numbers)) == [nearest_bf16(x) for x in numbers]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=8))
def test_int64_is_rounded_to_bf16_once(numbers):
    assert bf16_bits(np.array(numbers, np.int64)) == [nearest_bf16(n) for n in numbers]


@pytest.mark.parametrize(
    ("number", "bits"),
    [
        (1 + 2**-8, 0x3F80),  # a tie goes to even
        (1 + 3 * 2**-8, 0x3F82),
        (1 + 2**-8 + 2**-40, 0x3F81),  # float32 would have made a tie of this
        (1 + 2**-8 - 2**-40, 0x3F80),
        (3.3962e38, 0x7F80),  # beyond the middle between the largest and what would follow
        (1e300, 0x7F80),
        (-1e-300, 0x8000),
        (2.0**-133, 0x0001),
    ],
)
def test_float64_to_bf16_at_the_edges(number, bits):
    assert bf16_bits(np.array([number])) == [bits]


@pytest.mark.parametrize(
    ("number", "bits"),
    [
        (2**40 + 2**32, 0x5380),  # a tie
        (2**40 + 2**32 + 1, 0x5381),
        (2**40 + 2**32 - 1, 0x5380),
        (-(2**63), 0xDF00),
    ],
)
def test_int64_to_bf16_at_the_edges(number, bits):
    assert bf16_bits(np.array([number], np.int64)) == [bits]


def test_uint64_input_keeps_its_upper_half():
    assert bf16_bits(np.array([2**64 - 1], np.uint64)) == [nearest_bf16(2**64 - 1)]


def test_bf16_has_the_bits_of_gguf_nan_and_infinity_included():
    patterns = np.random.default_rng(0).integers(0, 2**32, 4096, np.uint32)
    special = np.array([0x7F800000, 0xFF800000, 0x7F800001, 0xFFFFFFFF, 0x7FC12345], np.uint32)
    values = np.concatenate([patterns, special, special]).view(np.float32)[:4096]
    values[:5] = special.view(np.float32)

    with np.errstate(all="ignore"):
        expected = gguf.quants.quantize(values, gguf.GGMLQuantizationType.BF16)

    np.testing.assert_array_equal(quants.encode(values, DTYPES["bf16"]), expected)


def test_every_bf16_survives_a_round_trip():
    bits = np.arange(65536, dtype=np.uint16)

    values = quants.decode(bits.view(np.uint8), DTYPES["bf16"], (65536,))

    again = quants.encode(values, DTYPES["bf16"]).view("<u2")
    quiet = np.isnan(values) * np.uint16(0x40)
    np.testing.assert_array_equal(again, bits | quiet)


def truncated(number: float, dtype: str) -> int:
    bounds = np.iinfo(np.dtype(get(dtype).numpy))
    if math.isnan(number):
        return 0
    if math.isinf(number):
        return bounds.max if number > 0 else bounds.min
    return max(bounds.min, min(bounds.max, int(number)))


EDGES = st.sampled_from([2.0**n + d for n in (7, 15, 31, 53, 63) for d in (-1, -0.5, 0, 0.5, 1)])
ANY_FLOAT = st.floats() | EDGES | EDGES.map(lambda x: -x)


@pytest.mark.parametrize("target", INTEGERS)
@given(numbers=st.lists(ANY_FLOAT, min_size=1, max_size=8))
def test_floats_are_truncated_and_held_in_range(target, numbers):
    data = quants.encode(np.array(numbers), DTYPES[target])

    assert data.view(DTYPES[target].numpy).tolist() == [truncated(x, target) for x in numbers]


@pytest.mark.parametrize("target", INTEGERS)
@pytest.mark.parametrize("source", INTEGERS)
@settings(max_examples=30)
@given(data=st.data())
def test_integers_are_held_in_range_and_otherwise_exact(source, target, data):
    limits, bounds = np.iinfo(get(source).numpy), np.iinfo(get(target).numpy)
    numbers = data.draw(st.lists(st.integers(limits.min, limits.max), min_size=1, max_size=8))
    stored = np.array(numbers, get(source).numpy).view(np.uint8)

    result = quants.cast(stored, get(source), get(target), (len(numbers),))

    expected = [max(bounds.min, min(bounds.max, n)) for n in numbers]
    assert result.view(get(target).numpy).tolist() == expected


def test_unsigned_integers_are_held_in_range():
    data = quants.encode(np.array([0, 200, 2**64 - 1], np.uint64), DTYPES["i8"])

    assert data.view(np.int8).tolist() == [0, 127, 127]


def test_int64_and_float64_do_not_pass_through_float32():
    numbers = np.array([2**53 - 1, -(2**24 + 1)], np.int64)
    shape = numbers.shape

    as_f64 = quants.cast(numbers.view(np.uint8), get("i64"), get("f64"), shape)
    back = quants.cast(as_f64, get("f64"), get("i64"), shape)

    np.testing.assert_array_equal(back.view(np.int64), numbers)


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=8))
def test_float64_is_rounded_to_float16_once(numbers):
    stored = np.array(numbers).view(np.uint8)

    result = quants.cast(stored, get("f64"), get("f16"), (len(numbers),)).view(np.float16)

    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(result, [np.float16(x) for x in numbers])


def test_float64_to_float16_is_not_rounded_twice():
    # Float32 would make a tie of this, which goes to 1.
    just_above_a_tie = np.array([1 + 2**-11 + 2**-40])

    result = quants.encode(just_above_a_tie, DTYPES["f16"]).view(np.float16)

    assert result.tolist() == [1 + 2**-10]


@pytest.mark.parametrize("target", FLOATS)
def test_what_is_too_large_becomes_infinite_and_nan_stays(target):
    too_large = 10 if target == "f64" else 1
    values = np.array([math.inf, -math.inf, math.nan, 1e308 * too_large])

    decoded = quants.decode(quants.encode(values, DTYPES[target]), DTYPES[target], (4,))

    np.testing.assert_array_equal(decoded, [math.inf, -math.inf, math.nan, math.inf])


@pytest.mark.parametrize("source", [*INTEGERS, *FLOATS])
def test_everything_but_zero_is_true(source):
    values = np.array([0, 1, 2, 100], np.float32)

    stored = quants.encode(values, DTYPES[source])
    as_bool = quants.cast(stored, DTYPES[source], DTYPES["bool"], (4,))

    assert as_bool.tolist() == [0, 1, 1, 1]


def test_nan_is_true_and_negative_zero_is_false():
    assert quants.encode(np.array([math.nan, -0.0]), DTYPES["bool"]).tolist() == [1, 0]


def test_a_bool_byte_other_than_one_reads_as_true():
    stored = np.array([0, 1, 2, 255], np.uint8)

    assert quants.decode(stored, DTYPES["bool"], (4,)).tolist() == [0, 1, 1, 1]
    assert quants.cast(stored, DTYPES["bool"], DTYPES["i8"], (4,)).tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize("name", [*INTEGERS, *FLOATS])
def test_decode_gives_float32_of_stored_numbers(name):
    values = np.array([[0, 1, -2], [3, 100, -128]], np.float32)

    decoded = quants.decode(quants.encode(values, DTYPES[name]), DTYPES[name], (2, 3))

    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, values)
