"""The `gguf` package of llama.cpp as a second opinion, both ways."""

from __future__ import annotations

import hashlib

import gguf
import numpy as np
import pytest
from gguf.constants import GGUFValueType

from hotplug import dtypes
from hotplug.formats.gguf import GGUFFile, Typed, write
from hotplug.tensor import HostTensor, TensorType

NUMBERS = ("u8", "i8", "u16", "i16", "u32", "i32", "f32", "u64", "i64", "f64")
THEIR_TYPES = {
    "u8": GGUFValueType.UINT8,
    "i8": GGUFValueType.INT8,
    "u16": GGUFValueType.UINT16,
    "i16": GGUFValueType.INT16,
    "u32": GGUFValueType.UINT32,
    "i32": GGUFValueType.INT32,
    "f32": GGUFValueType.FLOAT32,
    "u64": GGUFValueType.UINT64,
    "i64": GGUFValueType.INT64,
    "f64": GGUFValueType.FLOAT64,
    "bool": GGUFValueType.BOOL,
    "str": GGUFValueType.STRING,
}
METADATA = {
    "general.architecture": Typed("test", "str"),
    **{f"one.{name}": Typed(100, name) for name in NUMBERS},
    **{f"many.{name}": Typed([1, 2, 100], name) for name in NUMBERS},
    "one.bool": Typed(True, "bool"),
    "many.bool": Typed([True, False], "bool"),
    "many.str": Typed(["", "é", "日本"], "str"),
}


def plain(value):
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value if isinstance(value, bool | int | float | str) else list(value)


def random_tensors():
    generator = np.random.default_rng(5)
    # Their Python table gives Q8_1 blocks of 40 bytes; in ggml's C, where they live, they have 36.
    known = set(gguf.GGMLQuantizationType) - {gguf.GGMLQuantizationType.Q8_1}
    rows = [row for row in dtypes.DTYPES.values() if row.gguf_id in known]
    tensors = {}
    for row in rows:
        tensor_type = TensorType(row, (2, 3, row.block * 2))
        raw = generator.integers(0, 256, tensor_type.nbytes, np.uint8)
        tensors[f"t.{row.name}"] = HostTensor(tensor_type, raw)
    return tensors


@pytest.mark.parametrize("alignment", [32, 64])
def test_they_read_what_we_write(tmp_path, alignment):
    path = tmp_path / "ours.gguf"
    tensors = random_tensors()
    write(path, METADATA, tensors, alignment=alignment)

    theirs = gguf.GGUFReader(path)

    for key, typed in METADATA.items():
        field = theirs.get_field(key)
        assert field.contents() == typed.value
        assert field.types[-1] == THEIR_TYPES[typed.type]
    assert theirs.alignment == alignment
    assert len(theirs.tensors) == len(tensors)
    for found in theirs.tensors:
        expected = tensors[found.name]
        assert found.tensor_type == expected.dtype.gguf_id
        assert tuple(found.shape[::-1]) == expected.shape
        assert found.data.tobytes() == expected.data.tobytes()


def test_we_read_what_they_write(tmp_path):
    path = tmp_path / "theirs.gguf"
    tensors = random_tensors()
    theirs = gguf.GGUFWriter(path, "test")
    for key, typed in METADATA.items():
        if key == "general.architecture":
            continue
        if isinstance(typed.value, list):
            theirs.add_key_value(key, typed.value, GGUFValueType.ARRAY, THEIR_TYPES[typed.type])
        else:
            theirs.add_key_value(key, typed.value, THEIR_TYPES[typed.type])
    for name, tensor in tensors.items():
        rows = tensor.data.reshape(2, 3, -1)
        theirs.add_tensor(name, rows, raw_dtype=gguf.GGMLQuantizationType(tensor.dtype.gguf_id))
    theirs.write_header_to_file()
    theirs.write_kv_data_to_file()
    theirs.write_tensors_to_file()
    theirs.close()

    with GGUFFile.open(path) as file:
        assert {key: plain(value) for key, value in file.metadata.items()} == {
            key: typed.value for key, typed in METADATA.items()
        }
        for key, typed in METADATA.items():
            many = isinstance(typed.value, list)
            assert file.metadata.type_name(key) == (f"array[{typed.type}]" if many else typed.type)
        assert list(file.tensors) == list(tensors)
        for name, expected in tensors.items():
            found = file.tensor(name)
            assert found.type == expected.type
            np.testing.assert_array_equal(found.data, expected.data)


def test_we_read_the_shards_they_write(tmp_path):
    theirs = gguf.GGUFWriter(tmp_path / "model.gguf", "test", split_max_tensors=2)
    for index in range(5):
        theirs.add_tensor(f"t{index}", np.full(4, index, np.float32))
    theirs.write_header_to_file()
    theirs.write_kv_data_to_file()
    theirs.write_tensors_to_file()
    theirs.close()

    with GGUFFile.open(tmp_path / "model-00001-of-00003.gguf") as file:
        assert len(file.paths) == 3
        assert file.metadata["general.architecture"] == "test"
        sums = [file.tensor(f"t{index}").array().sum() for index in range(5)]
    assert sums == [0, 4, 8, 12, 16]


def test_demo_model_reads_the_same(demo_model):
    theirs = gguf.GGUFReader(demo_model)
    with GGUFFile.open(demo_model) as file:
        keys = [key for key in theirs.fields if not key.startswith("GGUF.")]
        assert keys == list(file.metadata)
        for key in keys:
            assert plain(file.metadata[key]) == theirs.get_field(key).contents()
        assert [found.name for found in theirs.tensors] == list(file.tensors)
        for expected in theirs.tensors:
            found = file.tensor(expected.name)
            assert found.dtype.gguf_id == expected.tensor_type
            assert found.shape == tuple(expected.shape[::-1])
            assert file.tensors[expected.name].offset == expected.data_offset
            assert hashlib.sha256(found.data).digest() == hashlib.sha256(expected.data).digest()


def test_demo_model_is_written_byte_for_byte(demo_model, tmp_path):
    copy = tmp_path / "copy.gguf"
    with GGUFFile.open(demo_model) as file:
        write(copy, file.metadata, {name: file.tensor(name) for name in file.tensors})
    digests = []
    for path in (demo_model, copy):
        with path.open("rb") as opened:
            digests.append(hashlib.file_digest(opened, "sha256").digest())
    assert digests[0] == digests[1]
