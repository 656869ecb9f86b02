"""Opening files: what is handed out, and for how long it stays valid."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotplug import dtypes
from hotplug.errors import FormatError, ModelError, UsageError
from hotplug.formats.gguf import GGUFFile, NestedArray, StringArray, Typed, strings, write
from hotplug.tensor import HostTensor, TensorType

WEIGHTS = np.arange(12, dtype="<f4").reshape(3, 4)


def host(array):
    names = {"<f4": "f32", "<f2": "f16", "|i1": "i8", "<i4": "i32"}
    tensor_type = TensorType(dtypes.get(names[array.dtype.str]), array.shape)
    return HostTensor(tensor_type, np.frombuffer(array.tobytes(), np.uint8))


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.gguf"
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "llama.epsilon": Typed(0.5, "f64"),
        "flag": True,
        "words": ["a", "", "über", "😀"],
        "ids": [3, -1, 2],
        "flags": [True, False],
        "grid": [[1, 2], [3]],
        "text.grid": [["a"], ["b", "c"]],
    }
    write(path, metadata, {"w": host(WEIGHTS), "s": host(np.array(7, "<i4"))})
    return path


def test_scalars_have_python_types(model):
    with GGUFFile.open(model) as file:
        assert file.metadata["general.architecture"] == "llama"
        assert file.metadata["llama.block_count"] == 2
        assert file.metadata["llama.epsilon"] == 0.5
        assert file.metadata["flag"] is True
        assert list(file.metadata) == [
            "general.architecture",
            "llama.block_count",
            "llama.epsilon",
            "flag",
            "words",
            "ids",
            "flags",
            "grid",
            "text.grid",
        ]


def test_metadata_names_its_types(model):
    with GGUFFile.open(model) as file:
        names = {key: file.metadata.type_name(key) for key in file.metadata}
    assert names == {
        "general.architecture": "str",
        "llama.block_count": "u32",
        "llama.epsilon": "f64",
        "flag": "bool",
        "words": "array[str]",
        "ids": "array[i32]",
        "flags": "array[bool]",
        "grid": "array[array]",
        "text.grid": "array[array]",
    }


def test_string_array_is_a_sequence(model):
    with GGUFFile.open(model) as file:
        words = file.metadata["words"]
    assert isinstance(words, StringArray)
    assert len(words) == 4
    assert list(words) == ["a", "", "über", "😀"]
    assert [words[i] for i in range(-4, 4)] == ["a", "", "über", "😀"] * 2
    assert words[1:3] == ["", "über"]
    assert words[::-1] == ["😀", "über", "", "a"]
    assert words.raw(2) == "über".encode()
    assert words.raws() == [b"a", b"", "über".encode(), "😀".encode()]
    assert "über" in words
    assert words.index("😀") == 3
    for index in (4, -5):
        with pytest.raises(IndexError, match="4 strings"):
            words[index]


@given(st.lists(st.binary(max_size=12) | st.sampled_from([b"x" * 255, b"y" * 256, b"z" * 700])))
def test_any_strings(words):
    data = b"".join(len(word).to_bytes(8, "little") + word for word in words)
    array = StringArray(memoryview(data), len(words))
    assert array.raws() == words
    assert list(array) == [word.decode("utf-8", "replace") for word in words]
    assert [array.raw(index) for index in range(len(words))] == words


@given(
    st.lists(st.integers(0, 20) | st.sampled_from([255, 256, 2**16, 2**63])), st.integers(0, 400)
)
def test_where_strings_lie(sizes, cut):
    """Few at once here, so that there are several steps, and ends that the data does not reach."""
    data = b"".join(size.to_bytes(8, "little") + bytes(min(size, 300)) for size in sizes)
    data = memoryview(b"head" + data[: len(data) - cut] if cut < len(data) else b"head")
    bounds = [4]
    for size in sizes:
        bounds.append(bounds[-1] + 8 + size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strings, "_AT_ONCE", 3)
        if bounds[-1] <= len(data):
            assert strings.string_bounds(data, 4, len(sizes)).tolist() == bounds
        else:
            with pytest.raises(ValueError, match="beyond"):
                strings.string_bounds(data, 4, len(sizes))


def test_strings_that_are_no_utf8_stay_readable(tmp_path):
    path = tmp_path / "latin.gguf"
    write(path, {"name": b"caf\xe9", "tokens": [b"\xff", b"ok"]}, {})
    with GGUFFile.open(path) as file:
        assert file.metadata["name"] == "caf\ufffd"
        tokens = file.metadata["tokens"]
        assert list(tokens) == ["\ufffd", "ok"]
        assert tokens.raw(0) == b"\xff"


def test_number_arrays_are_read_only_views(model):
    with GGUFFile.open(model) as file:
        ids, flags = file.metadata["ids"], file.metadata["flags"]
    np.testing.assert_array_equal(ids, [3, -1, 2])
    assert ids.dtype == np.int32
    assert flags.dtype == np.bool_
    assert flags.tolist() == [True, False]
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 1


def test_nested_arrays(model):
    with GGUFFile.open(model) as file:
        grid, texts = file.metadata["grid"], file.metadata["text.grid"]
    assert isinstance(grid, NestedArray)
    assert [row.tolist() for row in grid] == [[1, 2], [3]]
    assert [list(row) for row in texts] == [["a"], ["b", "c"]]
    assert len(texts) == 2


@pytest.mark.parametrize("name", ["str", "u8", "bool", "f64"])
def test_empty_arrays(tmp_path, name):
    path = tmp_path / "empty.gguf"
    write(path, {"empty": Typed([], name)}, {})
    with GGUFFile.open(path) as file:
        assert list(file.metadata["empty"]) == []
        assert file.metadata.type_name("empty") == f"array[{name}]"


def test_tensors_are_views_of_the_file(model):
    with GGUFFile.open(model) as file:
        info = file.tensors["w"]
        weights = file.tensor("w")
        scalar = file.tensor("s")
    assert str(info.type) == "f32[3, 4]"
    assert info.nbytes == 48
    assert info.path == model
    assert model.read_bytes()[info.offset : info.offset + 48] == WEIGHTS.tobytes()
    np.testing.assert_array_equal(weights.array(), WEIGHTS)
    assert scalar.array() == 7
    assert scalar.shape == ()
    with pytest.raises(ValueError, match="read-only"):
        weights.data[0] = 1


def test_file_describes_itself(model):
    with GGUFFile.open(str(model)) as file:
        assert (file.path, file.paths) == (model, (model,))
        assert (file.version, file.alignment) == (3, 32)
        assert file.size == model.stat().st_size
        assert file.data_offset == file.tensors["w"].offset
        assert list(file.tensors) == ["w", "s"]
        assert "2 tensors" in repr(file)
        assert file.fields("llama.").require("block_count", int) == 2
    assert "closed" in repr(file)


def test_what_was_handed_out_survives_closing(model):
    file = GGUFFile.open(model)
    weights, words, ids = file.tensor("w"), file.metadata["words"], file.metadata["ids"]
    file.close()
    file.close()
    del file
    gc.collect()
    np.testing.assert_array_equal(weights.array(), WEIGHTS)
    assert words[2] == "über"
    assert ids.sum() == 4


def test_closed_file_hands_out_nothing(model):
    with GGUFFile.open(model) as file:
        pass
    assert file.closed
    with pytest.raises(UsageError, match="is closed"):
        file.tensor("w")
    with pytest.raises(UsageError, match="is closed"):
        _ = file.metadata


def test_unknown_tensor(model):
    with GGUFFile.open(model) as file, pytest.raises(ModelError, match="no tensor 'x'") as caught:
        file.tensor("x")
    assert caught.value.key == "x"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the maps of the process")
def test_mapping_ends_with_the_last_array(model):
    def mapped():
        return str(model) in Path("/proc/self/maps").read_text()

    with GGUFFile.open(model) as file:
        weights = file.tensor("w")
    assert mapped()
    del weights
    assert not mapped()


def test_missing_file(tmp_path):
    with pytest.raises(UsageError, match="there is no file"):
        GGUFFile.open(tmp_path / "absent.gguf")


def test_directory(tmp_path):
    with pytest.raises(UsageError, match="is a directory"):
        GGUFFile.open(tmp_path)


def test_path_with_a_null(tmp_path):
    with pytest.raises(UsageError, match="cannot be opened"):
        GGUFFile.open(f"{tmp_path}/a\0b")


def test_empty_file(tmp_path):
    path = tmp_path / "empty.gguf"
    path.touch()
    with pytest.raises(FormatError, match="is empty") as caught:
        GGUFFile.open(path)
    assert caught.value.path == str(path)


def test_demo_model(demo_model):
    with GGUFFile.open(demo_model) as file:
        fields = file.fields(file.fields().require("general.architecture", str) + ".")
        tokens = file.metadata["tokenizer.ggml.tokens"]
        assert fields.require("block_count", int) == 30
        assert fields.require("embedding_length", int) == 576
        assert len(tokens) == fields.require("vocab_size", int)
        assert tokens[1] == "<|im_start|>"
        assert len(file.tensors) == 272
        assert str(file.tensors["token_embd.weight"].type) == "q8_0[49152, 576]"
        last = max(file.tensors.values(), key=lambda info: info.offset)
        assert last.offset + last.nbytes <= file.size
