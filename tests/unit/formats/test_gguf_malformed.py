"""Broken files: each way to be broken has its own sentence, with the place in the file."""

from __future__ import annotations

import os
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from hotplug import dtypes
from hotplug.errors import FormatError, UsageError
from hotplug.formats.gguf import GGUFFile, Typed, write
from hotplug.tensor import HostTensor, TensorType

HUGE = (2**31, 2**32, 2**62, 2**63 - 9, 2**63 - 1, 2**63, 2**64 - 9, 2**64 - 1)


def text(value):
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def entry(key, type_number, body):
    return text(key) + struct.pack("<I", type_number) + body


def record(name="t", dims=(4,), type_number=0, offset=0, count=None):
    count = len(dims) if count is None else count
    packed = struct.pack(f"<I{len(dims)}QIQ", count, *dims, type_number, offset)
    return text(name) + packed


def document(entries=(), records=(), data=b"", version=3, counts=None):
    tensor_count, entry_count = counts or (len(records), len(entries))
    head = b"GGUF" + struct.pack("<IQQ", version, tensor_count, entry_count)
    head += b"".join(entries) + b"".join(records)
    return head + bytes(-len(head) % 32) + data


@pytest.fixture
def refuse(tmp_path):
    """Assert that bytes are refused with a FormatError that says `message`; return it."""

    def check(content, message):
        path = tmp_path / "bad.gguf"
        path.write_bytes(content)
        with pytest.raises(FormatError, match=message) as caught:
            GGUFFile.open(path)
        assert caught.value.path == str(path)
        assert str(path) in str(caught.value)
        return caught.value

    return check


def opens(tmp_path, content):
    path = tmp_path / "good.gguf"
    path.write_bytes(content)
    return GGUFFile.open(path)


def test_the_builder_builds_valid_files(tmp_path):
    content = document([entry("k", 4, struct.pack("<I", 5))], [record()], bytes(16))
    with opens(tmp_path, content) as file:
        assert file.metadata["k"] == 5
        assert file.tensor("t").shape == (4,)


def test_version_2_is_read(tmp_path):
    with opens(tmp_path, document(version=2)) as file:
        assert file.version == 2


def test_file_without_tensors_may_end_after_its_header(tmp_path):
    content = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + entry("k", 0, b"\5")
    with opens(tmp_path, content) as file:
        assert file.metadata["k"] == 5
        assert not file.tensors


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"\n<html>", "web page"),
        (struct.pack("<Q", 30) + b'{"a":{"dtype":"F32"}}', "safetensors"),
        (b'{"model": 1}', "JSON"),
        (pickle.dumps({"a": 1}), "pickle"),
        (b"\x1f\x8b\x08" + bytes(20), "gzip"),
        (b"tjgg" + bytes(20), "GGJT"),
        (bytes(1000), "zeros"),
        (b"something else", "this is no GGUF file$"),
        (b"G", "this is no GGUF file$"),
    ],
)
def test_other_formats_are_recognised(refuse, content, message):
    assert refuse(content, message).offset == 0


def test_pytorch_checkpoint_is_recognised(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"")
    with pytest.raises(FormatError, match="zip archive"):
        GGUFFile.open(path)


def test_version_1(refuse):
    assert "convert" in (refuse(document(version=1), "version 1").remedy or "")


@pytest.mark.parametrize("version", [0, 4, 2**31])
def test_unknown_versions(refuse, version):
    refuse(document(version=version), "version|big-endian")


def test_big_endian(refuse):
    content = b"GGUF" + struct.pack(">IQQ", 3, 0, 0)
    assert "convert" in (refuse(content, "big-endian").remedy or "")


