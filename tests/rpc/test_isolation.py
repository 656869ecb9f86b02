"""A process for each client."""

from __future__ import annotations

import signal
import time

import psutil
import pytest
import zmq
from tests.rpc.servers import serve
from tests.rpc.test_failures import Doubling

from hotplug.errors import DeviceLostError
from hotplug_rpc.backend import RPCBackend
from hotplug_rpc.errors import SessionError
from hotplug_rpc.requests import Ticket

pytestmark = pytest.mark.skipif(not zmq.has("ipc"), reason="no sockets in the file system")


@pytest.fixture(scope="module")
def server():
    with serve("--devices", "cpu", "--cache-bytes", "0", "--isolate") as started:
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
