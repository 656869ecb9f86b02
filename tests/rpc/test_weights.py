"""Weights by hash: sent once, checked, resumed, kept within bounds, shared and never read back."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys

import numpy as np
import psutil
import pytest
from tests.rpc.servers import in_thread

from hotplug.errors import OutOfDeviceMemoryError, UsageError
from hotplug.testing.fakes import FakeDevice
from hotplug_rpc.addresses import Address
from hotplug_rpc.contents import digest_of
from hotplug_rpc.errors import ContentError, KeyFileError, LimitError
from hotplug_rpc.keys import KeyRing
from hotplug_rpc.server import transfers, unfinished
from hotplug_rpc.server.build import Options, build
from hotplug_rpc.server.offers import Offer
from hotplug_rpc.server.weights import WeightStore

CLIENT = "c" * 64


def content(seed=0, nbytes=5000):
    return np.random.default_rng(seed).integers(0, 256, nbytes, np.uint8).tobytes()


@pytest.fixture
def offer():
    made = Offer(FakeDevice("fake:0", memory_bytes=1 << 20))
    yield made
    made.desk.close()


def put(store, data, client=CLIENT, step=1000):
    digest = digest_of(memoryview(data))
    at = store.expect(client, digest, len(data))
    for start in range(at, len(data), step):
        piece = memoryview(data)[start : start + step]
        store.receive(client, digest, len(data), start, piece)
    return digest


def read(shared):
    back = bytearray(shared.buffer.nbytes)
    shared.buffer.read(0, memoryview(back))
    return bytes(back)


@pytest.mark.parametrize("kept", [True, False])
def test_a_weight_comes_and_goes(tmp_path, offer, kept):
    store = WeightStore(tmp_path / "w" if kept else None)
    data = content()
    digest = digest_of(memoryview(data))
    assert store.acquire(offer, digest, len(data)) is None
    assert put(store, data) == digest
    one = store.acquire(offer, digest, len(data))
    assert read(one) == data
    assert store.acquire(offer, digest, len(data)) is one
    assert offer.taken == store.shared_bytes == len(data)
    for _ in range(2):
        store.release(one)
    assert offer.taken == store.shared_bytes == 0
    again = store.acquire(offer, digest, len(data))
    assert (again is not None) is kept
    assert (WeightStore(tmp_path / "w").acquire(offer, digest, len(data)) is not None) is kept


@pytest.mark.parametrize("kept", [True, False])
def test_a_wrong_length_is_no_match(tmp_path, offer, kept):
    store = WeightStore(tmp_path if kept else None)
    digest = put(store, content())
    assert store.acquire(offer, digest, 4999) is None
    assert offer.taken == 0
    assert store.acquire(offer, digest, 5000) is not None
    assert store.acquire(offer, digest, 4999) is None


def test_an_empty_weight_needs_no_sending(offer):
    store = WeightStore()
    assert store.acquire(offer, digest_of(memoryview(b"")), 0).buffer.nbytes == 0
    assert store.acquire(offer, "a" * 64, 0) is None


@pytest.mark.parametrize("kept", [True, False])
def test_wrong_bytes_are_dropped(tmp_path, offer, kept):
    store = WeightStore(tmp_path if kept else None)
    data = content()
    digest = digest_of(memoryview(data))
    store.expect(CLIENT, digest, 5000)
    with pytest.raises(ContentError, match="hash"):
        store.receive(CLIENT, digest, 5000, 0, memoryview(bytes(5000)))
    assert list(tmp_path.iterdir()) == []
    assert store.expect(CLIENT, digest, 5000) == 0
    assert store.outstanding(CLIENT) == 5000
    assert put(store, data) == digest
    assert store.acquire(offer, digest, 5000) is not None


def test_what_was_not_asked_for_and_gaps_are_refused(tmp_path):
    store = WeightStore(tmp_path)
    digest = digest_of(memoryview(content()))
    piece = memoryview(bytes(10))
    with pytest.raises(ContentError, match="asked"):
        store.receive(CLIENT, digest, 5000, 0, piece)
    store.expect(CLIENT, digest, 5000)
    for client, nbytes in ((CLIENT, 4000), ("d" * 64, 5000)):
        with pytest.raises(ContentError, match="asked"):
            store.receive(client, digest, nbytes, 0, piece)
    for offset in (1, 4999, 1 << 62):
        with pytest.raises(ContentError, match="go on"):
            store.receive(CLIENT, digest, 5000, offset, piece)


def test_a_transfer_goes_on_where_it_was(tmp_path, offer):
    data = content()
    digest = digest_of(memoryview(data))
    store = WeightStore(tmp_path)
    store.expect(CLIENT, digest, 5000)
    store.receive(CLIENT, digest, 5000, 0, memoryview(data)[:3000])
    store.forget_client(CLIENT)
    later = WeightStore(tmp_path)
    assert later.expect("d" * 64, digest, 5000) == 0  # another client's is its own
    assert later.expect(CLIENT, digest, 5000) == 3000
    later.receive(CLIENT, digest, 5000, 2000, memoryview(data)[2000:])  # some of it twice
    assert read(later.acquire(offer, digest, 5000)) == data


def begin(store, data, nbytes, client=CLIENT):
    digest = digest_of(memoryview(data))
    held = store.expect(client, digest, len(data))
    store.receive(client, digest, len(data), held, memoryview(data)[held:nbytes])
    return held


def test_servers_that_share_a_folder_do_not_spoil_each_other_s_transfers(tmp_path, offer):
    """As when a client sends one weight to two servers of a machine at once."""
    data = content()
    digest = digest_of(memoryview(data))
    one, two = WeightStore(tmp_path), WeightStore(tmp_path)
    assert begin(one, data, 2000) == 0
    assert begin(two, data, 1000) == 0
    for end in (3000, 5000):
        for store in (two, one):
            held = store.expect(CLIENT, digest, 5000)
            store.receive(CLIENT, digest, 5000, held, memoryview(data)[held:end])
    assert [path.name for path in tmp_path.iterdir()] == [digest]
    for store in (one, two, WeightStore(tmp_path)):
        shared = store.acquire(offer, digest, 5000)
        assert read(shared) == data
        store.release(shared)


@pytest.mark.skipif(sys.platform == "win32", reason="no locks that end with their process")
def test_a_file_that_was_finished_while_it_was_opened_is_left_alone(tmp_path, monkeypatch):
    """It has another name by now, under which others read it."""
    path, locked = tmp_path / "unfinished", unfinished._locked

    def finished(handle):
        path.rename(tmp_path / "finished")
        return locked(handle)

    monkeypatch.setattr(unfinished, "_locked", finished)
    assert unfinished.claim(path) is None
    monkeypatch.undo()
    with unfinished.claim(path) as file:
        assert unfinished.claim(path) is None
        assert os.path.samestat(os.fstat(file.fileno()), path.stat())


@pytest.mark.skipif(sys.platform == "win32", reason="no locks that end with their process")
def test_what_a_dead_server_left_is_gone_on_with(tmp_path, offer):
    data = content()
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from hotplug_rpc.server.weights import WeightStore\n"
        "store = WeightStore(Path(sys.argv[1]))\n"
        "store.expect(sys.argv[2], sys.argv[3], 5000)\n"
        "piece = memoryview(sys.stdin.buffer.read())\n"
        "store.receive(sys.argv[2], sys.argv[3], 5000, 0, piece)\n"
        "os._exit(9)"
    )
    digest = digest_of(memoryview(data))
    command = [sys.executable, "-c", program, str(tmp_path), CLIENT, digest]
    assert subprocess.run(command, input=data[:3000], check=False).returncode == 9
    store = WeightStore(tmp_path)
    assert begin(store, data, 5000) == 3000
    assert read(store.acquire(offer, digest, 5000)) == data


def test_a_whole_file_without_its_name_is_sent_again(tmp_path, offer):
    data = content()
    digest = digest_of(memoryview(data))
    (tmp_path / f".part-{digest}-{CLIENT[:16]}").write_bytes(data[:-1] + b"!")
    store = WeightStore(tmp_path)
    assert store.expect(CLIENT, digest, 5000) == 0
    put(store, data)
    assert read(store.acquire(offer, digest, 5000)) == data


def test_unfinished_files_count_against_the_bound(tmp_path):
    store = WeightStore(tmp_path, most_bytes=12_000)
    for seed in range(6):
        begin(store, content(seed), 4900)
        store.forget_client(CLIENT)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 12_000


def test_a_cache_that_is_too_small_for_a_model_still_serves_it(tmp_path, offer):
    store = WeightStore(tmp_path, most_bytes=12_000)
    contents = [content(seed) for seed in range(5)]
    for data in contents:
        put(store, data)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 12_000
    for data in contents:
        assert read(store.acquire(offer, digest_of(memoryview(data)), 5000)) == data


def test_few_files_are_open_however_many_weights_are_begun(tmp_path, monkeypatch, offer):
    monkeypatch.setattr(transfers, "_MOST_OPEN", 2)
    store = WeightStore(tmp_path)
    contents = [content(seed) for seed in range(5)]
    before = psutil.Process().num_fds() if hasattr(psutil.Process(), "num_fds") else 0
    for data in contents:
        begin(store, data, 2000)
    if before:
        assert psutil.Process().num_fds() <= before + 2
    for data in contents:
        digest = digest_of(memoryview(data))
        store.receive(CLIENT, digest, 5000, 2000, memoryview(data)[2000:])
        assert read(store.acquire(offer, digest, 5000)) == data


def test_no_more_is_expected_than_can_be_kept_in_mind(monkeypatch):
    monkeypatch.setattr(transfers, "_MOST_EXPECTED", 3)
    store = WeightStore()
    for seed in range(3):
        store.expect(CLIENT, digest_of(memoryview(content(seed))), 5000)
    with pytest.raises(LimitError):
        store.expect(CLIENT, "a" * 64, 5000)
    assert store.expect("d" * 64, "a" * 64, 5000) == 0


def test_a_file_that_was_changed_counts_as_missing(tmp_path, offer):
    store = WeightStore(tmp_path)
    data = content()
    digest = put(store, data)
    (tmp_path / digest).write_bytes(data[:-1] + b"!")
    fresh = WeightStore(tmp_path)
    assert fresh.acquire(offer, digest, 5000) is None
    assert not (tmp_path / digest).exists()
    (tmp_path / digest).write_bytes(data[:100])
    assert fresh.acquire(offer, digest, 5000) is None


def test_the_cache_is_bounded(tmp_path, offer):
    store = WeightStore(tmp_path, most_bytes=12_000)
    digests = []
    for seed in range(4):
        digests.append(put(store, content(seed)))
        store.forget_client(CLIENT)
        if seed < 3:
            os.utime(tmp_path / digests[-1], (seed, seed))
    assert {path.name for path in tmp_path.iterdir()} == set(digests[2:])
    large = content(9, 13_000)
    digest = put(store, large)
    assert not (tmp_path / digest).exists()
    assert read(store.acquire(offer, digest, 13_000)) == large


def test_servers_that_share_a_folder_share_its_bound(tmp_path, offer):
    """Each finds out about the others' files after a few of its own."""
    stores = [WeightStore(tmp_path, 60_000) for _ in range(3)]
    largest = 0
    for seed in range(60):
        put(stores[seed % 3], content(seed, 1500))
        stores[seed % 3].forget_client(CLIENT)
        largest = max(largest, sum(path.stat().st_size for path in tmp_path.iterdir()))
    assert 30_000 < largest <= 60_000 + 3 * 1500


