"""A process for each client."""

from __future__ import annotations

import json
import signal
import time
import urllib.request

import psutil
import pytest
import zmq
from tests.rpc.servers import ServerProcess, serve
from tests.rpc.test_failures import Doubling

import hotplug
from hotplug import ops
from hotplug.errors import DeviceLostError, OutOfDeviceMemoryError
from hotplug_rpc.backend import RPCBackend
from hotplug_rpc.contents import digest_of
from hotplug_rpc.errors import SessionError
from hotplug_rpc.keys import KeyRing
from hotplug_rpc.requests import Content, Hello, Ticket, Weights
from hotplug_rpc.server.build import Options, shared_of
from hotplug_rpc.server.isolation import IsolatingService
from hotplug_rpc.wire import VERSION, Kind, make_head, parse_head

pytestmark = pytest.mark.skipif(not zmq.has("ipc"), reason="no sockets in the file system")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def server(cache):
    options = ("--cache", str(cache), "--budget", "4M", "--isolate")
    with serve("--devices", "cpu", *options) as started:
        yield started


@pytest.fixture
def clients(server):
    """Two clients, each with a backend of its own, as in two processes."""
    backends = [RPCBackend(), RPCBackend()]
    yield [backend.open(backend.find(server.address)[0]) for backend in backends]
    for backend in backends:
        backend.close()
    wait_until(lambda: not psutil.Process(server.process.pid).children())


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


def outcome(doubling):
    try:
        return "right" if doubling.run() else "wrong"
    except DeviceLostError as error:
        return str(error)


def test_a_crash_touches_no_other_client(server, clients):
    doublings = [Doubling(client) for client in clients]
    assert all(doubling.run() for doubling in doublings)
    first, second = psutil.Process(server.process.pid).children()
    first.send_signal(signal.SIGKILL)
    outcomes = [outcome(doubling) for doubling in doublings]
    lost = [d for d, text in zip(doublings, outcomes, strict=True) if "ended with code -9" in text]
    assert len(lost) == 1, outcomes
    with pytest.raises(SessionError, match="no session"):
        lost[0].run()
    (survivor,) = [doubling for doubling in doublings if doubling not in lost]
    assert all(survivor.run() for _ in range(5))
    assert second.is_running()


def test_processes_end_with_their_clients(server, clients):
    process = psutil.Process(server.process.pid)
    assert len(process.children()) == 2
    for client in clients:
        client.close()
    wait_until(lambda: not process.children())


def test_clients_that_are_kept_apart_get_no_tickets(clients):
    buffer = clients[0].buffers.allocate(64)
    with pytest.raises(SessionError, match="nothing to do with others"):
        clients[0].ask(Ticket(0, buffer.handle, "0" * 64))


def test_a_budget_is_one_for_all_processes(clients):
    one, two = clients
    first = one.buffers.allocate(3_000_000)
    assert two.memory().free <= 1_000_000
    with pytest.raises(OutOfDeviceMemoryError):
        two.buffers.allocate(2_000_000)
    first.free()
    assert one.memory().free == two.memory().free == 4_000_000
    second = two.buffers.allocate(3_000_000)
    second.write(2_999_999, memoryview(b"x"))
    two.close()
    wait_until(lambda: one.memory().free == 4_000_000)


def test_a_process_knows_whose_session_it_is(cache, clients):
    """Or two clients that send one weight would write to one file."""
    data = bytes(range(200))
    digest = digest_of(memoryview(data))
    clients[0].ask(Weights(0, [(1, digest, 200)]))
    clients[0].connection.request(Content(digest, 200, 0), [data[:50]])
    key = KeyRing().identity().public.hex()
    assert [path.name for path in cache.iterdir()] == [f".part-{digest}-{key[:16]}"]


def test_log_and_metrics_tell_of_all_processes(tmp_path, backend):
    """A child's warning is a line like the others', and its answers are counted."""
    data = bytes(200)
    (tmp_path / digest_of(memoryview(data))).write_bytes(b"\x01" * 200)
    options = ["--isolate", "--json-log", "--devices", "cpu", "--cache", str(tmp_path)]
    started = ServerProcess(*options, "--metrics", "127.0.0.1:0", "--drain", "0")
    try:
        device = backend.open(backend.find(started.address)[0])
        device.buffers.allocate(1000).write(0, memoryview(bytes(1000)))
        question = Weights(0, [(99, digest_of(memoryview(data)), 200)])
        assert device.ask(question).body == {"missing": [[0, 0]]}
        with pytest.raises(SessionError):
            device.ask(Ticket(0, 1, "0" * 64))
        place = json.loads(started.log[0])["message"].rpartition(" ")[2]
        with urllib.request.urlopen(place, timeout=10) as answer:
            text = answer.read().decode()
    finally:
        started.stop()
    assert 'hotplug_rpc_failures_total{error="SessionError"} 1\n' in text
    assert 'hotplug_rpc_device_taken_bytes{device="cpu:0"} 1000\n' in text
    rows = [json.loads(line) for line in started.log]
    assert [row["level"] for row in rows if "does not hold" in row["message"]] == ["warning"]


def test_no_process_outlives_a_server_that_is_killed(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    started = ServerProcess("--quiet", "--devices", "cpu", "--cache-bytes", "0", "--isolate")
    backend = RPCBackend()
    try:
        backend.open(backend.find(started.address)[0]).memory()
        (child,) = psutil.Process(started.process.pid).children()
        started.kill()
        psutil.wait_procs([child], timeout=20)
        assert not child.is_running()
    finally:
        started.stop()
        backend.close()


def test_a_process_that_cannot_be_started_is_the_client_s_error():
    """And the server goes on."""
    answers = []
    shared = shared_of(Options(), (), None)
    service = IsolatingService(shared, lambda peer, frames: answers.append(frames), ["/nowhere"])
    hello = Hello(VERSION, hotplug.__version__, ops.fingerprint())
    for _ in range(shared.limits.sessions + 1):
        service.handle(b"a", "c" * 64, [make_head(Kind.HELLO, 7, hello.body())])
    heads = [parse_head(bytes(frames[0])) for frames in answers]
    assert {(head.id, head.body["error"]) for head in heads} == {(7, "SessionError")}
    assert "No such file" in heads[-1].body["message"]
    service.close()
