"""Servers as processes: who comes in, what happens when one ends, and what users are told."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import zmq
from tests.rpc.servers import ServerProcess, serve
from zmq.utils import z85

from hotplug.cli import main
from hotplug.errors import BackendLoadError, DeviceNotFoundError, RemoteError, SettingsError
from hotplug.registry import Registry
from hotplug_rpc.addresses import parse_address
from hotplug_rpc.backend import RPCBackend
from hotplug_rpc.client.connection import Connection
from hotplug_rpc.errors import ServerLostError, SessionError
from hotplug_rpc.keys import Identity, KeyRing
from hotplug_rpc.requests import Memory
from hotplug_rpc.server.http import serve_metrics
from hotplug_rpc.server.metrics import Metrics


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("weights"))
    with serve("--devices", "cpu", "--cache", folder, "--metrics", "127.0.0.1:0") as started:
        yield started


def stranger():
    public, secret = zmq.curve_keypair()
    return Identity(z85.decode(public), z85.decode(secret))


def connect_as(server, identity, key=None):
    key = key or KeyRing().identity().public
    return Connection(parse_address(server.server), key, identity, 20)


def test_a_device_says_what_it_is(server, backend):
    (info,) = backend.find(server.address)
    assert info.id == "rpc:0"
    assert info.type.value == "remote"
    assert info.properties["remote_type"] == "cpu"
    assert info.properties["address"] == server.address
    assert 0 < info.properties["link_latency"] < 1
    memory = backend.memory(info)
    assert 0 < memory.free <= memory.total


def test_a_selector_names_it(server):
    registry = Registry(list)
    registry.register(RPCBackend())
    for selector in (f"rpc://{server.address}", f"rpc://{server.server}"):
        assert [info.id for info in registry.select(selector).devices] == ["rpc:0"]
    with registry.open(f"rpc://{server.address}") as handle:
        assert handle.device.memory().total > 0
    with pytest.raises(DeviceNotFoundError, match="offers cpu:0, not cuda:0"):
        registry.select(f"rpc://{server.server}/cuda:0")
    with pytest.raises(DeviceNotFoundError, match="no address"):
        registry.select("rpc://nonsense:x")
    registry.unload("rpc")


def test_nobody_answers(backend):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(ServerLostError, match=f"127.0.0.1:{port} .*nothing listens") as caught:
        backend.find(f"127.0.0.1:{port}")
    assert time.monotonic() - began < 10
    assert caught.value.endpoint == f"127.0.0.1:{port}"


def test_named_servers_are_listed(server, backend, monkeypatch):
    with pytest.raises(BackendLoadError, match="no server is named"):
        backend.probe()
    monkeypatch.setenv("HOTPLUG_RPC_SERVERS", f"{server.server}, 127.0.0.1:1")
    assert [info.properties["address"] for info in backend.probe()] == [server.address]
    monkeypatch.setenv("HOTPLUG_RPC_SERVERS", "127.0.0.1:1")
    with pytest.raises(BackendLoadError, match="nothing listens"):
        RPCBackend().probe()
    monkeypatch.setenv("HOTPLUG_RPC_SERVERS", "a b")
    with pytest.raises(SettingsError, match="HOTPLUG_RPC_SERVERS"):
        backend.probe()


def test_a_server_that_is_stopped_does_not_answer(monkeypatch):
    """Which is another thing than to refuse; here nobody takes what was connected to."""
    for module in ("hotplug_rpc.sockets", "hotplug_rpc.client.exchange"):
        monkeypatch.setattr(f"{module}.HANDSHAKE_MS", 700)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(ServerLostError, match="does not answer") as caught:
            RPCBackend().find(f"127.0.0.1:{port}")
    assert caught.value.remedy is None


def test_a_stranger_is_not_let_in(server):
    with pytest.raises(ServerLostError, match="does not let this machine in") as caught:
        connect_as(server, stranger())
    assert "hotplug keys allow" in caught.value.remedy


def test_a_server_with_another_key_is_not_trusted(server):
    identity = KeyRing().identity()
    with pytest.raises(ServerLostError, match=r"ended the handshake|does not answer"):
        connect_as(server, identity, key=stranger().public)


def test_a_client_that_is_allowed_comes_in(server):
    friend = stranger()
    ring = KeyRing()
    ring.allow(friend.public, "friend")
    connection = connect_as(server, friend)
    assert [described.info.id for described in connection.offered] == ["cpu:0"]
    ring.forbid("friend")
    with pytest.raises(SessionError) as caught:  # first it learns why
        use_up(connection)
    assert "not allowed any more" in str(caught.value) or "no session" in str(caught.value)
    while connection.lost is None:  # then nothing of it is read any more
        with contextlib.suppress(SessionError, ServerLostError):
            use_up(connection)
    connection.close()
    with pytest.raises(ServerLostError, match="does not let this machine in"):
        connect_as(server, friend)


def use_up(connection):
    """Ask until the server answers otherwise, or not at all."""
    while True:
        connection.request(Memory(0))
        time.sleep(0.05)


@pytest.mark.parametrize(
    "data",
    [b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, b"\xff" + bytes(8) + b"\x7f\x03" + bytes(53)
     + b"\x04" + b"\xff" * 8 + bytes(1000)],
    ids=["silent", "http", "noise", "huge"],
)  # fmt: skip
def test_without_a_key_there_is_nothing_but_the_greeting(server, data):
    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as raw:
        raw.sendall(data)
        got = b""
        while len(got) < 4096:
            try:
                piece = raw.recv(4096)
            except ConnectionResetError:
                break
            if not piece:
                break
            got += piece
            if not data:  # it waits for us; the rest is ZeroMQ's, 5 seconds later
                break
    assert len(got) <= 64
    assert b"hotplug" not in got
    connection = connect_as(server, KeyRing().identity())
    assert connection.offered
    connection.leave()


def test_metrics_and_health():
    with serve("--devices", "cpu", "--cache-bytes", "0", "--metrics", "127.0.0.1:19464") as started:
        connect_as(started, KeyRing().identity()).leave()
        with urllib.request.urlopen("http://127.0.0.1:19464/healthz", timeout=10) as answer:
            assert answer.read() == b"ok\n"
        with urllib.request.urlopen("http://127.0.0.1:19464/metrics", timeout=10) as answer:
            text = answer.read().decode()
    assert "hotplug_rpc_sessions_total 1" in text
    for line in text.splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) .*|\w+({\w+="[^"]*"})? [-+.e\d]+', line), line


def test_metrics_outlast_whoever_asks_for_them():
    """Also over IPv6, where there is that."""
    hosts = ["127.0.0.1"] + ["[::1]"] * socket.has_dualstack_ipv6()
    for host in hosts:
        with serve_metrics(f"{host}:0", _Metered()) as address:
            ends = [socket.create_connection((address.host, address.port)) for _ in range(8)]
            for end in ends:
                end.sendall(b"GET /metrics HTTP/1.0\r\n")
                end.close()
            question = f"http://{address.server}/metrics"
            with urllib.request.urlopen(question, timeout=10) as answer:
                assert answer.read() == Metrics().text().encode()


def test_what_fails_while_metrics_are_told_is_logged(caplog):
    with (
        serve_metrics("127.0.0.1:0", None) as address,
        caplog.at_level("ERROR", "hotplug.rpc"),
        pytest.raises(OSError, match="without response"),
    ):
        urllib.request.urlopen(f"http://{address.server}/metrics", timeout=10)
    assert "metrics_text" in caplog.text


class _Metered:
    metrics_text = Metrics().text
    closing = False


def test_questions_at_once_are_few():
    with serve_metrics("127.0.0.1:0", _Metered()) as address, contextlib.ExitStack() as stack:
        ends = [
            stack.enter_context(socket.create_connection((address.host, address.port), 10))
            for _ in range(20)
        ]
        # Those that came first are waited for; the last four are hung up on at once.
        assert [end.recv(1) for end in ends[16:]] == [b""] * 4
        for end in ends[:16]:
            end.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert end.recv(12).endswith(b"200")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bind", "0.0.0.0:0"], "no client's key is allowed"),
        (["--bind", "nonsense:x"], "no address"),
        (["--bind", "203.0.113.9:1", "--allow", "0" * 64], "cannot be bound"),
        (["--devices", "nosuch:0"], "no device for"),
        (["--allow", "x"], "no key"),
        (["--budget", "lots"], "a size is given as"),
        (["--drain", "nan"], "--drain"),
        (["--models", "/nonexistent"], "neither a model file nor a folder"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(capsys, options, message):
    assert main(["serve-devices", "--bind", "127.0.0.1:0", "--devices", "cpu", *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_a_server_that_is_killed_is_an_error_at_once(backend):
    started = ServerProcess("--quiet", "--devices", "cpu", "--cache-bytes", "0")
    try:
        device = backend.open(backend.find(started.address)[0])
        buffer = device.buffers.allocate(8)
        device.memory()
        started.kill()
        began = time.monotonic()
        with pytest.raises(RemoteError, match="gone") as caught:
            device.memory()
        assert isinstance(caught.value, ServerLostError)
        with pytest.raises(ServerLostError):
            buffer.read(0, memoryview(bytearray(8)))
        buffer.free()
        device.close()
        assert time.monotonic() - began < 10
        again = ServerProcess(
            "--quiet", "--devices", "cpu", "--cache-bytes", "0", port=started.port
        )
        try:
            with backend.open(backend.find(again.address)[0]) as device:
                assert device.memory().total > 0
        finally:
            again.stop()
    finally:
        started.stop()


@pytest.mark.skipif(not hasattr(signal, "SIGTERM") or os.name != "posix", reason="no signals")
def test_a_server_drains(backend):
    started = ServerProcess("--devices", "cpu", "--cache-bytes", "0", "--json-log")
    try:
        device = backend.open(backend.find(started.address)[0])
        started.signal(signal.SIGTERM)
        assert device.memory().total > 0
        with pytest.raises(RemoteError, match="being shut down"):
            RPCBackend().find(started.address)
        device.close()
        assert started.process.wait(20) == 0
    finally:
        started.stop()
    rows = [json.loads(line) for line in started.log]
    assert "session opened" in [row["message"] for row in rows]
    assert all({"time", "level", "message"} <= row.keys() for row in rows)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_connects_anew(server):
    program = f"""
import os, sys
from hotplug_rpc.backend import RPCBackend
backend = RPCBackend()
device = backend.open(backend.find({server.address!r})[0])
pid = os.fork()
if pid == 0:
    try:
        device.memory()
    except Exception as error:
        assert "forked" in str(error), error
        with backend.open(backend.find({server.address!r})[0]) as other:
            ok = other.memory().total > 0
        os._exit(0 if ok else 1)
    os._exit(2)
assert os.waitpid(pid, 0)[1] == 0
assert device.memory().total > 0
device.close()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
