"""Handshakes that fail before any key is asked for, and how often they may."""

from __future__ import annotations

import contextlib
import os
import socket
import time

import pytest
from tests.rpc.servers import in_thread

from hotplug.testing.fakes import FakeDevice
from hotplug_rpc.addresses import parse_address
from hotplug_rpc.client.connection import Connection
from hotplug_rpc.descriptors import peer_address
from hotplug_rpc.errors import ServerLostError
from hotplug_rpc.keys import KeyRing
from hotplug_rpc.server import strangers as module
from hotplug_rpc.server.strangers import Strangers

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sockets are no descriptors there")


@pytest.fixture
def ended(monkeypatch):
    """Descriptors that were shut down; a connection's number is the end of its address."""
    found = []
    monkeypatch.setattr(module, "_MOST", 3)
    monkeypatch.setattr(module, "peer_address", lambda number: f"10.0.0.{number // 100}")
    monkeypatch.setattr(module, "shut_down", found.append)
    return found


def fails(strangers, *numbers):
    for number in numbers:
        assert strangers.opened(number)
        strangers.closed(number)


def test_an_address_may_fail_only_so_often(ended, monkeypatch):
    strangers = Strangers()
    fails(strangers, 100, 101, 102)
    assert not strangers.opened(103)
    strangers.closed(103)
    assert ended == [103]
    fails(strangers, 200)  # another address
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    fails(strangers, 104, 105, 106)
    assert not strangers.opened(107)


def test_where_a_client_came_in_from_is_not_limited(ended):
    strangers = Strangers()
    assert strangers.opened(100)
    strangers.delivered(100)
    strangers.closed(100)
    fails(strangers, 101, 102, 103, 104, 105)
    assert ended == []


def test_what_is_not_known_and_this_machine_are_not_limited(ended, monkeypatch):
    for address in (None, "127.0.0.1", "::1"):
        monkeypatch.setattr(module, "peer_address", lambda number, address=address: address)
        fails(Strangers(), 1, 2, 3, 4, 5)
    assert ended == []


def test_addresses_of_connections():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as one:
            assert peer_address(one.fileno()) == "127.0.0.1"
            number = one.fileno()
        assert peer_address(number) is None
        assert peer_address(listener.fileno()) is None
    for one in (*socket.socketpair(), *map(os.fdopen, os.pipe())):
        with one:
            assert peer_address(one.fileno()) is None


def noise(server):
    """Something that is no handshake, and the end that the server makes of it."""
    address = "127.0.0.1", server.address.port
    with socket.create_connection(address, timeout=20) as raw, contextlib.suppress(OSError):
        raw.sendall(b"GET / HTTP/1.1" * 10)
        while raw.recv(4096):
            pass


def client(server, key):
    identity = KeyRing().identity()
    return Connection(parse_address(server.address.server), key, identity, 20)


@pytest.fixture
def limited(monkeypatch):
    """A server that takes loopback for any address."""
    monkeypatch.setattr(module, "_MOST", 3)
    monkeypatch.setattr(module, "is_loopback", lambda address: False)
    with in_thread([FakeDevice("fake:0")]) as server:
        yield server, lambda: server.service.metrics.get("refused_total", 'reason="rate"')


def wrong_key(server):
    with pytest.raises(ServerLostError):
        client(server, b"\x07" * 32)


@pytest.mark.parametrize("attempt", [noise, wrong_key])
def test_what_fails_is_refused_after_a_while(limited, attempt):
    server, refused = limited
    sent, until = 0, time.monotonic() + 20
    while not refused() and time.monotonic() < until:
        attempt(server)
        sent += 1
    assert refused() >= 1
    assert sent > 3
    with pytest.raises(ServerLostError):
        client(server, server.key)


def test_noise_does_not_keep_a_client_out_that_was_there_before(limited):
    server, refused = limited
    client(server, server.key).leave()
    for _ in range(5):
        noise(server)
    client(server, server.key).leave()
    assert refused() == 0
