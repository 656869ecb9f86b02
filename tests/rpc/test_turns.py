"""Requests that wait: turns between clients, taken back, too late, and left behind."""

from __future__ import annotations

import threading
import time

import pytest
from tests.rpc.services import HELLO, Bench, doubled, eventually, ready

from hotplug import serialize
from hotplug.testing.fakes import FakeDevice, Fault
from hotplug_rpc import requests as rq
from hotplug_rpc.contents import digest_of
from hotplug_rpc.server.desk import Job
from hotplug_rpc.server.idle import Idle
from hotplug_rpc.server.limits import Limits
from hotplug_rpc.wire import Kind


class Gate:
    """Holds a device's runs until it is opened."""

    def __init__(self):
        self.open = threading.Event()
        self.entered = threading.Event()
        self.passed = False

    def __call__(self):
        self.entered.set()
        self.passed = self.open.wait(20) or "nobody opened it"
        assert self.passed is True


@pytest.fixture
def gated():
    gate = Gate()
    made = Bench(FakeDevice("fake:0", faults=[Fault("run", gate)]), limits=Limits(waiting=3))
    for peer in (b"a", b"b"):
        made.does(HELLO, peer=peer)
        ready(made, peer)
    yield made, gate
    gate.open.set()
    made.service.close()


def test_too_many_requests_are_refused(gated):
    bench, gate = gated
    sent = [bench.send(rq.Run(0, 1, [], [])) for _ in range(3)]
    assert bench.fails(rq.Run(0, 1, [], []))[0] == "LimitError"
    gate.open.set()
    assert all(bench.answer(number)[0].kind is Kind.DONE for number in sent)


def test_clients_take_turns(gated):
    bench, gate = gated
    done = []
    post = bench.service._post
    bench.service._post = lambda peer, frames: (done.append(peer), post(peer, frames))
    first = [bench.send(rq.Run(0, 1, [], [])) for _ in range(3)]
    assert gate.entered.wait(20)
    second = bench.send(rq.Run(0, 1, [], []), peer=b"b")
    gate.open.set()
    bench.answer(second, b"b")
    bench.answer(first[-1])
    assert done == [b"a", b"b", b"a", b"a"]


def test_a_request_is_taken_back(gated):
    bench, gate = gated
    running, waiting = (bench.send(rq.Run(0, 1, [], [])) for _ in range(2))
    assert gate.entered.wait(20)
    bench.send(rq.Cancel(waiting))
    assert bench.answer(waiting)[0].body["error"] == "CancelledError"
    bench.send(rq.Cancel(running + 100))
    gate.open.set()
    assert bench.answer(running)[0].kind is Kind.DONE


def test_who_stops_a_run_does_not_stop_the_next(gated, monkeypatch):
    """The first is over only when it has been stopped."""
    bench, gate = gated
    session, order = bench.service._sessions[b"a"], []

    def stop():
        gate.open.set()
        time.sleep(0.05)  # long enough for the run to end
        order.append("stopped")

    executable = session.holdings.executable(1, bench.shared.offers[0]).executable
    monkeypatch.setattr(executable, "stop", stop)
    post = bench.service._post
    bench.service._post = lambda peer, frames: (order.append("answered"), post(peer, frames))
    running = bench.send(rq.Run(0, 1, [], []))
    assert gate.entered.wait(20)
    bench.send(rq.Cancel(running))
    bench.answer(running)
    assert order == ["stopped", "answered"]


def test_what_a_run_writes_is_written_although_it_is_taken_back(gated):
    bench, gate = gated
    bench.send(rq.Run(0, 1, [], []))
    assert gate.entered.wait(20)
    number = bench.send(rq.Run(0, 1, [(1, 4)], [2]), [b"\x07" * 8])
    for _ in range(2):
        bench.send(rq.Cancel(number))
    gate.open.set()
    assert bench.answer(number)[0].body["error"] == "CancelledError"
    assert bench.does(rq.Read(0, 1, 0, 16))[1] == [bytes(4) + b"\x07" * 8 + bytes(4)]
    assert bench.service.waiting == 0