def test_a_bound_that_has_become_smaller_holds_at_once(tmp_path):
    store = WeightStore(tmp_path)
    for seed in range(4):
        put(store, content(seed))
    store.forget_client(CLIENT)
    WeightStore(tmp_path, 12_000)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_keeps_weights_in_memory(tmp_path, offer, monkeypatch):
    store = WeightStore(tmp_path)
    data = content()
    write, calls = transfers._write_at, []

    def full(file, offset, piece):
        calls.append(offset)
        if offset >= 2000:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, offset, piece)

    monkeypatch.setattr(transfers, "_write_at", full)
    digest = put(store, data)
    assert calls == [0, 1000, 2000]
    assert list(tmp_path.iterdir()) == []
    assert read(store.acquire(offer, digest, 5000)) == data


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "getuid"), reason="no modes")
@pytest.mark.skipif(os.name != "posix", reason="modes say nothing there")
def test_a_folder_that_others_can_write_to_is_refused(tmp_path):
    """They could change a weight after its hash was compared."""
    folder = tmp_path / "weights"
    folder.mkdir()
    folder.chmod(0o770)
    options = Options(bind=Address("127.0.0.1", 0), cache=folder)
    with pytest.raises(KeyFileError, match="others can write") as caught:
        build(options, [], KeyRing())
    assert "chmod go-w" in caught.value.remedy
    folder.rmdir()
    with in_thread([FakeDevice("fake:0")], options):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_written(tmp_path, offer):
    (tmp_path / "file").write_text("in the way")
    store = WeightStore(tmp_path / "file" / "inside")
    data = content()
    assert read(store.acquire(offer, put(store, data), 5000)) == data


