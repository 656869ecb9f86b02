"""Typed access to metadata, on plain dicts and on files."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug.errors import ModelError
from hotplug.formats.gguf import Fields, GGUFFile, write

METADATA = {
    "general.architecture": "llama",
    "llama.block_count": 30,
    "llama.rope.freq_base": 10000.0,
    "llama.flag": True,
    "llama.heads": [4, 4, 2],
    "llama.scales": np.array([0.5, 1.5], np.float32),
    "llama.bools": np.array([True, False]),
    "llama.numpy": np.uint32(7),
    "words": ["a", "b"],
    "none": [],
}


@pytest.fixture(params=["dict", "file"])
def fields(request, tmp_path):
    if request.param == "dict":
        return Fields(METADATA, source="model.gguf")
    path = tmp_path / "model.gguf"
    write(path, {key: value for key, value in METADATA.items() if key != "none"}, {})
    return GGUFFile.open(path).fields()


def test_scalars(fields):
    assert fields.require("general.architecture", str) == "llama"
    assert fields.require("llama.block_count", int) == 30
    assert fields.require("llama.flag", bool) is True
    number = fields.require("llama.numpy", int)
    assert number == 7
    assert type(number) is int


def test_integers_do_for_floats(fields):
    base = fields.require("llama.block_count", float)
    assert base == 30.0
    assert type(base) is float


def test_prefixes(fields):
    llama = fields.within("llama.")
    assert llama.require("block_count", int) == 30
    assert llama.within("rope.").require("freq_base", float) == 10000.0
    assert "block_count" in llama
    assert "general.architecture" not in llama


def test_defaults(fields):
    assert fields.get("llama.block_count", int, 1) == 30
    assert fields.get("llama.absent", int, 1) == 1
    assert fields.get("llama.absent", str, None) is None
    assert fields.get_array("absent", int, None) is None
    assert list(fields.get_array("words", str, None)) == ["a", "b"]


def test_arrays(fields):
    assert fields.require_array("llama.heads", int) == [4, 4, 2]
    assert fields.require_array("llama.heads", float) == [4.0, 4.0, 2.0]
    assert fields.require_array("llama.scales", float) == [0.5, 1.5]
    assert fields.require_array("llama.bools", bool) == [True, False]
    assert list(fields.require_array("words", str)) == ["a", "b"]


def test_empty_array_is_of_every_kind():
    fields = Fields(METADATA)
    assert [fields.require_array("none", kind) for kind in (bool, int, float, str)] == [[]] * 4


def test_per_layer(fields):
    assert fields.per_layer("llama.heads", int, 3) == [4, 4, 2]
    assert fields.per_layer("llama.block_count", int, 3) == [30] * 3
    assert fields.per_layer("absent", int, 2, default=5) == [5, 5]
    with pytest.raises(ModelError, match="holds 3 values for 4 layers"):
        fields.per_layer("llama.heads", int, 4)
    with pytest.raises(ModelError, match="absent is missing"):
        fields.per_layer("absent", int, 4)


@pytest.mark.parametrize(
    ("key", "kind", "message"),
    [
        ("absent", int, "metadata key llama.absent is missing, and an integer is needed"),
        ("flag", int, "llama.flag is True, and an integer is needed"),
        ("flag", float, "llama.flag is True, and a number is needed"),
        ("block_count", bool, "llama.block_count is 30, and a bool is needed"),
        ("block_count", str, "llama.block_count is 30, and a string is needed"),
        ("rope.freq_base", int, "is 10000.0, and an integer is needed"),
        ("heads", int, "is an array of 3, and an integer is needed"),
    ],
)
def test_scalars_that_are_wrong(fields, key, kind, message):
    with pytest.raises(ModelError, match=message) as caught:
        fields.within("llama.").require(key, kind)
    assert caught.value.key == f"llama.{key}"
    assert "model.gguf" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "kind", "message"),
    [
        ("absent", int, "is missing, and an array of integers is needed"),
        ("llama.block_count", int, "is 30, and an array of integers is needed"),
        ("general.architecture", str, "is 'llama', and an array of strings is needed"),
        ("llama.scales", int, "has 0.5 in it, and an array of integers is needed"),
        ("llama.bools", int, "has True in it, and an array of integers is needed"),
        ("llama.heads", str, "has 4 in it, and an array of strings is needed"),
        ("words", int, "has 'a' in it, and an array of integers is needed"),
    ],
)
def test_arrays_that_are_wrong(fields, key, kind, message):
    with pytest.raises(ModelError, match=message) as caught:
        fields.require_array(key, kind)
    assert caught.value.key == key


def test_a_default_does_not_excuse_a_wrong_kind(fields):
    with pytest.raises(ModelError, match="an integer is needed"):
        fields.get("general.architecture", int, 3)


def test_long_values_are_cut_in_messages():
    with pytest.raises(ModelError) as caught:
        Fields({"k": "x" * 10_000}).require("k", int)
    assert len(str(caught.value)) < 150


def test_arrays_of_strings_stay_lazy(tmp_path):
    path = tmp_path / "model.gguf"
    write(path, {"tokens": ["a", "b"]}, {})
    with GGUFFile.open(path) as file:
        assert file.fields().require_array("tokens", str) is file.metadata["tokens"]
