"""Compiled kernels on disk: kept, found again, and never taken when they are not whole."""

from __future__ import annotations

import multiprocessing
import stat

import pytest

from hotplug.gpu.cache import BinaryCache

SOURCE = "__kernel void f() {}"


@pytest.fixture
def cache(tmp_path):
    return BinaryCache(tmp_path / "opencl", "device 1")


def test_what_is_put_is_got(cache):
    assert cache.get("f", SOURCE) is None
    cache.put("f", SOURCE, b"binary")
    assert cache.get("f", SOURCE) == b"binary"


def test_another_source_kernel_or_device_is_a_miss(cache):
    cache.put("f", SOURCE, b"binary")
    assert cache.get("f", SOURCE + " ") is None
    assert cache.get("g", SOURCE) is None
    assert BinaryCache(cache.directory, "device 2").get("f", SOURCE) is None


@pytest.mark.parametrize("damage", [b"", b"short", bytes(100)])
def test_a_damaged_file_is_a_miss_and_is_replaced(cache, damage):
    cache.put("f", SOURCE, b"binary")
    cache.path("f", SOURCE).write_bytes(damage)
    assert cache.get("f", SOURCE) is None
    cache.put("f", SOURCE, b"binary")
    assert cache.get("f", SOURCE) == b"binary"


def test_files_are_their_owner_s_alone(cache):
    cache.put("f", SOURCE, b"binary")
    path = cache.path("f", SOURCE)
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE(path.parent.stat().st_mode) & 0o077 == 0
    assert [other.name for other in path.parent.iterdir()] == [path.name]


def test_a_directory_that_cannot_be_made_keeps_nothing(tmp_path):
    (tmp_path / "opencl").write_text("in the way")
    cache = BinaryCache(tmp_path / "opencl", "device 1")
    cache.put("f", SOURCE, b"binary")
    assert cache.get("f", SOURCE) is None


def test_switched_off_it_keeps_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("HOTPLUG_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("HOTPLUG_CACHE", "off")
    cache = BinaryCache.open("opencl", "device 1")
    cache.put("f", SOURCE, b"binary")
    assert cache.get("f", SOURCE) is None
    assert list(tmp_path.iterdir()) == []


def write_and_read(directory):
    cache = BinaryCache(directory, "device 1")
    binary = bytes(range(256)) * 400
    for _ in range(20):
        cache.put("f", SOURCE, binary)
        if cache.get("f", SOURCE) != binary:
            return False
    return True


def test_many_processes_share_it(tmp_path):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert all(pool.map(write_and_read, [tmp_path / "opencl"] * 8))
