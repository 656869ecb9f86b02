"""`hotplug gguf`, run as the command line runs it."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest

from hotplug import dtypes
from hotplug.cli.gguf import command
from hotplug.errors import FormatError, UsageError
from hotplug.formats.gguf import Typed, write
from hotplug.tensor import HostTensor, TensorType


def run(*words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(word) for word in words]))


def tensor(dtype, *shape):
    tensor_type = TensorType(dtypes.get(dtype), shape)
    return HostTensor(tensor_type, np.zeros(tensor_type.nbytes, np.uint8))


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.gguf"
    metadata = {
        "name": "tiny [bold]model[/bold]",
        "blocks": 3,
        "words": [f"word{i}" for i in range(20)],
        "grid": Typed([[1] * 9, [2]], "u8"),
        "odd": Typed([float("nan"), float("inf"), 1.0], "f64"),
        "evil": "\x1b[2Jgone",
    }
    write(path, metadata, {"w": tensor("q4_0", 2, 64), "b": tensor("f32", 5)})
    return path


def test_json(model, capsys):
    assert run(model, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["path"] == str(model)
    assert found["files"] == [str(model)]
    assert (found["version"], found["alignment"]) == (3, 32)
    assert found["size"] == model.stat().st_size
    assert found["parameters"] == 133
    assert found["dtypes"] == {
        "q4_0": {"tensors": 1, "parameters": 128, "nbytes": 72},
        "f32": {"tensors": 1, "parameters": 5, "nbytes": 20},
    }
    weights = found["tensors"][0]
    assert (weights["name"], weights["dtype"], weights["shape"]) == ("w", "q4_0", [2, 64])
    assert weights["nbytes"] == 72
    assert found["tensors"][1]["offset"] == weights["offset"] + 96


def test_json_metadata_is_cut(model, capsys):
    run(model, "--json")
    metadata = json.loads(capsys.readouterr().out)["metadata"]
    assert metadata["blocks"] == {"type": "u32", "value": 3}
    assert metadata["words"] == {
        "type": "array[str]",
        "length": 20,
        "complete": False,
        "value": [f"word{i}" for i in range(8)],
    }
    assert metadata["grid"]["value"] == [[1] * 8, [2]]
    assert metadata["odd"]["value"] == ["nan", "inf", 1.0]


def test_full_json_has_everything(model, capsys):
    run(model, "--json", "--full")
    metadata = json.loads(capsys.readouterr().out)["metadata"]
    assert metadata["words"]["value"] == [f"word{i}" for i in range(20)]
    assert metadata["words"]["complete"] is True
    assert metadata["grid"]["value"] == [[1] * 9, [2]]


def test_tables(model, capsys):
    assert run(model) == 0
    shown = capsys.readouterr().out
    assert "GGUF version 3" in shown
    assert "tiny [bold]model[/bold]" in shown
    assert "array[str]" in shown
    assert "20: word0, word1" in shown
    assert "word9" not in shown
    assert "2 x 64" in shown
    assert "133" in shown
    assert "4.50" in shown  # bits in a q4_0 weight


def test_full_tables_have_everything(model, capsys):
    run(model, "--full")
    assert "word19" in capsys.readouterr().out


def test_files_cannot_steer_the_terminal(model, capsys):
    run(model)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert r"\x1b[2Jgone" in shown


def test_file_without_tensors(tmp_path, capsys):
    path = tmp_path / "vocabulary.gguf"
    write(path, {"blocks": 3}, {})
    assert run(path) == 0
    assert "blocks" in capsys.readouterr().out


def test_errors_are_raised_for_the_command_line_to_show(tmp_path):
    with pytest.raises(UsageError):
        run(tmp_path / "absent.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"bad")
    with pytest.raises(FormatError):
        run(tmp_path / "bad.gguf", "--json")


def test_demo_model(demo_model, capsys):
    assert run(demo_model) == 0
    shown = capsys.readouterr().out
    assert "SmolLM" in shown
    assert "token_embd.weight" in shown
    assert "134,515,008" in shown
