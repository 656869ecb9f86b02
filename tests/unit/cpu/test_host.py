"""What the machine, and a container, let this process use."""

import sys
from pathlib import Path

import psutil
import pytest

from hotplug_cpu import host


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file tree that stands for the control groups of a process in the group /a/b."""
    folder = tmp_path / "cgroup"
    (folder / "a" / "b").mkdir(parents=True)
    listing = tmp_path / "self"
    listing.write_text("0::/a/b\n")
    real = host._text
    monkeypatch.setattr(host, "_GROUPS", folder)
    monkeypatch.setattr(
        host, "_text", lambda path: real(listing if path == Path("/proc/self/cgroup") else path)
    )
    return folder


def test_processor_has_a_name() -> None:
    assert host.processor_name()


def test_linux_name_comes_from_the_first_processor() -> None:
    text = "processor : 0\nmodel name\t: Fast  CPU @ 3 GHz\n\nmodel name : Other\n"
    assert host._linux_name(text) == "Fast CPU @ 3 GHz"
    assert host._linux_name("") == ""


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")
def test_threads_follow_the_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 2, 5})
    monkeypatch.setattr(host, "_groups", lambda _: iter(()))
    assert host.usable_threads() == 3


@pytest.mark.parametrize(
    ("quota", "threads"), [("max 100000", 8), ("250000 100000", 2), ("10000 100000", 1)]
)
def test_threads_follow_the_quota_of_any_group_above(
    quota: str, threads: int, groups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    (groups / "a" / "cpu.max").write_text(quota + "\n")
    assert host.usable_threads() == threads


def test_memory_is_the_system_s_without_a_limit(groups: Path) -> None:
    (groups / "a" / "b" / "memory.max").write_text("max\n")
    assert host.memory().total == psutil.virtual_memory().total


def test_memory_follows_the_container_s_limit(groups: Path) -> None:
    folder = groups / "a" / "b"
    (folder / "memory.max").write_text("1000\n")
    (folder / "memory.current").write_text("700\n")
    (folder / "memory.stat").write_text("anon 300\ninactive_file 200\n")
    found = host.memory()
    assert (found.total, found.free) == (1000, 500)
