"""What the command line says to input that is wrong: one sentence, exit code 2, cheaply."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hotplug.cli import main
from hotplug.dtypes import get
from hotplug.formats.gguf import GGUFFile, Typed, write
from hotplug.tensor import HostTensor, TensorType

MEMORY_LIMIT = 200 << 20
RunMeasured = Callable[[list[str]], tuple[int, str, int, int]]
VOCABULARY = ["<unk>", "<s>", "</s>", *"abcdefghij"]
TINY: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.context_length": 16,
    "llama.embedding_length": 32,
    "llama.block_count": 1,
    "llama.feed_forward_length": 64,
    "llama.attention.head_count": 2,
    "llama.attention.head_count_kv": 1,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.dimension_count": 16,
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": VOCABULARY,
    "tokenizer.ggml.scores": [0.0] * len(VOCABULARY),
    "tokenizer.ggml.token_type": [2, 3, 3, *[1] * 10],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
}
SHAPES = {
    "token_embd.weight": (13, 32),
    "output_norm.weight": (32,),
    "blk.0.attn_norm.weight": (32,),
    "blk.0.attn_q.weight": (32, 32),
    "blk.0.attn_k.weight": (16, 32),
    "blk.0.attn_v.weight": (16, 32),
    "blk.0.attn_output.weight": (32, 32),
    "blk.0.ffn_norm.weight": (32,),
    "blk.0.ffn_gate.weight": (64, 32),
    "blk.0.ffn_up.weight": (64, 32),
    "blk.0.ffn_down.weight": (32, 64),
}


def tiny_model(
    path: Path, shapes: dict[str, tuple[int, ...]] | None = None, **changes: Any
) -> Path:
    """A model of a few thousand weights; a change to None leaves a key out."""
    metadata = {**TINY, **{key.replace("__", "."): value for key, value in changes.items()}}
    tensors = {}
    for name, shape in (shapes or SHAPES).items():
        kind = TensorType(get("f32"), shape)
        tensors[name] = HostTensor(kind, np.full(kind.size, 0.01, np.float32).view(np.uint8))
    write(path, {key: value for key, value in metadata.items() if value is not None}, tensors)
    return path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What `hotplug` says to standard error; checks form and exit code."""
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert code == 2, err
    assert out == ""
    check_sentence(err)
    return err


def check_sentence(text: str) -> None:
    assert text.startswith("hotplug")
    assert "Traceback" not in text
    assert len(text.strip().splitlines()) <= 2  # the sentence, and what can be done
    assert len(text) < 700


def test_the_tiny_model_is_a_good_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tiny_model(tmp_path / "tiny.gguf")
    assert main(["generate", "-m", str(path), "--raw", "abc", "-n", "2", "--temperature", "0"]) == 0


def damaged(tmp_path: Path, case: str) -> Path:
    path = tmp_path / "model.gguf"
    if case == "missing":
        return path
    if case == "directory":
        path.mkdir()
    elif case == "empty":
        path.touch()
    elif case == "magic":
        path.write_bytes(b"GGML" + bytes(100))
    elif case == "counts":
        path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**63 - 1, 2**63 - 1) + bytes(64))
    elif case == "lengths":
        head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
        path.write_bytes(head + struct.pack("<Q", 2**63 - 1) + bytes(64))
    elif case in {"offset", "misaligned", "dtype"}:
        patch_first_tensor(tiny_model(path), case)
    return path


def patch_first_tensor(path: Path, case: str) -> None:
    """Change the record of token_embd.weight: name, u32 rank, u64 dims, u32 type, u64 offset."""
    content = bytearray(path.read_bytes())
    at = content.index(b"token_embd.weight") + len("token_embd.weight")
    kind, offset = at + 4 + 16, at + 4 + 16 + 4
    if case == "dtype":
        struct.pack_into("<I", content, kind, 4711)
    else:
        struct.pack_into("<Q", content, offset, 1 << 40 if case == "offset" else 3)
    path.write_bytes(content)


DAMAGES = {
    "missing": "no such file|does not exist|there is no",
    "directory": "directory",
    "empty": "empty",
    "magic": "GGUF",
    "counts": "",
    "lengths": "",
    "offset": "token_embd",
    "misaligned": "token_embd",
    "dtype": "4711",
}


@pytest.mark.parametrize(
    "command", [["generate", "hello", "-m"], ["gguf"], ["tokenize", "hello", "-m"]]
)
@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str, command: list[str]
) -> None:
    path = damaged(tmp_path, case)
    message = refused(capsys, *command, path)
    assert path.name in message
    assert any(word in message for word in DAMAGES[case].split("|")), message


def test_a_model_without_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert "-m needs the name of a file" in refused(capsys, "generate", "hello", "-m", "")


