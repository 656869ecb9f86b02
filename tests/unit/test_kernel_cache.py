"""Compiled kernels on disk: bounded, and whole whatever other processes, disks and users do."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from hotplug import kernel_cache, sealed
from hotplug.kernel_cache import entries, evict

DAY = 86400
PROCESSES = 8


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("HOTPLUG_CACHE_DIR", str(tmp_path / "kernels"))
    monkeypatch.setattr(kernel_cache, "_evicted", {})
    return tmp_path / "kernels"


def place(kernel, backend="cpu"):
    return kernel_cache.path(kernel_cache.folder(backend), kernel, f"key of {kernel}", "o")


def keep(kernel, *, days=0.0, nbytes=100, backend="cpu"):
    """A kernel's file that was last used some days ago."""
    path = place(kernel, backend)
    sealed.write(path, bytes(nbytes - 32))
    used = time.time() - days * DAY
    os.utime(path, (used, used))
    return path


def names(root):
    return [entry.path.name.partition("-")[0] for entry in entries(root)]


def test_the_longest_unused_go_first_whatever_their_backend(root):
    keep("new", days=0)
    keep("older", days=3, backend="cuda")
    keep("oldest", days=4)
    keep("old", days=2, backend="opencl")
    evict(root, 399)
    assert set(names(root)) == {"new", "old", "older"}
    evict(root, 200)
    assert set(names(root)) == {"new", "old"}
    evict(root, 200)
    assert set(names(root)) == {"new", "old"}


def test_one_file_larger_than_the_bound_goes_too(root):
    keep("large", nbytes=1000)
    evict(root, 999)
    assert names(root) == []


def test_reading_counts_as_use_and_writes_once_a_day(root):
    read = keep("read", days=5)
    keep("unread", days=4)
    assert kernel_cache.read(read) is not None
    touched = read.stat().st_mtime_ns
    assert time.time() - touched / 1e9 < DAY
    assert kernel_cache.read(read) is not None
    assert read.stat().st_mtime_ns == touched
    evict(root, 100)
    assert names(root) == ["read"]


def test_times_to_come_are_no_use(root):
    future = keep("future", days=-300)
    keep("past", days=1)
    assert names(root) == ["future", "past"]
    evict(root, 100)
    assert names(root) == ["past"]
    future = keep("future", days=-300)
    kernel_cache.read(future)
    assert abs(time.time() - future.stat().st_mtime) < DAY


def test_writing_keeps_the_bound_and_looks_now_and_then_only(root, monkeypatch):
    monkeypatch.setenv("HOTPLUG_CACHE_BYTES", "250")
    keep("old", days=2)
    keep("older", days=3)
    kernel_cache.write(place("first"), bytes(68))
    assert set(names(root)) == {"first", "old"}
    kernel_cache.write(place("second"), bytes(68))
    assert set(names(root)) == {"first", "old", "second"}
    clock = time.monotonic
    monkeypatch.setattr(kernel_cache.time, "monotonic", lambda: clock() + 61)
    kernel_cache.write(place("third"), bytes(68))
    assert len(names(root)) == 2
    assert "old" not in names(root)


def test_what_a_dead_process_left_goes_after_a_day(root):
    folder = keep("add").parent
    for name, days in ((".new-abcd1234", 1.1), (".new-abcd_234", 0.5)):
        (folder / name).write_bytes(bytes(1000))
        used = time.time() - days * DAY
        os.utime(folder / name, (used, used))
    assert [entry.whole for entry in entries(root)] == [False, False, True]
    # What is being written counts for nothing: it may be another writer's copy of the same.
    evict(root, 100)
    assert [entry.path.name for entry in entries(root)][:-1] == [".new-abcd_234"]
    assert names(root)[-1] == "add"


