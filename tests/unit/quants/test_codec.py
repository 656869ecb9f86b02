"""What decode, encode and cast take and refuse, whatever the format."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from hotplug import quants
from hotplug.dtypes import DTYPES
from hotplug.errors import DTypeError, UnsupportedDTypeError

READ_ONLY_FORMATS = (
    "iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s",
)  # fmt: skip
ENCODABLE = sorted(set(DTYPES) - set(READ_ONLY_FORMATS))


def test_every_dtype_is_decoded():
    for dtype in DTYPES.values():
        data = np.zeros(dtype.block_bytes, np.uint8)
        assert quants.decode(data, dtype, (dtype.block,)).shape == (dtype.block,)


def test_what_can_be_encoded():
    assert [n for n in sorted(DTYPES) if quants.can_encode(DTYPES[n])] == ENCODABLE


@pytest.mark.parametrize("name", READ_ONLY_FORMATS)
def test_a_format_that_is_only_read_says_what_to_do(name):
    values = np.zeros(256, np.float32)

    with pytest.raises(UnsupportedDTypeError, match=f"cannot encode {name}") as caught:
        quants.encode(values, DTYPES[name])

    assert "q8_0" in caught.value.remedy
    with pytest.raises(UnsupportedDTypeError, match="cannot encode"):
        quants.cast(values.view(np.uint8), DTYPES["f32"], DTYPES[name], (256,))


QUANTISED = [name for name in ENCODABLE if DTYPES[name].quantised]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", QUANTISED)
def test_quantised_formats_refuse_what_is_not_finite(name, value):
    values = np.zeros(256, np.float32)
    values[200] = value

    with pytest.raises(DTypeError, match="no NaN and no infinity"):
        quants.encode(values, DTYPES[name])


def test_a_float64_beyond_float32_is_refused_as_infinite():
    with pytest.raises(DTypeError, match="no NaN and no infinity"):
        quants.encode(np.full(32, 1e39), DTYPES["q8_0"])


@pytest.mark.parametrize("name", sorted(set(QUANTISED) - {"mxfp4", "nvfp4", "q8_k"}))
@pytest.mark.parametrize("magnitude", [3e9, 3e30])
def test_values_whose_scale_float16_cannot_hold_are_refused(name, magnitude):
    values = np.zeros(256, np.float32)
    values[::2] = magnitude

    with pytest.raises(DTypeError, match="are too large for the 16-bit scales"):
        quants.encode(values, DTYPES[name])


@pytest.mark.parametrize("name", [*QUANTISED, "iq1_s"])
def test_the_last_axis_must_hold_whole_blocks(name):
    dtype = DTYPES[name]
    shape = (dtype.block, 3)
    data = np.zeros(3 * dtype.block_bytes, np.uint8)

    with pytest.raises(DTypeError, match="along the last axis"):
        quants.decode(data, dtype, shape)
    with pytest.raises(DTypeError, match="along the last axis"):
        quants.decode(data, dtype, ())


def test_encode_and_cast_refuse_a_broken_last_axis():
    values = np.zeros((32, 3), np.float32)

    with pytest.raises(DTypeError, match="along the last axis"):
        quants.encode(values, DTYPES["q8_0"])
    with pytest.raises(DTypeError, match="along the last axis"):
        quants.cast(values.view(np.uint8).reshape(-1), DTYPES["f32"], DTYPES["q8_0"], (32, 3))


@pytest.mark.parametrize(
    "data", [np.zeros(33, np.uint8), np.zeros(68, np.uint8), np.zeros(34, np.int8)]
)
def test_the_number_and_kind_of_bytes_must_fit(data):
    with pytest.raises(DTypeError, match="34 bytes of uint8"):
        quants.decode(data, DTYPES["q8_0"], (32,))
    with pytest.raises(DTypeError, match="34 bytes of uint8"):
        quants.cast(data, DTYPES["q8_0"], DTYPES["f32"], (32,))


@pytest.mark.parametrize("values", [np.zeros(32, complex), np.array(["text"]), np.array([None])])
def test_only_real_numbers_are_encoded(values):
    with pytest.raises(DTypeError, match="no real numbers"):
        quants.encode(values, DTYPES["f32"])


@pytest.mark.parametrize("name", ENCODABLE)
@pytest.mark.parametrize("shape", [(0,), (0, 256), (3, 0), (2, 0, 256)])
def test_empty_tensors(name, shape):
    dtype = DTYPES[name]

    data = quants.encode(np.zeros(shape, np.float32), dtype)

    assert data.shape == (0,)
    assert quants.decode(data, dtype, shape).shape == shape
    assert quants.cast(data, dtype, DTYPES["f16"], shape).shape == (0,)


def test_a_scalar_of_a_plain_dtype():
    data = quants.encode(np.array(2.5, np.float32), DTYPES["f16"])

    decoded = quants.decode(data, DTYPES["f16"], ())

    assert decoded.shape == ()
    assert decoded == 2.5


@pytest.mark.parametrize("name", ENCODABLE)
def test_shape_strides_alignment_and_pieces_make_no_difference(name, monkeypatch):
    dtype = DTYPES[name]
    values = np.random.default_rng(3).integers(-9, 9, (4, 3, 512)).astype(np.float32)
    whole = quants.encode(values, dtype)
    decoded = quants.decode(whole, dtype, values.shape)

    strided = np.asfortranarray(values)
    np.testing.assert_array_equal(quants.encode(strided, dtype), whole)
    np.testing.assert_array_equal(quants.encode(values.reshape(12, 512), dtype), whole)

    shifted = np.concatenate([np.zeros(1, np.uint8), whole])[1:]
    shifted.flags.writeable = False
    np.testing.assert_array_equal(quants.decode(shifted, dtype, values.shape), decoded)

    monkeypatch.setattr("hotplug.quants.codec._PIECE", 256)
    np.testing.assert_array_equal(quants.encode(values, dtype), whole)
    np.testing.assert_array_equal(quants.decode(whole, dtype, values.shape), decoded)


def test_results_share_no_memory_with_what_was_given():
    values = np.ones(4, np.float32)
    data = values.view(np.uint8)
    f32 = DTYPES["f32"]

    for result in (
        quants.decode(data, f32, (4,)),
        quants.encode(values, f32),
        quants.cast(data, f32, f32, (4,)),
    ):
        assert not np.shares_memory(result, values)


@pytest.mark.parametrize("name", ["q4_1", "q4_k", "mxfp4", "tq1_0", "bf16"])
def test_temporaries_do_not_grow_with_the_tensor(name):
    dtype = DTYPES[name]
    elements = 1 << 22
    data = np.zeros(dtype.nbytes(elements), np.uint8)

    tracemalloc.start()
    try:
        quants.decode(data, dtype, (elements,))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak - 4 * elements < 4 * elements


@pytest.mark.parametrize("name", READ_ONLY_FORMATS)
def test_casting_to_the_same_dtype_copies_even_what_is_only_read(name):
    dtype = DTYPES[name]
    data = np.arange(dtype.block_bytes, dtype=np.uint8)

    np.testing.assert_array_equal(quants.cast(data, dtype, dtype, (dtype.block,)), data)


def test_cast_between_quantised_dtypes_decodes_and_encodes():
    values = np.random.default_rng(5).normal(size=(2, 64)).astype(np.float32)
    q8_0, q4_0 = DTYPES["q8_0"], DTYPES["q4_0"]
    data = quants.encode(values, q8_0)

    result = quants.cast(data, q8_0, q4_0, (2, 64))

    expected = quants.encode(quants.decode(data, q8_0, (2, 64)), q4_0)
    np.testing.assert_array_equal(result, expected)


def test_cast_from_a_quantised_dtype_may_refuse():
    record = np.zeros(34, np.uint8)
    record[:2] = np.array([np.inf], np.float16).view(np.uint8)
    record[2] = 1

    with pytest.raises(DTypeError, match="no NaN and no infinity"):
        quants.cast(record, DTYPES["q8_0"], DTYPES["q4_0"], (32,))
