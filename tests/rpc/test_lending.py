"""Files that are lent to a server on the same machine, and hashes that are kept beside files."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from tests.rpc.servers import in_thread

from hotplug.formats.mapping import map_file, origin_of
from hotplug.testing.fakes import FakeDevice
from hotplug_rpc.addresses import Address
from hotplug_rpc.client import hashes, lending
from hotplug_rpc.contents import digest_of
from hotplug_rpc.errors import ContentError, SessionError
from hotplug_rpc.requests import Lend, Weights
from hotplug_rpc.server.build import Options
from hotplug_rpc.server.lent import Lent
from hotplug_rpc.server.offers import Offer
from hotplug_rpc.server.weights import WeightStore

needs_descriptors = pytest.mark.skipif(
    not hasattr(socket, "send_fds"), reason="no descriptors through sockets here"
)
PARTS = ((100, 5000), (6000, 1 << 20), (2_000_000, 0), (2_000_000, 3))


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOTPLUG_CACHE_DIR", str(tmp_path / "cache"))
    made = tmp_path / "model.bin"
    made.write_bytes(np.random.default_rng(1).integers(0, 256, 2_000_003, np.uint8).tobytes())
    return made


def parts(path):
    data = map_file(path)
    return [data[at : at + nbytes].data for at, nbytes in PARTS]


def read(device, buffer):
    """What the server's device holds, by a run that does nothing to it."""
    from hotplug import ops
    from hotplug.backend import Partition
    from hotplug.graph import Graph

    count = buffer.nbytes
    graph = Graph.build(
        {"y": ops.add(ops.weight(name="w", dtype="i8", shape=(count,)),
                      ops.input(name="x", dtype="i8", shape=(count,)))}
    )  # fmt: skip
    bindings = {"w": buffer, **{n: device.buffers.allocate(count) for n in ("x", "output:y")}}
    device.compile(Partition(graph)).run(bindings)
    back = bytearray(count)
    bindings["output:y"].read(0, memoryview(back))
    return bytes(back)


def hashed(data, advance):
    """As by a process of its own."""
    own = hashes.Hashes()
    found = own.of(data, advance)
    own.keep()
    return found


def sent(server):
    return server.service.metrics.get("requests_total", 'kind="content"')


def serving(tmp_path):
    options = Options(bind=Address("127.0.0.1", 0), cache=tmp_path / "weights")
    return in_thread([FakeDevice("fake:0")], options)


@needs_descriptors
@pytest.mark.parametrize("kept", [True, False])
def test_a_file_is_lent_and_not_sent(path, tmp_path, connect, kept):
    options = Options(bind=Address("127.0.0.1", 0), cache=tmp_path / "w" if kept else None)
    with in_thread([FakeDevice("fake:0")], options) as server:
        device = connect(f"{server.address.server}/fake:0")
        data = parts(path)
        before = psutil.Process().num_fds()
        buffers = device.buffers.wrap_all(data)
        assert sent(server) == 0
        assert read(device, buffers[0]) == bytes(data[0])
        assert read(device, buffers[3]) == bytes(data[3])
        if not kept:
            until = time.monotonic() + 10
            while psutil.Process().num_fds() > before and time.monotonic() < until:
                time.sleep(0.01)
            assert psutil.Process().num_fds() == before


@needs_descriptors
def test_memory_of_no_file_is_sent(path, tmp_path, connect):
    with serving(tmp_path) as server:
        device = connect(f"{server.address.server}/fake:0")
        mixed = [*parts(path)[:1], memoryview(bytes(range(100)))]
        buffers = device.buffers.wrap_all(mixed)
        assert sent(server) == 1
        assert read(device, buffers[1]) == bytes(range(100))


@needs_descriptors
@pytest.mark.parametrize("spoil", ["gone", "changed", "door", "private"])
def test_what_cannot_be_lent_is_sent(path, tmp_path, connect, spoil):
    with serving(tmp_path) as server:
        device = connect(f"{server.address.server}/fake:0")
        data = parts(path)
        if spoil == "gone":
            path.unlink()
        elif spoil == "changed":
            os.utime(path, (1, 1))
        elif spoil == "door":
            device.connection.door += "-elsewhere"
        else:
            Path(device.connection.door).parent.chmod(0o750)
        device.buffers.wrap_all(data)
        assert sent(server) == 3  # all but the empty one
        assert lending.can_lend(device.connection) is (spoil in {"gone", "changed"})


@needs_descriptors
def test_a_server_believes_no_file(path, tmp_path, connect):
    """Wrong bytes, too few, and names under which nothing was lent."""
    with serving(tmp_path) as server:
        device = connect(f"{server.address.server}/fake:0")
        data = parts(path)[0]
        origin, digest = origin_of(data), digest_of(data)
        assert origin.offset == 100

        def lend(rows):
            token = lending._hand_over(Path(device.connection.door), path, origin.stamp)
            return device.connection.request(Lend(token, rows))

        with pytest.raises(ContentError, match="not asked for"):
            lend([(digest, 5000, 100)])
        device.ask(Weights(0, [(7, digest, 5000)]))
        with pytest.raises(ContentError, match="have the hash"):
            lend([(digest, 5000, 101)])
        device.ask(Weights(0, [(7, digest, 5000)]))
        for offset in (1_999_000, 1 << 62, (1 << 63) - 1):
            with pytest.raises(ContentError, match="ends before"):
                lend([(digest, 5000, offset)])
        with pytest.raises(SessionError, match="under this name"):
            device.connection.request(Lend("a" * 64, [(digest, 5000, 100)]))
        lend([(digest, 5000, 0 + 100)])
        assert device.ask(Weights(0, [(7, digest, 5000)])).body["missing"] == []