def test_nothing_but_the_caches_files_is_seen_or_removed(root, tmp_path):
    folder = keep("add").parent
    digest = "0" * 32
    foreign = [
        root / f"add-{digest}.o",
        folder / "notes.txt",
        folder / f"add-{digest[1:]}.o",
        folder / f"add-{digest}.o.txt",
        folder / f"-{digest}.o",
        folder / ".new-",
        folder / "deep" / f"add-{digest}.o",
    ]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(1000))
    outside = tmp_path / "outside.o"
    outside.write_bytes(bytes(1000))
    (folder / f"link-{digest}.o").symlink_to(outside)
    (folder / f"folder-{digest}.o").mkdir()
    assert names(root) == ["add"]
    evict(root, 1)
    assert names(root) == []
    assert all(path.exists() for path in (*foreign, outside, folder / f"link-{digest}.o"))


def test_damaged_cut_and_foreign_entries_are_misses_and_are_replaced(root):
    path = place("add")
    other = place("mul")
    kernel_cache.write(path, b"code")
    kernel_cache.write(other, b"other code")
    whole = path.read_bytes()
    flipped = bytes([whole[0] ^ 1]) + whole[1:]
    for data in (whole[:-1], whole[:20], b"", flipped, b"\x7fELF" * 99, other.read_bytes()):
        path.write_bytes(data)
        assert kernel_cache.read(path) is None
        kernel_cache.write(path, b"code")
        assert kernel_cache.read(path) == b"code"


def test_a_folder_where_a_file_should_be_is_a_miss(root):
    path = place("add")
    path.mkdir(parents=True)
    kernel_cache.write(path, b"code")
    assert kernel_cache.read(path) is None
    assert list(entries(root)) == []


# --- full disks


