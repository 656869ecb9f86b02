"""Many clients at once on one server: each makes progress, as much as the others."""

from __future__ import annotations

import threading

import pytest
from tests.rpc.servers import in_thread
from tests.rpc.test_failures import Doubling

from hotplug.testing.fakes import FakeDevice
from hotplug_rpc.backend import RPCBackend

CLIENTS, ROUNDS = 32, 40


@pytest.fixture
def doublings():
    """A compiled graph of each client, which has a connection of its own."""
    device = FakeDevice("fake:0", memory_bytes=1 << 20)
    with in_thread([device]) as server:
        backends = [RPCBackend() for _ in range(CLIENTS)]
        address = f"{server.address.server}/fake:0"
        yield [Doubling(backend.open(backend.find(address)[0])) for backend in backends]
        for backend in backends:
            backend.close()


def test_progress_is_even(doublings):
    """Runs are counted while all take part: until the first has done its last one."""
    counts = [0] * CLIENTS
    start, done = threading.Barrier(CLIENTS), threading.Event()

    def work(number, doubling):
        start.wait(20)
        while not done.is_set():
            assert doubling.run()
            counts[number] += 1
            if counts[number] == ROUNDS:
                done.set()

    threads = [
        threading.Thread(target=work, args=(number, doubling))
        for number, doubling in enumerate(doublings)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert max(counts) >= ROUNDS
    assert min(counts) * 2 >= max(counts), counts