def test_every_truncation_of_a_header(tmp_path, refuse):
    path = tmp_path / "whole.gguf"
    tensor = HostTensor(TensorType(dtypes.get("i8"), (2, 3)), np.zeros(6, np.uint8))
    metadata = {"n": 1, "s": "text", "b": True, "words": ["a", "b"], "x": [1.5], "g": [["a"], [1]]}
    write(path, metadata, {"t": tensor})
    with GGUFFile.open(path) as file:
        needed = file.tensors["t"].offset + 6
    whole = path.read_bytes()
    for size in range(1, needed):
        error = refuse(whole[:size], "no GGUF file|the file ends|cannot hold|has only")
        assert error.offset is not None
        assert error.offset <= size
    with opens(tmp_path, whole[:needed]) as file:
        assert file.tensor("t").nbytes == 6


@pytest.mark.parametrize("count", HUGE)
def test_huge_counts_and_lengths(refuse, count):
    size = struct.pack("<Q", count)
    refuse(document(counts=(count, 0)), "cannot hold .* tensors")
    refuse(document(counts=(0, count)), "cannot hold .* metadata entries")
    refuse(document([size + b"key"]), "metadata key has")
    refuse(document([entry("k", 8, size + b"text")]), "ends inside the value of metadata key 'k'")
    refuse(document(records=[size + b"name"], data=bytes(40)), "tensor's name has")
    for item_type in (0, 4, 7, 8, 9, 12):
        array = struct.pack("<I", item_type) + size
        refuse(document([entry("k", 9, array)], data=bytes(64)), "'k'")
    strings = struct.pack("<IQ", 8, 3) + text("a") + size + bytes(64)
    refuse(document([entry("k", 9, strings)]), "ends inside a string of the value")


def test_huge_counts_cost_no_memory(refuse):
    tracemalloc.start()
    try:
        for count in HUGE:
            array = struct.pack("<IQ", 4, count)
            refuse(document([entry("k", 9, array)]), "ends inside")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


def test_many_strings_in_a_large_file(tmp_path):
    """A sparse file that is all empty strings would take minutes to walk without a limit."""
    path = tmp_path / "sparse.gguf"
    count = 1 << 30
    path.write_bytes(document([entry("k", 9, struct.pack("<IQ", 8, count))], counts=(0, 1)))
    os.truncate(path, 8 * count + 4096)
    with pytest.raises(FormatError, match=f"cannot hold {count} strings"):
        GGUFFile.open(path)


@pytest.mark.parametrize("number", [13, 255, 2**32 - 1])
def test_unknown_value_types(refuse, number):
    refuse(document([entry("k", number, bytes(8))]), f"'k' has unknown type number {number}")
    array = struct.pack("<IQ", number, 1) + bytes(8)
    refuse(document([entry("k", 9, array)]), f"'k' has unknown type number {number}")


def test_nesting_is_limited(tmp_path, refuse):
    def nested(depth):
        outer = struct.pack("<IQ", 9, 1) * (depth - 1)
        return document([entry("k", 9, outer + struct.pack("<IQB", 0, 1, 7))])

    with opens(tmp_path, nested(4)) as file:
        assert file.metadata["k"][0][0][0].tolist() == [7]
    refuse(nested(5), "over 4 deep")
    refuse(nested(50_000), "over 4 deep")


def test_number_of_nested_arrays_is_limited(refuse):
    empty = struct.pack("<IQ", 0, 0)
    many = struct.pack("<IQ", 9, 70_000) + empty * 70_000
    refuse(document([entry("k", 9, many)]), "cannot hold 70000 arrays")


def test_bools(refuse):
    refuse(document([entry("k", 7, b"\2")]), "'k' has a bool that is neither 0 nor 1")
    array = struct.pack("<IQ", 7, 3) + b"\0\1\xff"
    error = refuse(document([entry("k", 9, array)]), "'k' has a bool that is neither 0 nor 1")
    assert error.offset == 24 + 9 + 4 + 12 + 2


