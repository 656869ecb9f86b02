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


@pytest.fixture
def processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file tree that stands for /sys/devices/system/cpu; no group limits anything."""
    folder = tmp_path / "sys" / "devices" / "system" / "cpu"
    monkeypatch.setattr(host, "_CPUS", folder)
    monkeypatch.setattr(host, "_groups", lambda _: iter(()))
    monkeypatch.setattr(sys, "platform", "linux")
    return folder


def add_processors(folder: Path, siblings: list[str], capacities: list[int] | None = None) -> None:
    for number, listed in enumerate(siblings):
        topology = folder / f"cpu{number}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(listed + "\n")
        if capacities:
            (topology.parent / "cpu_capacity").write_text(f"{capacities[number]}\n")


def allow(monkeypatch: pytest.MonkeyPatch, threads: set[int]) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: threads, raising=False)


@pytest.mark.parametrize(("threads", "cores"), [({0, 4}, 1), ({0, 1}, 2), ({0, 1, 2, 4, 5}, 3)])
def test_hardware_threads_of_one_core_count_once(
    threads: set[int], cores: int, processors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_processors(processors, ["0,4", "1,5", "2,6", "3,7"] * 2)
    allow(monkeypatch, threads)
    assert (host.usable_cores(), host.usable_threads()) == (cores, len(threads))


def test_small_cores_are_left_out(processors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_processors(processors, ["0", "1", "2", "3"], [1024, 900, 400, 400])
    allow(monkeypatch, {0, 1, 2, 3})
    assert host.usable_cores() == 2
    allow(monkeypatch, {2, 3})
    assert host.usable_cores() == 2


def test_intel_s_small_cores_are_left_out(
    processors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_processors(processors, ["0-1", "0-1", "2", "3"])
    atoms = processors.parents[1] / "cpu_atom"
    atoms.mkdir()
    (atoms / "cpus").write_text("2-3\n")
    allow(monkeypatch, {0, 1, 2, 3})
    assert host.usable_cores() == 1


def test_cores_without_a_topology_are_counted_by_psutil(
    processors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 8 if logical else 4)
    allow(monkeypatch, {0, 1, 2, 3})
    assert not processors.exists()
    assert host.usable_cores() == 2


def test_cores_follow_the_quota(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = groups.parent / "cpu"
    monkeypatch.setattr(host, "_CPUS", folder)
    add_processors(folder, [str(n) for n in range(8)])
    allow(monkeypatch, set(range(8)))
    (groups / "a" / "cpu.max").write_text("300000 100000\n")
    assert host.usable_cores() == 3


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