def test_a_full_disk_keeps_nothing_and_leaves_nothing(root, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    old = keep("old")
    monkeypatch.setattr(Path, "replace", full)
    kernel_cache.write(place("add"), b"code")
    monkeypatch.setattr(tempfile, "mkstemp", full)
    kernel_cache.write(place("add"), b"code")
    assert kernel_cache.read(place("add")) is None
    assert [entry.name for entry in old.parent.iterdir()] == [old.name]


FILL = """
import os, sys
from hotplug import kernel_cache
large = kernel_cache.path(kernel_cache.folder("cpu"), "large", "", "o")
small = kernel_cache.path(kernel_cache.folder("cpu"), "small", "", "o")
kernel_cache.write(large, bytes(200_000))
kernel_cache.write(small, b"code")
print(kernel_cache.read(large) is None, kernel_cache.read(small), os.listdir(large.parent))
"""


def filled(root, *prefix, code=FILL):
    environment = {**os.environ, "HOTPLUG_CACHE_DIR": str(root)}
    return subprocess.run(
        [*prefix, sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_write_that_the_system_cuts_short(root):
    """A limit on the size of files acts like a disk that fills up in the midst of one."""
    pytest.importorskip("resource")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
    result = filled(root, code=limit + FILL)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("True b'code' ['small-")
    assert "," not in result.stdout  # no unfinished file


def test_a_real_full_disk(root):
    root.mkdir()
    mount = 'mount -t tmpfs -o size=64k none "$0" && exec "$@"'
    own = ("unshare", "--mount", "--map-root-user", "sh", "-c", mount, str(root))
    try:
        result = filled(root, *own, code="")
    except OSError:
        pytest.skip("no unshare here")
    if result.returncode:
        pytest.skip("mounting is not allowed")
    result = filled(root, *own)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("True b'code' ['small-")
    assert "," not in result.stdout  # no unfinished file


# --- directories that only may be read


def in_child(work):
    """Run work in a forked child, as nobody where this process is root; "done" or its error."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            work()
            os.write(writer, b"done")
        except Exception as error:  # noqa: BLE001 - told to the parent
            os.write(writer, repr(error).encode()[:4096])
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        answer = told.read().decode()
    os.waitpid(child, 0)
    return answer


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_directory_that_only_may_be_read_is_used(monkeypatch):
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        monkeypatch.setenv("HOTPLUG_CACHE_DIR", name)
        monkeypatch.setenv("HOTPLUG_CACHE_BYTES", "1")
        monkeypatch.setattr(kernel_cache, "_evicted", {})
        path = keep("old", days=9)
        path.chmod(0o644)
        path.parent.chmod(0o555)
        used = path.stat().st_mtime_ns

        def work():
            if os.access(path.parent, os.W_OK):
                raise PermissionError("not kept out")
            assert kernel_cache.read(path) == bytes(68)
            kernel_cache.write(place("new"), b"code")
            assert kernel_cache.read(place("new")) is None

        answer = in_child(work)
        left = [entry.name for entry in path.parent.iterdir()]
        after = path.stat().st_mtime_ns
        path.parent.chmod(0o755)
    if "not kept out" in answer:
        pytest.skip("this user writes everywhere")
    assert answer == "done"
    assert left == [path.name]
    assert os.geteuid() != 0 or after == used


# --- many processes

SHARED = """
import random, sys, time
from hotplug import kernel_cache
from hotplug.gpu.cache import BinaryCache

cache = BinaryCache.open("opencl", "device 1")
sys.stdin.readline()  # all begin at once
kernel_cache._BETWEEN_EVICTIONS = 0.0
numbers = random.Random(int(sys.argv[1]))
hits = 0
for turn in range(60):
    number = numbers.randrange(12)
    code = bytes([number]) * (9_000 + number)
    found = cache.get("add", str(number))
    if found is None:
        cache.put("add", str(number), code)
    else:
        hits += 1
        assert found == code
print(hits)
"""


def run_at_once(code):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    answers = [process.communicate("go\n", timeout=110) for process in processes]
    assert [process.returncode for process in processes] == [0] * PROCESSES, answers
    return [out for out, _ in answers]


def every_file_is_whole(root):
    found = list(entries(root))
    assert all(entry.whole for entry in found)  # and nothing half written was left
    assert all(sealed.read(entry.path) is not None for entry in found)
    return found


def test_processes_write_read_and_remove_at_once(root, monkeypatch):
    monkeypatch.setenv("HOTPLUG_CACHE_BYTES", "60000")  # of 108 thousand that they would keep
    answers = run_at_once(SHARED)
    assert sum(map(int, answers)) > 0
    every_file_is_whole(root)
    evict(root, 60_000)
    assert 0 < sum(entry.nbytes for entry in entries(root)) <= 60_000


def test_readers_see_whole_files_or_none_while_one_is_replaced(root):
    path = place("add")
    writer = (
        "import sys; from pathlib import Path; from hotplug import sealed\n"
        f"path = Path({str(path)!r}); print(flush=True)\n"
        "while True: sealed.write(path, bytes(300_000)); sealed.write(path, b'x' * 200_000)"
    )
    process = subprocess.Popen([sys.executable, "-c", writer], stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            seen = []
            while len(seen) < 500 or len(set(seen) - {None}) < 2:
                content = kernel_cache.read(path)
                seen.append(content and (len(content), content[:1]))
        finally:
            process.kill()
    assert set(seen) - {None} == {(300_000, b"\0"), (200_000, b"x")}


LOAD = """
import sys
from hotplug_cpu.jit import loader
sys.stdin.readline()
addresses = loader.load(["add", "quantise"])
assert all(addresses.values())
"""


@pytest.mark.slow
def test_processes_compile_the_same_kernels_into_a_cold_cache(root):
    run_at_once(LOAD)
    found = every_file_is_whole(root)
    assert sorted(names(root)) == ["add", "quantise"]
    warm = LOAD.replace("import sys", "import sys; sys.modules['numba'] = None", 1)
    written = [entry.path.stat().st_mtime_ns for entry in found]
    run_at_once(warm)
    assert [entry.path.stat().st_mtime_ns for entry in entries(root)] == written