def test_keys(refuse):
    one = entry("k", 0, b"\1")
    assert refuse(document([one, one]), "key 'k' occurs twice").offset == 24 + len(one)
    refuse(document([entry("", 0, b"\1")]), "metadata key has 0 bytes")
    refuse(document([entry("k" * 65536, 0, b"\1")]), "metadata key has 65536 bytes")
    refuse(document([entry(b"\xff", 0, b"\1")]), "metadata key is not valid UTF-8")


def test_tensor_names(refuse):
    data = bytes(64)
    refuse(document(records=[record(), record(offset=32)], data=data), "tensor 't' occurs twice")
    refuse(document(records=[record("")], data=data), "name has 0 bytes")
    refuse(document(records=[record("n" * 1025)], data=data), "name has 1025 bytes")
    refuse(document(records=[record(b"\xc3")], data=data), "name is not valid UTF-8")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dims": (1, 1, 1, 1, 1)}, "'t' has 5 dimensions; at most 4"),
        ({"count": 2**32 - 1}, "'t' has 4294967295 dimensions"),
        ({"dims": (4, 0)}, r"impossible shape \[0, 4\]"),
        ({"dims": (2**63,)}, "impossible shape"),
        ({"dims": (2**32, 2**31)}, "impossible shape"),
        ({"dims": (2**16, 2**16, 2**16, 2**16)}, "impossible shape"),
        ({"dims": (2**62, 2)}, "impossible shape"),
        ({"type_number": 4}, "'t' cannot be read: GGUF tensor type 4 is not known"),
        ({"type_number": 99}, "type 99"),
        ({"type_number": 2**32 - 1}, "type 4294967295"),
        ({"dims": (48,), "type_number": 2}, "q4_0 packs 32 elements"),
        ({"dims": (), "type_number": 2}, "q4_0 packs 32 elements"),
        ({"offset": 1}, "no multiple of the alignment 32"),
        ({"offset": 32}, "ends at byte .* but the file has only"),
        ({"offset": 2**63}, "ends at byte .* but the file has only"),
        ({"offset": 2**64 - 32}, "ends at byte .* but the file has only"),
        ({"dims": (5,)}, "ends at byte .* but the file has only"),
        ({"dims": (2**63 - 1,)}, "ends at byte .* but the file has only"),
    ],
)
def test_tensor_records(refuse, fields, message):
    refuse(document(records=[record(**fields)], data=bytes(16)), message)


@pytest.mark.parametrize("alignment", [0, 3, 48, 2**32 - 1])
def test_alignment_must_be_a_power_of_two(refuse, alignment):
    value = struct.pack("<I", alignment)
    refuse(document([entry("general.alignment", 4, value)]), "no power of two")


def test_alignment_must_be_u32(refuse):
    refuse(document([entry("general.alignment", 8, text("32"))]), "is str, not u32")
    refuse(document([entry("general.alignment", 10, struct.pack("<Q", 32))]), "is u64, not u32")


def test_small_alignment_is_read(tmp_path):
    entries = [entry("general.alignment", 4, struct.pack("<I", 1))]
    records = [record("t", (3,), 24, 0), record("u", (2,), 24, 3)]
    head = b"GGUF" + struct.pack("<IQQ", 3, 2, 1) + b"".join(entries + records)
    with opens(tmp_path, head + b"\1\2\3\4\5") as file:
        assert file.tensor("u").array().tolist() == [4, 5]


@pytest.mark.parametrize("key", ["split.count", "split.no"])
def test_split_keys_must_be_integers(refuse, key):
    refuse(document([entry(key, 8, text("two"))]), f"{key} is 'two', and an integer is needed")


def test_pipes_are_not_waited_for(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    path = tmp_path / "pipe.gguf"
    os.mkfifo(path)
    with pytest.raises(UsageError, match="no regular file"):
        GGUFFile.open(path)


def test_error_of_a_cut_file_says_what_to_do(tmp_path, refuse):
    path = tmp_path / "whole.gguf"
    write(path, {"words": Typed(["some", "words"], "str")}, {})
    assert "download" in (refuse(path.read_bytes()[:50], "ends inside").remedy or "")