def test_a_request_whose_time_is_over_is_not_begun(gated):
    bench, gate = gated
    bench.send(rq.Run(0, 1, [], []))
    late = bench.send(rq.Run(0, 1, [], []), timeout_ms=1)
    time.sleep(0.01)
    gate.open.set()
    assert bench.answer(late)[0].body["error"] == "DeadlineError"


def test_a_session_that_ends_while_it_runs_is_freed_afterwards(gated):
    bench, gate = gated
    bench.send(rq.Run(0, 1, [], []))
    waiting = bench.send(rq.Run(0, 1, [], []))
    assert gate.entered.wait(20)
    taken = bench.shared.offers[0].taken
    bench.service.end(b"a", "gone")
    assert bench.shared.offers[0].taken == taken
    gate.open.set()
    deadline = time.monotonic() + 20
    while bench.shared.offers[0].taken >= taken and time.monotonic() < deadline:
        time.sleep(0.01)
    assert bench.shared.offers[0].taken < taken
    assert (b"a", waiting) not in bench._answers
    bench.does(rq.Run(0, 1, [], []), peer=b"b")


@pytest.fixture
def fetching():
    """Sessions of a client that fetch from a server which does not answer, and another client."""
    gate = Gate()

    def fetch(*_):
        gate()
        yield memoryview(bytes(8))

    made = Bench(FakeDevice("fake:0", memory_bytes=1 << 20), fetch=fetch)
    for peer in (b"a", b"b"):
        made.does(HELLO, peer=peer)
        made.does(rq.Allocate(0, 1, 8), peer=peer)
    made.ask(HELLO, peer=b"other", client="d" * 64)
    request = rq.Fetch(0, 1, "127.0.0.1:9", "a" * 64, "b" * 64)
    yield made, gate, [(made.send(request, peer=peer), peer) for peer in (b"a", b"b") * 8]
    gate.open.set()
    made.service.close()


def test_who_fetches_keeps_nobody_waiting(fetching):
    bench, gate, sent = fetching
    assert gate.entered.wait(20)
    for request in (rq.Memory(0), rq.Weights(0, []), rq.Allocate(0, 1, 8)):
        head, _ = bench.ask(request, peer=b"other", client="d" * 64)
        assert head.kind is Kind.DONE
    bench.does(rq.Memory(0))  # not even the client itself
    assert not any((peer, number) in bench._answers for number, peer in sent)
    gate.open.set()
    assert all(bench.answer(*one)[0].kind is Kind.DONE for one in sent)


def test_what_is_fetched_into_is_freed_afterwards(fetching):
    bench, gate, _ = fetching
    assert gate.entered.wait(20)
    for peer in (b"a", b"b"):
        bench.service.end(peer, "gone")
    eventually(lambda: bench.shared.offers[0].taken == 8)  # of the session that fetches just now
    gate.open.set()
    eventually(lambda: bench.shared.offers[0].taken == 0)


def test_what_is_freed_while_bytes_come_into_it_is_released_afterwards(monkeypatch):
    """By the device's lane, while the one beside it writes: else to memory that is gone."""
    gate, order = Gate(), []
    bench = Bench(FakeDevice("fake:0", memory_bytes=64), fetch=lambda *_: [memoryview(bytes(8))])
    bench.does(HELLO)
    bench.does(rq.Allocate(0, 1, 8))
    buffer = bench.service._sessions[b"a"].holdings.buffer(1).buffer
    write, free = buffer.write, buffer.free
    monkeypatch.setattr(
        buffer, "write", lambda *given: (gate(), write(*given), order.append("written"))
    )
    monkeypatch.setattr(buffer, "free", lambda: (order.append("freed"), free()))
    number = bench.send(rq.Fetch(0, 1, "127.0.0.1:9", "a" * 64, "b" * 64))
    assert gate.entered.wait(20)
    bench.does(rq.Free(0, [1], []))
    assert bench.fails(rq.Read(0, 1, 0, 8))[0] == "UsageError"
    assert bench.shared.offers[0].taken == 8
    gate.open.set()
    assert bench.answer(number)[0].kind is Kind.DONE
    assert order == ["written", "freed"]
    assert bench.shared.offers[0].taken == 0
    bench.service.close()