@needs_descriptors
def test_only_whole_offers_of_regular_files_are_taken(path):
    lent = Lent()
    try:
        assert Path(lent.door).parent.stat().st_mode & 0o777 == 0o700
        reading, writing = os.pipe()
        before = psutil.Process().num_fds()
        with path.open("rb") as file:
            for message, descriptors in (
                (b"t" * 32, [reading]), (b"t" * 31, [file.fileno()]), (b"t" * 32, []),
            ):  # fmt: skip
                with socket.socket(socket.AF_UNIX) as end:
                    end.connect(lent.door)
                    socket.send_fds(end, [message], descriptors)
                    assert end.recv(1) == b"-"
        with socket.socket(socket.AF_UNIX) as silent:  # says nothing, and others come in meanwhile
            silent.connect(lent.door)
            stamp = origin_of(map_file(path).data).stamp
            tokens = [lending._hand_over(Path(lent.door), path, stamp) for _ in range(16)]
            with pytest.raises(OSError, match="does not take it"):
                lending._hand_over(Path(lent.door), path, stamp)  # no more than so many unclaimed
        with lent.claimed(tokens[0]) as descriptor:
            assert os.pread(descriptor, 3, 5) == path.read_bytes()[5:8]
        with pytest.raises(SessionError), lent.claimed(tokens[0]):
            pass
    finally:
        lent.close()
    os.close(reading)
    os.close(writing)
    assert psutil.Process().num_fds() <= before
    assert not Path(lent.door).exists()
    assert not any("hotplug-rpc-lent" in thread.name for thread in threading.enumerate())


def test_a_file_is_hashed_once(path, monkeypatch):
    counted = []
    real = hashes.digest_of
    monkeypatch.setattr(hashes, "digest_of", lambda data: counted.append(data.nbytes) or real(data))
    right = [digest_of(part) for part in parts(path)]
    told = []
    for _ in range(2):
        assert hashed(parts(path), told.append) == right
    assert counted == [5000, 1 << 20, 0, 3, 0]  # but for the empty one
    assert told[3] == told[-1] == sum(nbytes for _, nbytes in PARTS)
    copy = bytes(parts(path)[0])
    assert hashed([memoryview(copy)], told.append) == right[:1]
    assert counted[5:] == [5000]
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, (5, 5))  # whatever the clock's grain is
    assert hashed(parts(path), told.append) == [digest_of(p) for p in parts(path)]
    assert counted[6:] == [5000, 1 << 20, 0, 3]


def test_a_file_that_changes_while_it_is_mapped_is_hashed_as_it_lies(path):
    data = parts(path)[0]
    hashed([data], lambda _: None)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"changed")
    os.utime(path, (7, 7))
    assert hashed([data], lambda _: None) == [digest_of(data)]


def test_kept_hashes_are_bounded(path, monkeypatch):
    monkeypatch.setattr(hashes, "_MOST_FILES", 3)
    folder = None
    for number in range(5):
        other = path.with_name(f"{number}.bin")
        other.write_bytes(bytes([number]) * 100)
        hashed([map_file(other).data], lambda _: None)
        folder = Path(os.environ["HOTPLUG_CACHE_DIR"]) / "rpc-hashes"
        assert len(list(folder.iterdir())) == min(number + 1, 3)


def test_origins_of_memory(path):
    data = map_file(path)
    origin = origin_of(data[10:20].data)
    assert (origin.path, origin.offset) == (path, 10)
    assert origin_of(memoryview(bytes(10))) is None
    assert origin_of(memoryview(b"")) is None
    del data


@needs_descriptors
def test_what_is_lent_is_written_later(path, tmp_path):
    offer = Offer(FakeDevice("fake:0"))
    data = parts(path)[0]
    digest, client = digest_of(data), "c" * 64
    store = WeightStore(tmp_path / "cache")
    with path.open("rb") as file:
        store.expect(client, digest, data.nbytes)
        store.receive_from(file.fileno(), client, digest, data.nbytes, 100)
    shared = store.acquire(offer, digest, data.nbytes)
    back = bytearray(data.nbytes)
    shared.buffer.read(0, memoryview(back))
    assert back == data
    assert not (tmp_path / "cache" / digest).exists()
    store.write_behind()  # too soon
    store.forget_client(client)
    store.close()
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [digest]
    assert (tmp_path / "cache" / digest).read_bytes() == data
    assert WeightStore(tmp_path / "cache").acquire(offer, digest, data.nbytes) is not None
    offer.desk.close()


@needs_descriptors
def test_what_cannot_be_written_later_stays_in_memory(path, tmp_path):
    (tmp_path / "file").write_text("in the way")
    offer = Offer(FakeDevice("fake:0"))
    data = parts(path)[0]
    digest, client = digest_of(data), "c" * 64
    store = WeightStore(tmp_path / "file" / "cache")
    with path.open("rb") as file:
        store.expect(client, digest, data.nbytes)
        store.receive_from(file.fileno(), client, digest, data.nbytes, 100)
    store.close()
    assert store.outstanding(client) == data.nbytes
    assert store.acquire(offer, digest, data.nbytes) is not None
    assert store.outstanding(client) == 0
    offer.desk.close()
