"""Models split over several files."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug import dtypes
from hotplug.errors import FormatError, UsageError
from hotplug.formats.gguf import GGUFFile, Typed, write
from hotplug.tensor import HostTensor, TensorType


def tensor(*values):
    return HostTensor(TensorType(dtypes.get("i8"), (len(values),)), np.array(values, np.uint8))


def split_keys(number, count, tensors):
    return {
        "split.no": Typed(number, "u16"),
        "split.count": Typed(count, "u16"),
        "split.tensors.count": Typed(tensors, "i32"),
    }


def shard(folder, number, count=3):
    return folder / f"model-{number:05d}-of-{count:05d}.gguf"


@pytest.fixture
def model(tmp_path):
    """Folder of a model in three files; the first has all metadata and no tensors."""
    write(shard(tmp_path, 1), {"name": "whole", **split_keys(0, 3, 3)}, {})
    write(shard(tmp_path, 2), split_keys(1, 3, 3), {"a": tensor(1), "b": tensor(2, 2)})
    write(shard(tmp_path, 3), split_keys(2, 3, 3), {"c": tensor(3, 3, 3)}, alignment=64)
    return tmp_path


def test_first_shard_opens_all(model):
    with GGUFFile.open(shard(model, 1)) as file:
        assert [path.name[6:11] for path in file.paths] == ["00001", "00002", "00003"]
        assert list(file.tensors) == ["a", "b", "c"]
        assert file.tensors["c"].path == shard(model, 3)
        assert [file.tensor(name).data.tolist() for name in "abc"] == [[1], [2, 2], [3, 3, 3]]
        assert dict(file.metadata) == {"name": "whole"}
        assert file.size == sum(path.stat().st_size for path in file.paths)


def test_shards_can_be_written_as_one_file(model):
    one = model / "one.gguf"
    with GGUFFile.open(shard(model, 1)) as file:
        write(one, file.metadata, {name: file.tensor(name) for name in file.tensors})
    with GGUFFile.open(one) as file:
        assert file.paths == (one,)
        assert list(file.tensors) == ["a", "b", "c"]


def test_later_shard_names_the_first(model):
    with pytest.raises(UsageError, match="is shard 2 of 3") as caught:
        GGUFFile.open(shard(model, 2))
    assert caught.value.remedy == "open model-00001-of-00003.gguf"


def test_missing_shard(model):
    shard(model, 3).unlink()
    with pytest.raises(UsageError, match=r"no file .*-00003-of-00003\.gguf"):
        GGUFFile.open(shard(model, 1))


def test_renamed_shard(model):
    renamed = shard(model, 1).rename(model / "renamed.gguf")
    with pytest.raises(FormatError, match="its name does not end") as caught:
        GGUFFile.open(renamed)
    assert "MODEL-00001-of-00003.gguf" in (caught.value.remedy or "")


def test_exchanged_shards(model):
    shard(model, 3).replace(shard(model, 2))
    write(shard(model, 3), split_keys(2, 3, 3), {})
    with pytest.raises(FormatError, match="this is not shard 2 of 3"):
        GGUFFile.open(shard(model, 1))


def test_tensor_in_two_shards(model):
    write(shard(model, 3), split_keys(2, 3, 3), {"b": tensor(9)})
    with pytest.raises(FormatError, match="tensor 'b' is in another shard too"):
        GGUFFile.open(shard(model, 1))


def test_tensor_in_no_shard(model):
    write(shard(model, 3), split_keys(2, 3, 3), {})
    with pytest.raises(FormatError, match="3 tensors are promised, and the shards hold 2"):
        GGUFFile.open(shard(model, 1))


def test_one_of_one_needs_no_name(tmp_path):
    path = tmp_path / "any.gguf"
    write(path, split_keys(0, 1, 1), {"a": tensor(1)})
    with GGUFFile.open(path) as file:
        assert list(file.tensors) == ["a"]