def test_a_device_that_hangs_keeps_no_client_out():
    """One thread waits for it; others are told what is known of it, and use other devices."""
    gate = Gate()
    hanging = FakeDevice("fake:0", memory_bytes=64, faults=[Fault("memory", gate)])
    bench = Bench(hanging, FakeDevice("fake:1", memory_bytes=1 << 20))
    first = bench.send(HELLO, peer=b"a")
    assert gate.entered.wait(20)
    for peer in (b"b", b"e"):
        body, _ = bench.does(HELLO, peer=peer)
        assert [device["total"] for device in body["devices"]] == [None, 1 << 20]
        bench.does(rq.Allocate(1, 1, 8), peer=peer)
    gate.open.set()
    assert bench.answer(first)[0].body["devices"][0]["total"] == 64
    bench.service.close()


def test_a_device_that_hangs_where_memory_is_taken_keeps_nobody_waiting():
    gate = Gate()
    hanging = FakeDevice("fake:0", memory_bytes=64, faults=[Fault("memory", gate)])
    bench = Bench(hanging)
    offer = bench.shared.offers[0]
    offer.desk.submit("lane", Job(1, lambda: offer.take(8)))
    assert gate.entered.wait(20)
    body, _ = bench.does(HELLO)
    assert body["devices"][0]["free"] is None
    assert bench.does(rq.Want(0, [("a" * 64, 8)]))[0] == {"missing": [[0, 0]]}
    gate.open.set()
    eventually(lambda: offer.taken == 8)
    bench.service.close()


def test_who_compiles_keeps_no_client_out():
    gate = Gate()
    bench = Bench(FakeDevice("fake:0", memory_bytes=1 << 20, faults=[Fault("compile", gate)]))
    for number, key in enumerate("cdef" * 2):
        graph, options = doubled(4 + number), {"peer": bytes([number]), "client": key * 64}
        bench.ask(HELLO, **options)
        bench.send(rq.Compile(0, 1, graph.key, 0, None), [serialize.dump(graph)], **options)
    assert gate.entered.wait(20)
    bench.does(HELLO, peer=b"late")
    gate.open.set()
    bench.service.close()


@pytest.mark.parametrize("ends", ["a session", "what is idle"])
def test_a_device_that_hangs_does_not_hold_the_thread_with_the_sockets(ends):
    """Neither where weights are brought to it, whose lock is held, nor where something is freed."""
    gate, data = Gate(), b"weight"
    device = FakeDevice("fake:0", memory_bytes=64, faults=[Fault("allocate", gate)])
    bench, digest = Bench(device), digest_of(memoryview(data))
    for peer in (b"a", b"b"):
        bench.ask(HELLO, peer=peer, client=peer.hex() * 32)
    if ends == "a session":
        bench.ask(rq.Weights(0, [(1, digest, len(data))]))
        bench.ask(rq.Content(digest, len(data), 0), [data])
        bench.send(rq.Weights(0, [(1, digest, len(data))]))
        assert gate.entered.wait(20)
        bench.service.end(b"b", "gone")
    else:
        offer = bench.shared.offers[0]
        offer.idle = Idle(1e-9)
        offer.idle.put("key", "thing", 8, gate)
        for _ in range(3):
            offer.expire_idle()
            assert gate.entered.wait(20)
        assert offer.desk.waiting == 0
    assert not gate.passed
    gate.open.set()
    bench.service.close()
