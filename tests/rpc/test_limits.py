"""What a server allows, and budgets of memory."""

from __future__ import annotations

import pytest
from tests.rpc.services import HELLO, Bench, doubled, eventually, ready

from hotplug import ops, serialize
from hotplug.graph import Graph
from hotplug.testing.fakes import FakeDevice
from hotplug_rpc import requests as rq
from hotplug_rpc.contents import digest_of
from hotplug_rpc.errors import LimitError
from hotplug_rpc.server.ledger import Account, Ledger
from hotplug_rpc.server.limits import Limits


def test_no_answer_is_larger_than_a_frame(device):
    bench = Bench(device, limits=Limits(frame_bytes=40))
    bench.does(HELLO)
    ready(bench)
    assert bench.does(rq.Run(0, 1, [], [2, 2]))[1] == [bytes(16)] * 2
    assert bench.fails(rq.Run(0, 1, [], [2, 2, 2]))[0] == "UsageError"
    bench.does(rq.Allocate(0, 3, 64))
    assert bench.fails(rq.Read(0, 3, 0, 41))[0] == "UsageError"
    bench.does(rq.Read(0, 3, 0, 40))
    bench.service.close()


def test_budgets():
    bench = Bench(FakeDevice("fake:0"), budget=1000, limits=Limits(client_bytes=600))
    for peer, client in ((b"a", "c" * 64), (b"b", "d" * 64), (b"e", "c" * 64)):
        bench.ask(HELLO, peer=peer, client=client)
    bench.does(rq.Allocate(0, 1, 600))
    assert bench.fails(rq.Allocate(0, 2, 1), peer=b"e")[0] == "OutOfDeviceMemoryError"
    kind, text = bench.fails(rq.Allocate(0, 2, 1))
    assert kind == "OutOfDeviceMemoryError"
    assert "this client" in text
    assert bench.does(rq.Memory(0), peer=b"b")[0] == {"total": 1000, "free": 400}
    assert bench.fails(rq.Allocate(0, 1, 401), peer=b"b")[0] == "OutOfDeviceMemoryError"
    bench.service.end(b"a", "of a test")
    eventually(lambda: bench.shared.offers[0].taken == 0)
    bench.does(rq.Allocate(0, 1, 300), peer=b"e")
    bench.does(rq.Allocate(0, 1, 600), peer=b"b")
    bench.service.close()


def test_an_arena_that_does_not_fit_is_refused_before_it_is_compiled(device):
    bench = Bench(device, budget=1000)
    bench.does(HELLO)
    x = ops.input(name="x", dtype="f32", shape=(512, 512))
    graph = Graph.build({"y": ops.matmul(ops.neg(x), ops.exp(x))})
    request = rq.Compile(0, 1, graph.key, 0, None)
    assert bench.fails(request, [serialize.dump(graph)])[0] == "OutOfDeviceMemoryError"
    assert device.calls["compile"] == 0
    bench.service.close()


def test_executables_are_bounded_by_their_nodes(device):
    bench = Bench(device, limits=Limits(compiled_nodes=5))
    bench.does(HELLO)
    graph = doubled()
    data = [serialize.dump(graph)]
    for handle in (1, 2):
        bench.does(rq.Compile(0, handle, graph.key, 0, None), data)
    assert bench.fails(rq.Compile(0, 3, graph.key, 0, None))[0] == "LimitError"
    bench.does(rq.Free(0, [], [1]))
    bench.does(rq.Compile(0, 3, graph.key, 0, None))
    bench.service.close()


def test_limits_of_numbers(device):
    limits = Limits(handles=2, sessions=2, client_sessions=1, nodes=1)
    bench = Bench(device, limits=limits)
    bench.does(HELLO)
    assert bench.fails(HELLO, peer=b"b")[0] == "LimitError"
    bench.ask(HELLO, peer=b"b", client="d" * 64)
    assert bench.fails(HELLO, peer=b"e", client="e" * 64)[0] == "LimitError"
    graph = doubled()
    request = rq.Compile(0, 1, graph.key, 0, None)
    assert bench.fails(request, [serialize.dump(graph)])[0] == "LimitError"
    assert bench.fails(request, [b"[]" * 20])[0] == "LimitError"  # before it is read at all
    for handle in (1, 2):
        bench.does(rq.Allocate(0, handle, 4))
    assert bench.fails(rq.Allocate(0, 3, 4))[0] == "LimitError"
    bench.service.close()


def test_handles_are_counted_over_all_sessions_of_a_client(device):
    """Each takes memory of the host, which no budget counts."""
    bench = Bench(device, limits=Limits(handles=4))
    for peer in (b"a", b"b"):
        bench.does(HELLO, peer=peer)
    ready(bench)  # two buffers and an executable
    bench.does(rq.Allocate(0, 9, 4), peer=b"b")
    empty = digest_of(memoryview(b""))
    for request in (rq.Allocate(0, 1, 4), rq.Weights(0, [(1, empty, 0)])):
        error, message = bench.fails(request, peer=b"b")
        assert error == "LimitError"
        assert "at most 4 buffers and executables" in message
    bench.ask(HELLO, peer=b"c", client="d" * 64)
    bench.ask(rq.Allocate(0, 1, 4), peer=b"c", client="d" * 64)
    bench.does(rq.Free(0, [], [1]))
    bench.does(rq.Allocate(0, 1, 4), peer=b"b")
    assert bench.fails(rq.Allocate(0, 3, 4))[0] == "LimitError"
    bench.service.end(b"a", "")
    eventually(lambda: bench.shared.accounts.of("c" * 64).handles == 2)
    bench.does(rq.Allocate(0, 2, 4), peer=b"b")
    bench.service.close()


def test_handles_of_other_processes_count_too(tmp_path):
    Ledger.create(tmp_path / "ledger", 3)
    one, two, other = (
        Account(Ledger(tmp_path / "ledger", row, client * 64)) for row, client in enumerate("ccd")
    )
    one.add_handles(3)
    two.add_handles(2)
    other.add_handles(7)
    two.add_handles(-1)
    assert (one.handles, two.handles, other.handles) == (4, 4, 7)
    assert one.taken == 0
    Ledger.clear(tmp_path / "ledger", 0)
    assert two.handles == 1


def test_bytes_that_wait_are_bounded():
    limits = Limits(waiting=3, waiting_bytes=10)
    limits.check_waiting(0, 0, 100)  # one request may be large
    limits.check_waiting(2, 8, 2)
    for requests, held, more in ((1, 8, 3), (3, 0, 0)):
        with pytest.raises(LimitError):
            limits.check_waiting(requests, held, more)
