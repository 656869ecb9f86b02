"""Copies between remote buffers: on one server, from server to server, or through here."""

from __future__ import annotations

import contextlib
import socket
from functools import partial

import numpy as np
import pytest
from tests.rpc.servers import in_thread

from hotplug.errors import RemoteError, UsageError
from hotplug.testing.fakes import FakeDevice
from hotplug_rpc.addresses import Address
from hotplug_rpc.errors import ServerLostError
from hotplug_rpc.keys import KeyRing
from hotplug_rpc.server import build
from hotplug_rpc.server.build import Options
from hotplug_rpc.server.fetching import fetch_from
from hotplug_rpc.server.peers import Peers

LARGE = 20 << 20  # more than one frame


@pytest.fixture
def two(connect, tmp_path):
    """Two devices of two servers, the second of which has a key of its own; and the servers."""
    ring, other = KeyRing(), KeyRing(tmp_path / "other")
    other.allow(ring.identity().public, "client")
    options = Options(bind=Address("127.0.0.1", 0))
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(in_thread([FakeDevice("a:0"), FakeDevice("a:1")], options))
        two = stack.enter_context(in_thread([FakeDevice("b:0")], options, other))
        ring.trust(two.address.server, other.identity().public)
        places = [f"{one.address.server}/a:0", f"{two.address.server}/b:0"]
        yield [connect(place) for place in places], [one, two]


def filled(device, nbytes, seed=1):
    data = np.random.default_rng(seed).integers(0, 256, nbytes, np.uint8).tobytes()
    buffer = device.buffers.allocate(nbytes)
    buffer.write(0, memoryview(data))
    return buffer, data


def content(buffer):
    back = bytearray(buffer.nbytes)
    buffer.read(0, memoryview(back))
    return bytes(back)


def asked(server, kind):
    return server.service.metrics.get("requests_total", f'kind="{kind}"')


@pytest.mark.parametrize("nbytes", [100, 1 << 20, LARGE])
def test_from_server_to_server(two, nbytes):
    (one, other), servers = two
    source, data = filled(one, nbytes)
    target = other.buffers.allocate(nbytes)
    target.copy_from(source)
    assert content(target) == data
    direct = nbytes > 1 << 20  # what is small travels with other messages
    assert asked(servers[1], "fetch") == direct
    assert asked(servers[0], "redeem") == (nbytes >> 20 if direct else 0)
    assert asked(servers[0], "read") == (not direct)


def test_on_one_server(two, connect):
    (one, _), servers = two
    source, data = filled(one, 1 << 20)
    target = one.buffers.allocate(1 << 20)
    target.copy_from(source)
    assert content(target) == data
    neighbour = connect(f"{servers[0].address.server}/a:1").buffers.allocate(1 << 20)
    neighbour.copy_from(source)
    assert content(neighbour) == data
    assert asked(servers[0], "copy") == 2


def test_devices_know_from_how_many_bytes_on_copies_do_not_come_through_here(two, connect):
    (one, other), servers = two
    neighbour = connect(f"{servers[0].address.server}/a:1")
    assert one.direct_from(FakeDevice("rpc:7")) is None
    for origin, target, kind in ((one, other, "fetch"), (one, neighbour, "copy")):
        least = target.direct_from(origin)
        server = servers[0 if target is neighbour else 1]
        for nbytes in (least - 1, least):
            source, data = filled(origin, nbytes)
            received = target.buffers.allocate(nbytes)
            before = asked(server, kind)
            received.copy_from(source)
            assert content(received) == data
        assert asked(server, kind) == before + 1


def test_what_is_known_here_is_not_asked_for(two):
    (one, other), servers = two
    source, data = filled(one, 100)
    assert content(source) == data
    source.after_run(memoryview(data))
    before = asked(servers[0], "read")
    target = other.buffers.allocate(100)
    target.copy_from(source)
    assert content(target) == data
    assert asked(servers[0], "read") == before


def test_from_local_memory(two):
    (one, _), _ = two
    local = FakeDevice("cpu:0", is_host=True).buffers.allocate(200_000)
    local.write(0, memoryview(b"\x05" * 200_000))
    target = one.buffers.allocate(200_000)
    target.copy_from(local)
    assert content(target) == b"\x05" * 200_000


def assert_brought_through_here(devices, servers):
    """One server is asked to fetch, and the other sends it nothing."""
    one, other = devices
    source, data = filled(one, 1 << 21)
    target = other.buffers.allocate(1 << 21)
    target.copy_from(source)
    assert content(target) == data
    assert asked(servers[1], "fetch") == 1
    assert asked(servers[0], "redeem") == 0


def test_through_here_where_servers_do_not_reach_each_other(two, monkeypatch):
    def nowhere(*_):
        raise ServerLostError("no route to that server")

    monkeypatch.setattr(build, "fetch_from", nowhere)
    assert_brought_through_here(*two)


def test_a_server_that_would_send_all_at_once_is_not_fetched_from(two, monkeypatch):
    monkeypatch.setattr("hotplug_rpc.server.service.VERSION", (1, 1))
    assert_brought_through_here(*two)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "169.254.169.254"],
)
def test_clients_of_other_machines_reach_nothing_on_this_one(host):
    """A listener here would see a connection; and nothing is said of whether there is one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        endpoint = f"{host}:{listener.getsockname()[1]}"
        where = endpoint, "a" * 64, "b" * 64, 8
        peers = Peers(partial(fetch_from, KeyRing().identity()))
        with pytest.raises(RemoteError) as caught:
            list(peers.fetch(*where, nearby=False))
        assert str(caught.value) == f"it cannot fetch from {endpoint}"
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_sizes_must_agree(two):
    (one, other), _ = two
    source, _ = filled(one, 1 << 20)
    for target in (one.buffers.allocate(1 << 10), other.buffers.allocate(1 << 21)):
        with pytest.raises(UsageError):
            target.copy_from(source)