def test_no_room_is_told_before_anything_is_sent(tmp_path, connect):
    options = Options(bind=Address("127.0.0.1", 0), budget=4000, cache=tmp_path)
    with in_thread([FakeDevice("fake:0")], options) as server:
        device = connect(f"{server.address.server}/fake:0")
        with pytest.raises(OutOfDeviceMemoryError):
            device.buffers.wrap(memoryview(content()))
        assert server.service.metrics.get("requests_total", 'kind="content"') == 0


def test_what_is_sent_and_not_used_is_bounded(connect):
    """Without a cache it lies in memory; a client cannot fill that by never using it."""
    from hotplug_rpc.requests import Content, Weights

    options = Options(bind=Address("127.0.0.1", 0), budget=12_000)
    with in_thread([FakeDevice("fake:0")], options) as server:
        device = connect(f"{server.address.server}/fake:0")
        for seed in range(2):
            data = content(seed)
            digest = digest_of(memoryview(data))
            device.ask(Weights(0, [(100 + seed, digest, 5000)]))
            device.connection.request(Content(digest, 5000, 0), [data])
        with pytest.raises(OutOfDeviceMemoryError):
            device.ask(Weights(0, [(102, "a" * 64, 5000)]))
        device.ask(Weights(0, [(102, "a" * 64, 2000)]))
        assert device.buffers.wrap(memoryview(content(0))) is not None  # was sent before
        assert server.service.shared.weights.outstanding(server.key.hex()) == 5000 + 2000


def test_clients_share_weights_and_cannot_read_them(tmp_path, connect):
    data = memoryview(content())
    options = Options(bind=Address("127.0.0.1", 0), cache=tmp_path)
    with in_thread([FakeDevice("fake:0")], options) as server:
        device = connect(f"{server.address.server}/fake:0")
        one, two = device.buffers.wrap_all([data, data])
        assert server.service.shared.offers[0].taken == 5000
        assert device.buffers.wrap(memoryview(bytearray(8))) is None  # may be changed
        back = bytearray(5000)
        one.read(0, memoryview(back))  # from this side's memory
        assert back == data
        other = device.buffers.allocate(5000)
        for call in (
            lambda: two.write(0, memoryview(b"x")),
            lambda: device.ask(_read_of(device, two)),
        ):
            with pytest.raises(UsageError):
                call()
        other.copy_from(one)
        other.read(0, memoryview(back))
        assert back == data
        for buffer in (one, two, other):
            buffer.free()
        device.memory()
        assert server.service.shared.offers[0].taken == 0


def _read_of(device, buffer):
    from hotplug_rpc.requests import Read

    return Read(device.position, buffer.handle, 0, 8)
