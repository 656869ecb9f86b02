"""Writing: which types values get, what is refused, and that a file is whole or absent."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from hotplug import dtypes
from hotplug.errors import UsageError
from hotplug.formats.gguf import GGUFFile, Typed, write
from hotplug.tensor import HostTensor, TensorType


def tensor(dtype, shape, fill=1):
    tensor_type = TensorType(dtypes.get(dtype), shape)
    return HostTensor(tensor_type, np.full(tensor_type.nbytes, fill, np.uint8))


def type_written(tmp_path, value):
    path = tmp_path / "value.gguf"
    write(path, {"key": value}, {})
    with GGUFFile.open(path) as file:
        return file.metadata.type_name("key")


def value_written(tmp_path, value):
    path = tmp_path / "value.gguf"
    write(path, {"key": value}, {})
    with GGUFFile.open(path) as file:
        found = file.metadata["key"]
    return found.tolist() if isinstance(found, np.ndarray) else found


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, "bool"),
        (0, "u32"),
        (2**32 - 1, "u32"),
        (-1, "i32"),
        (2**32, "u64"),
        (2**64 - 1, "u64"),
        (-(2**31) - 1, "i64"),
        (1.5, "f32"),
        ("text", "str"),
        (b"bytes", "str"),
        (np.uint16(3), "u16"),
        (np.float64(3), "f64"),
        (np.bool_(True), "bool"),
        ([True], "array[bool]"),
        ((1, -2), "array[i32]"),
        ([2**31], "array[u32]"),
        ([2**31, -1], "array[i64]"),
        ([2**63], "array[u64]"),
        ([1, 2.5], "array[f32]"),
        (["a"], "array[str]"),
        (np.array([1], np.int8), "array[i8]"),
        (np.array([1], ">u2"), "array[u16]"),
        ([np.int64(5)], "array[i32]"),
        ([["a"], [1]], "array[array]"),
        (Typed(3, "u8"), "u8"),
        (Typed(3, "f64"), "f64"),
        (Typed([3], "i16"), "array[i16]"),
        (Typed([], "str"), "array[str]"),
        (Typed(np.array([3]), "u8"), "array[u8]"),
    ],
)
def test_type_of_a_value(tmp_path, value, expected):
    assert type_written(tmp_path, value) == expected


@pytest.mark.parametrize("name", ["u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64"])
def test_integers_up_to_their_limits(tmp_path, name):
    bits = int(name[1:])
    low, high = (0, 2**bits - 1) if name[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    assert value_written(tmp_path, Typed([low, high], name)) == [low, high]
    assert value_written(tmp_path, Typed(low, name)) == low
    assert value_written(tmp_path, Typed(high, name)) == high
    for outside in (low - 1, high + 1):
        with pytest.raises(UsageError, match=f"metadata key key: the value does not fit {name}"):
            write(tmp_path / "no.gguf", {"key": Typed(outside, name)}, {})


def test_big_endian_arrays_are_swapped(tmp_path):
    assert value_written(tmp_path, np.array([1, 256], ">u2")) == [1, 256]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "no type for NoneType"),
        (2**64, "no integer type"),
        ([], "empty array"),
        ([1, "a"], "mixes values"),
        ([1, True], "mixes bools"),
        ([[1], 2], "both arrays and scalars"),
        ([[[[[1]]]]], "nest over 4"),
        ("\ud800", "UTF-8"),
        (np.zeros((2, 2)), "not one axis"),
        (np.zeros(2, complex), "no type for NumPy's complex128"),
        (np.datetime64("2020"), "no type"),
        (Typed(1, "u24"), "no GGUF value type 'u24'"),
        (Typed([1], "array"), "that of its elements"),
        (Typed(1.5, "u8"), "1.5 cannot be written as u8"),
        (Typed(True, "u8"), "True cannot be written as u8"),
        (Typed(1, "bool"), "1 cannot be written as bool"),
        (Typed(1, "str"), "1 cannot be written as str"),
        (Typed("a", "u8"), "'a' cannot be written as u8"),
        (Typed(1e300, "f32"), "does not fit f32"),
    ],
)
def test_values_that_the_format_cannot_hold(tmp_path, value, message):
    path = tmp_path / "no.gguf"
    with pytest.raises(UsageError, match=message) as caught:
        write(path, {"some.key": value}, {})
    assert "some.key" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_every_dtype_of_the_format(tmp_path):
    path = tmp_path / "all.gguf"
    rows = [row for row in dtypes.DTYPES.values() if row.gguf_id is not None]
    tensors = {row.name: tensor(row.name, (3, row.block * 2), n) for n, row in enumerate(rows)}
    write(path, {}, tensors)
    with GGUFFile.open(path) as file:
        assert list(file.tensors) == list(tensors)
        for name, expected in tensors.items():
            found = file.tensor(name)
            assert found.type == expected.type
            np.testing.assert_array_equal(found.data, expected.data)


@pytest.mark.parametrize("shape", [(), (5,), (1, 2), (2, 3, 4), (2, 1, 3, 4)])
def test_shapes(tmp_path, shape):
    path = tmp_path / "shape.gguf"
    write(path, {}, {"t": tensor("f16", shape)})
    with GGUFFile.open(path) as file:
        assert file.tensor("t").shape == shape


@pytest.mark.parametrize("alignment", [8, 32, 64, 4096])
def test_alignment(tmp_path, alignment):
    path = tmp_path / "aligned.gguf"
    write(path, {}, {"a": tensor("i8", (3,)), "b": tensor("i8", (5,), 2)}, alignment=alignment)
    with GGUFFile.open(path) as file:
        assert file.alignment == alignment
        assert [info.offset % alignment for info in file.tensors.values()] == [0, 0]
        assert file.tensor("b").data.tolist() == [2] * 5
        assert ("general.alignment" in file.metadata) == (alignment != 32)
    assert path.stat().st_size % alignment == 0


def test_alignment_of_the_metadata(tmp_path):
    path = tmp_path / "aligned.gguf"
    write(path, {"general.alignment": 128}, {})
    with GGUFFile.open(path) as file:
        assert file.alignment == 128
        assert file.metadata.type_name("general.alignment") == "u32"
    with pytest.raises(UsageError, match="alignment is 64, but general"):
        write(path, {"general.alignment": 128}, {}, alignment=64)


@pytest.mark.parametrize("alignment", [0, 4, 24, -32, "32"])
def test_bad_alignment(tmp_path, alignment):
    with pytest.raises(UsageError, match="power of two"):
        write(tmp_path / "no.gguf", {"general.alignment": alignment}, {})


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"x" * 64: tensor("f32", (1,))}, "tensor name"),
        ({"": tensor("f32", (1,))}, "tensor name"),
        ({"t": tensor("bool", (1,))}, "the format has no bool"),
        ({"t": tensor("f32", (1, 1, 1, 1, 1))}, "over 4 axes"),
        ({"t": tensor("f32", (0,))}, "length of 0"),
    ],
)
def test_tensors_that_the_format_cannot_hold(tmp_path, tensors, message):
    with pytest.raises(UsageError, match=message):
        write(tmp_path / "no.gguf", {}, tensors)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["", "k" * 65536])
def test_bad_keys(tmp_path, key):
    with pytest.raises(UsageError, match="metadata key"):
        write(tmp_path / "no.gguf", {key: 1}, {})


def test_metadata_of_an_open_file_is_copied_exactly(tmp_path):
    path, copy = tmp_path / "model.gguf", tmp_path / "copy.gguf"
    metadata = {"a": Typed(1, "u8"), "b": Typed([1.5], "f64"), "c": [b"\xff"], "d": [["x"], [1]]}
    write(path, metadata, {"t": tensor("q4_0", (2, 64))}, alignment=64)
    with GGUFFile.open(path) as file:
        write(copy, file.metadata, {name: file.tensor(name) for name in file.tensors})
    assert copy.read_bytes() == path.read_bytes()


def test_one_value_changed_in_a_copy(tmp_path):
    path, copy = tmp_path / "model.gguf", tmp_path / "copy.gguf"
    write(path, {"a": Typed(1, "u8"), "b": "old", "words": ["x", "y"]}, {})
    with GGUFFile.open(path) as file:
        kept = {key: file.metadata.encoded(key) for key in file.metadata}
        write(copy, kept | {"b": "new", "words": file.metadata["words"]}, {})
    with GGUFFile.open(copy) as file:
        assert file.metadata.type_name("a") == "u8"
        assert file.metadata["b"] == "new"
        assert list(file.metadata["words"]) == ["x", "y"]


def test_a_file_can_replace_itself(tmp_path):
    path = tmp_path / "model.gguf"
    write(path, {}, {"t": tensor("i8", (3,), 7)})
    with GGUFFile.open(path) as file:
        old = file.tensor("t")
    write(path, {"n": 1}, {"t": old, "u": old})
    assert old.data.tolist() == [7] * 3
    with GGUFFile.open(path) as file:
        assert file.tensor("u").data.tolist() == [7] * 3


class Failing(dict[str, HostTensor]):
    """Tensors of which the second cannot be produced when its data is wanted."""

    def values(self):
        first, *_ = super().values()
        yield first
        raise RuntimeError("conversion failed")


def test_nothing_is_left_of_a_write_that_failed(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"what was there")
    with pytest.raises(RuntimeError, match="conversion failed"):
        write(path, {}, Failing(a=tensor("i8", (3,)), b=tensor("i8", (3,))))
    assert path.read_bytes() == b"what was there"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="cannot be written"):
        write(tmp_path / "absent" / "model.gguf", {}, {})


def test_the_bytes_of_a_small_file(tmp_path):
    """The layout, spelled out against the specification."""
    path = tmp_path / "small.gguf"
    write(path, {"k": Typed(258, "u16")}, {"t": tensor("i8", (2, 3), 9)})
    head = (
        b"GGUF"
        + struct.pack("<IQQ", 3, 1, 1)
        + struct.pack("<Q1sIH", 1, b"k", 2, 258)
        + struct.pack("<Q1sIQQIQ", 1, b"t", 2, 3, 2, 24, 0)
    )
    expected = head + bytes(-len(head) % 32) + b"\x09" * 6 + bytes(26)
    assert path.read_bytes() == expected
