"""Files that are whole or not there."""

from __future__ import annotations

from pathlib import Path

from hotplug import sealed


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "kernel.o"
    assert sealed.read(path) is None
    sealed.write(path, b"code")
    assert sealed.read(path) == b"code"
    assert [entry.name for entry in path.parent.iterdir()] == ["kernel.o"]


def test_changed_cut_and_empty_files_count_as_absent(tmp_path: Path) -> None:
    path = tmp_path / "kernel.o"
    sealed.write(path, b"code")
    whole = path.read_bytes()
    for data in (whole[:-1], whole + b"x", whole[:10], b"", bytes(100)):
        path.write_bytes(data)
        assert sealed.read(path) is None


def test_a_file_under_another_name_counts_as_absent(tmp_path: Path) -> None:
    path = tmp_path / "matvec.o"
    sealed.write(path, b"code")
    path.rename(tmp_path / "matmul.o")
    assert sealed.read(tmp_path / "matmul.o") is None


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    sealed.write(tmp_path / "file" / "kernel.o", b"code")
    sealed.write(None, b"code")
    assert sealed.read(tmp_path / "file" / "kernel.o") is None
    assert sealed.read(None) is None