def test_an_instruction_set_that_there_is_not(
    tmp_path: Path, run_measured: RunMeasured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other devices could take over, but what was set is wrong."""
    monkeypatch.setenv("HOTPLUG_CPU_ISA", "mmx")
    for command in (["devices"], ["generate", "abc", "--raw", "-m", str(tmp_path / "tiny.gguf")]):
        tiny_model(tmp_path / "tiny.gguf")
        code, text, *_ = run_measured(command)
        assert code == 2
        check_sentence(text)
        assert "HOTPLUG_CPU_ISA='mmx'" in text


def test_truncated_at_two_hundred_places(
    demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the places are in the header, which is less than a fiftieth of the file."""
    path = tmp_path / "short.gguf"
    shutil.copyfile(demo_model, path)
    size = demo_model.stat().st_size
    with GGUFFile.open(demo_model) as file:
        header = min(info.offset for info in file.tensors.values())
    places = [header * n // 100 for n in range(100)]
    places += [header + (size - header) * n // 100 for n in range(100)]
    for place in sorted(places, reverse=True):
        os.truncate(path, place)
        assert path.name in refused(capsys, "generate", "hello", "-m", path)


METADATA: dict[str, list[Any]] = {
    "general.architecture": ["no_such_architecture", 5, None, ""],
    "llama.context_length": [None, "many", -1, 0, 1.5],
    "llama.embedding_length": [None, 0, 33, 2**40],
    "llama.block_count": [None, 0, 2, 2**40],
    "llama.attention.head_count": [None, 0, 3, [2, 2]],
    "llama.attention.head_count_kv": [0, 5, "one"],
    "llama.attention.layer_norm_rms_epsilon": [None, "small", -1.0, float("nan")],
    "llama.feed_forward_length": [None, 63],
    "llama.rope.dimension_count": [15, 17, 0, "all"],
    "llama.rope.freq_base": ["x", 0.0, float("inf")],
    "tokenizer.ggml.model": [None, "unheard_of", 7],
    "tokenizer.ggml.tokens": [None, Typed([], "str"), [1, 2, 3], VOCABULARY * 2],
    "tokenizer.ggml.token_type": [[1], "normal"],
    "tokenizer.ggml.bos_token_id": [99, "first"],
}


@pytest.mark.parametrize("key", METADATA)
def test_missing_and_mistyped_metadata(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    for value in METADATA[key]:
        path = tiny_model(tmp_path / "bad.gguf", **{key.replace(".", "__"): value})
        message = refused(capsys, "generate", "abc", "--raw", "-n", "1", "-m", path)
        assert key in message or "tensor" in message or "embedding" in message, (value, message)


def test_missing_extra_and_misshapen_tensors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for changes in (
        {"blk.0.ffn_up.weight": None},
        {"blk.0.ffn_up.weight": (64, 16)},
        {"blk.0.attn_q.weight": (32,)},
        {"blk.0.mystery.weight": (4,)},
    ):
        shapes = {n: s for n, s in {**SHAPES, **changes}.items() if s is not None}
        path = tiny_model(tmp_path / "bad.gguf", shapes)
        message = refused(capsys, "generate", "abc", "--raw", "-m", path)
        assert next(iter(changes)) in message


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--device", "cuda:7"], "cuda"),
        (["--device", "cpu:99"], "cpu:0"),
        (["--device", "no such thing"], "no such thing"),
        (["--device", "cpu:"], "cpu:"),
        (["--context", "999999"], "999999"),
        (["--context", "0"], "0"),
        (["--max-tokens", "0"], "0"),
        (["--timeout", "0"], "above 0"),
        (["--timeout", "1e-6"], "not done within 1e-06 s"),
        (["--temperature", "-1"], "temperature"),
        (["--temperature", "nan"], "temperature"),
        (["--top-p", "2"], "top_p"),
        (["--threads", "0"], "threads"),
        (["--threads", "-3"], "threads"),
        (["--threads", "5000"], "256"),
        (["--chicken"], "--chicken"),
        (["--precision", "best"], "best"),
        (["--raw", "a" * 40], "context"),
    ],
)
def test_options_out_of_range(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], word: str
) -> None:
    path = tiny_model(tmp_path / "tiny.gguf")
    prompt = [] if arguments[0] == "--raw" else ["--raw", "abc"]
    assert word in refused(capsys, "generate", "-m", path, *prompt, *arguments)


def test_control_characters_of_a_file_do_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = "{{ raise_exception('\x1b[31mred') }}"
    path = tiny_model(tmp_path / "tiny.gguf", tokenizer__chat_template=template)
    message = refused(capsys, "generate", "-m", path, "abc")
    assert "\x1b" not in message
    assert "\\x1b[31mred" in message


def test_empty_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tiny_model(tmp_path / "tiny.gguf", tokenizer__ggml__add_bos_token=False)
    assert "empty" in refused(capsys, "generate", "-m", path, "--raw", "")


@pytest.mark.parametrize("case", DAMAGES)
def test_as_a_process(tmp_path: Path, case: str, run_measured: RunMeasured) -> None:
    """The same from outside, with the memory it took."""
    path = damaged(tmp_path, case)
    code, text, peak, _ = run_measured(["generate", "hello", "-m", str(path)])
    assert code == 2
    check_sentence(text)
    assert peak < MEMORY_LIMIT


# A process begins with the peak of the one it was forked from, which is large in a test run: a
# small one stands in between.
