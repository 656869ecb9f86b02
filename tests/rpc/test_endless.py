"""Clients with a key that misuse it: messages without end, of too many frames, and too slow."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time

import psutil
import pytest
import zmq
from tests.rpc.servers import serve

import hotplug
from hotplug import ops
from hotplug_rpc.addresses import parse_address
from hotplug_rpc.client.connection import Connection
from hotplug_rpc.errors import ServerLostError
from hotplug_rpc.keys import KeyRing
from hotplug_rpc.requests import MAX_FRAMES, Hello, Ping
from hotplug_rpc.server.fetching import fetch_from
from hotplug_rpc.wire import VERSION, Kind, make_head, parse_head

MIB = 1 << 20
MOST_MIB = 500
"""What a connection may have under way, and what comes before the server looks again."""


@contextlib.contextmanager
def dealer(server, port=None):
    """A client's bare socket, with a key that is let in."""
    ring = KeyRing()
    identity = ring.identity()
    with zmq.Context() as context, context.socket(zmq.DEALER) as made:
        made.curve_serverkey = made.curve_publickey = identity.public
        made.curve_secretkey = identity.secret
        made.linger = 0
        made.sndtimeo = made.rcvtimeo = 20_000
        made.reconnect_ivl = -1
        made.connect(f"tcp://127.0.0.1:{port or server.port}")
        head = Hello(VERSION, hotplug.__version__, ops.fingerprint())
        made.send(make_head(Kind.HELLO, 1, head.body()))
        assert parse_head(made.recv()).kind is Kind.DONE
        yield made


@contextlib.contextmanager
def another(server):
    """A client that behaves, and what it is asked with."""
    ring = KeyRing()
    address = parse_address(server.server)
    client = Connection(address, ring.identity().public, ring.identity(), 20)
    try:
        yield lambda: client.request(Ping(), [b"x"]).frames[0]
    finally:
        client.leave()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what connections receive")
def test_a_message_without_end_is_ended():
    """ZeroMQ's own clients begin to send once a message is whole, so this one is just very long."""
    with serve("--devices", "cpu") as server, another(server) as ask:
        process = psutil.Process(server.process.pid)
        ask()
        before, most = process.memory_info().rss, 0
        with dealer(server) as made:
            monitor = made.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            made.send_multipart([make_head(Kind.PING, 2), *[bytes(MIB)] * 1000], copy=False)
            until = time.monotonic() + 20
            while not monitor.poll(10) and time.monotonic() < until:
                assert ask() == b"x"
                most = max(most, process.memory_info().rss - before)
            assert monitor.poll(0)
            made.disable_monitor()
            monitor.close(0)
        assert most < MOST_MIB * MIB
        assert "messages do not end" in wait_for_log(server, "do not end")
        assert ask() == b"x"


def test_a_message_of_too_many_frames_ends_its_session():
    with serve("--devices", "cpu") as server, another(server) as ask:
        with dealer(server) as made:
            monitor = made.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            made.send_multipart([make_head(Kind.PING, 2), *[b""] * (MAX_FRAMES * 20)])
            assert monitor.poll(20_000)  # the server has ended the connection
            made.disable_monitor()
            monitor.close(0)
        assert "too many frames" in wait_for_log(server, "too many frames")
        assert ask() == b"x"


class Trickle:
    """Lets bytes of a client through, and from some moment on one at a time, with pauses."""

    def __init__(self, target):
        self.slow = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.ended = threading.Event()
        threading.Thread(target=self._run, args=(target,), daemon=True).start()

    def _run(self, target):
        near, _ = self.listener.accept()
        far = socket.create_connection(("127.0.0.1", target))
        threading.Thread(target=self._back, args=(near, far), daemon=True).start()
        with contextlib.suppress(OSError), near, far:
            while True:
                data = near.recv(1 if self.slow.is_set() else 65536)
                if not data:
                    return
                far.sendall(data)
                if self.slow.is_set():
                    time.sleep(0.05)

    def _back(self, near, far):
        with contextlib.suppress(OSError):
            while data := far.recv(65536):
                near.sendall(data)
        self.ended.set()


def test_a_client_that_sends_byte_by_byte_is_given_up(monkeypatch):
    monkeypatch.setenv("HOTPLUG_RPC_HEARTBEAT", "1")
    with serve("--devices", "cpu") as server, another(server) as ask:
        slow = Trickle(server.port)
        with dealer(server, slow.port) as made, slow.listener:
            slow.slow.set()
            made.send_multipart([make_head(Kind.PING, 2), bytes(100_000)])
            assert slow.ended.wait(20)
            assert ask() == b"x"


def wait_for_log(server, text):
    """The server's log, once a text stands in it."""
    until = time.monotonic() + 20
    while time.monotonic() < until and not any(text in line for line in server.log):
        time.sleep(0.05)
    return "".join(server.log)


def rogue(router, ended):
    """A server that answers everything, and a ticket with very much."""
    while not ended.is_set():
        if not router.poll(50):
            continue
        peer, text = router.recv_multipart()
        head = parse_head(text)
        frames = [bytes(MIB)] * 64 if head.kind is Kind.REDEEM else []
        answer = make_head(Kind.DONE, head.id, {"devices": [], "protocol": [1, 2]})
        router.send_multipart([peer, answer, *frames], copy=False)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what connections receive")
def test_a_server_that_sends_more_than_it_was_asked_for_is_left(monkeypatch):
    """A client may name any; what it sends must not fill the memory of the one that fetches."""
    monkeypatch.setattr("hotplug_rpc.client.exchange._LOOK_SECONDS", 0.001)
    identity = KeyRing().identity()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.curve_server = True
        router.curve_secretkey = identity.secret
        router.linger = 0
        port = router.bind_to_random_port("tcp://127.0.0.1")
        where = f"127.0.0.1:{port}", identity.public.hex()
        ended = threading.Event()
        thread = threading.Thread(target=rogue, args=(router, ended))
        thread.start()
        try:
            with pytest.raises(ServerLostError, match="more than was asked for"):
                list(fetch_from(identity, *where, "a" * 64, 1000, nearby=True))
        finally:
            ended.set()
            thread.join()
