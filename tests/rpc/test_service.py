"""The server without sockets: sessions, handles, limits and turns, on scripted devices."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

import hotplug
from hotplug import ops, serialize
from hotplug.errors import DeviceLostError
from hotplug.graph import Graph
from hotplug.testing.fakes import FakeDevice, Fault
from hotplug_rpc import requests as rq
from hotplug_rpc.contents import digest_of
from hotplug_rpc.errors import LimitError, SessionError
from hotplug_rpc.server import peers
from hotplug_rpc.server.graphs import GraphStore
from hotplug_rpc.server.ledger import Account, Ledger
from hotplug_rpc.server.limits import Limits
from hotplug_rpc.server.offers import Offer
from hotplug_rpc.server.peers import Peers
from hotplug_rpc.server.service import Service
from hotplug_rpc.server.session import Shared
from hotplug_rpc.server.weights import WeightStore
from hotplug_rpc.wire import VERSION, Kind, make_head, parse_head

HELLO = rq.Hello(VERSION, hotplug.__version__, ops.fingerprint())


def nowhere(endpoint, key, ticket, nbytes):
    raise SessionError("no servers here")


class Bench:
    """A service, and clients that are lists of what they were sent."""

    def __init__(self, *devices, limits=None, budget=None, weights=None):
        limits = limits or Limits()
        self.shared = Shared(
            tuple(Offer(device, budget) for device in devices),
            limits, GraphStore(limits.nodes), weights or WeightStore(), Peers(nowhere),
        )  # fmt: skip
        self.service = Service(self.shared, self._post)
        self._answers = {}
        self._came = threading.Condition()
        self._last = 0

    def _post(self, peer, frames):
        with self._came:
            head = parse_head(bytes(frames[0]))
            self._answers[peer, head.id] = (head, [bytes(f) for f in frames[1:]])
            self._came.notify_all()

    def send(self, request, frames=(), peer=b"a", timeout_ms=0, client="c" * 64, **options):
        self._last += 1
        head = make_head(request.kind, self._last, request.body(), timeout_ms)
        self.service.handle(peer, client, [head, *frames], **options)
        return self._last

    def answer(self, number, peer=b"a"):
        with self._came:
            assert self._came.wait_for(lambda: (peer, number) in self._answers, 20)
            return self._answers[peer, number]

    def ask(self, request, frames=(), peer=b"a", **options):
        return self.answer(self.send(request, frames, peer, **options), peer)

    def fails(self, request, frames=(), peer=b"a", **options):
        head, _ = self.ask(request, frames, peer, **options)
        assert head.kind is Kind.FAILED, head
        return head.body["error"], head.body["message"]

    def does(self, request, frames=(), peer=b"a"):
        head, answer = self.ask(request, frames, peer)
        assert head.kind is Kind.DONE, head.body
        return head.body, answer


@pytest.fixture
def device():
    return FakeDevice("fake:0", memory_bytes=1 << 20)


@pytest.fixture
def bench(device):
    made = Bench(device)
    made.does(HELLO)
    yield made
    made.service.close()


def doubled(count=4):
    x = ops.input(name="x", dtype="f32", shape=(count,))
    return Graph.build({"y": ops.add(x, x)})


def ready(bench, peer=b"a", graph=None):
    """A compiled and bound graph: executable 1, buffers 1 and 2."""
    graph = graph or doubled()
    node = graph.inputs["x"]
    for handle in (1, 2):
        bench.does(rq.Allocate(0, handle, node.type.nbytes), peer=peer)
    data = [serialize.dump(graph)]
    bench.does(rq.Compile(0, 1, graph.key, 0, None), data, peer=peer)
    bench.does(rq.Bind(0, 1, {"x": 1, "output:y": 2}), peer=peer)


def test_hello_tells_of_devices_and_limits(device):
    bench = Bench(device, budget=1000)
    body, _ = bench.does(HELLO)
    assert body["protocol"] == list(VERSION)
    assert body["devices"][0]["info"]["name"] == "Fake fake:0"
    assert body["devices"][0]["total"] == 1000
    assert body["limits"]["frame_bytes"] == Limits().frame_bytes
    bench.service.close()


def test_hello_comes_first_and_once(device):
    bench = Bench(device)
    assert bench.fails(rq.Memory(0))[0] == "SessionError"
    bench.does(HELLO)
    assert bench.fails(HELLO)[0] == "SessionError"
    bench.service.close()


def test_versions_are_named(bench):
    kind, text = bench.fails(rq.Hello((2, 3), "9.9", ops.fingerprint()), peer=b"b")
    assert kind == "VersionError"
    assert "2.3" in text
    assert f"{VERSION[0]}.{VERSION[1]}" in text
    kind, text = bench.fails(rq.Hello((1, 7), "9.9", "other"), peer=b"b")
    assert kind == "VersionError"
    assert "9.9" in text
    assert hotplug.__version__ in text
    body, _ = bench.does(rq.Hello((1, 7), "9.9", ops.fingerprint()), peer=b"b")
    assert body["protocol"] == list(VERSION)


def test_a_run_writes_computes_and_reads(bench):
    ready(bench)
    x = np.arange(4, dtype=np.float32)
    _, frames = bench.does(rq.Run(0, 1, [(1, 0)], [2]), [x.tobytes()])
    assert np.frombuffer(frames[0], np.float32).tolist() == [0, 2, 4, 6]


def test_ping_sends_back(bench):
    assert bench.does(rq.Ping(), [b"abc"])[1] == [b"abc"]


def test_sessions_do_not_see_each_other(bench):
    ready(bench)
    bench.does(HELLO, peer=b"b")
    for request in (rq.Read(0, 1, 0, 4), rq.Run(0, 1, [], []), rq.Explain(0, 1)):
        assert bench.fails(request, peer=b"b")[0] == "UsageError"
    bench.does(rq.Free(0, [1], [1]), peer=b"b")
    assert len(bench.does(rq.Read(0, 1, 0, 16))[1][0]) == 16


@pytest.mark.parametrize(
    ("request_", "frames", "error"),
    [
        (rq.Allocate(0, 1, 8), [], "ProtocolError"),
        (rq.Allocate(7, 9, 8), [], "UsageError"),
        (rq.Allocate(0, 9, 1 << 40), [], "OutOfDeviceMemoryError"),
        (rq.Write(0, 1, 13), [b"1234"], "UsageError"),
        (rq.Write(0, 1, 1 << 62), [b"1234"], "UsageError"),
        (rq.Write(0, 99, 0), [b"1234"], "UsageError"),
        (rq.Read(0, 1, 0, 17), [], "UsageError"),
        (rq.Read(0, 1, 17, 0), [], "UsageError"),
        (rq.Read(0, 1, 0, 1 << 62), [], "UsageError"),
        (rq.Copy(0, 1, 3), [], "UsageError"),
        (rq.Copy(0, 9, 1), [], "UsageError"),
        (rq.Run(0, 9, [], []), [], "UsageError"),
        (rq.Run(0, 1, [(1, 15)], [2]), [b"12"], "UsageError"),
        (rq.Run(0, 1, [], [77]), [], "UsageError"),
        (rq.Bind(0, 1, {"x": 1}), [], "ExecutionError"),
        (rq.Bind(0, 1, {"x": 3, "output:y": 2}), [], "ExecutionError"),
        (rq.Bind(0, 1, {"x": 99, "output:y": 2}), [], "UsageError"),
        (rq.Compile(0, 1, "0" * 32, 0, None), [], "ProtocolError"),
        (rq.Compile(0, 5, "0" * 32, 0, None), [], "UnknownGraphError"),
        (rq.Compile(0, 5, "0" * 32, 0, None), [b"nonsense"], "SerializationError"),
        (rq.Compile(0, 5, "0" * 32, 0, None), [serialize.dump(doubled(5))], "ProtocolError"),
        (rq.Supports(0, "0" * 32), [], "UnknownGraphError"),
        (rq.Content("a" * 64, 5, 0), [b"12345"], "ContentError"),
        (rq.Redeem("a" * 64, None), [], "SessionError"),
        (rq.Fetch(0, 1, "127.0.0.1:9", "a" * 64, "b" * 64), [], "SessionError"),
    ],
)
def test_what_is_wrong_is_refused_and_nothing_changes(bench, request_, frames, error):
    ready(bench)
    bench.does(rq.Allocate(0, 3, 8))
    bench.does(rq.Write(0, 1, 0), [b"\x01" * 16])
    assert bench.fails(request_, frames)[0] == error
    assert bench.does(rq.Read(0, 1, 0, 16))[1] == [b"\x01" * 16]


def test_buffers_of_another_device_are_refused(device):
    bench = Bench(device, FakeDevice("fake:1"))
    bench.does(HELLO)
    ready(bench)
    bench.does(rq.Allocate(1, 3, 16))
    for request, frames in (
        (rq.Write(0, 3, 0), [b"x"]),
        (rq.Read(0, 3, 0, 1), []),
        (rq.Bind(0, 1, {"x": 3, "output:y": 2}), []),
        (rq.Run(0, 1, [(3, 0)], []), [b"x"]),
        (rq.Run(0, 1, [], [3]), []),
        (rq.Explain(1, 1), []),
    ):
        kind, text = bench.fails(request, frames)
        assert kind == "UsageError"
        assert "is not on" in text
    bench.does(rq.Copy(1, 1, 3))
    bench.service.close()


def test_nothing_writes_to_a_weight(bench):
    """It may be another session's, too."""
    ready(bench)
    data = bytes(range(16))
    digest = digest_of(memoryview(data))
    bench.does(rq.Weights(0, [(5, digest, 16)]))
    bench.does(rq.Content(digest, 16, 0), [data])
    bench.does(rq.Weights(0, [(5, digest, 16)]))
    bench.does(rq.Bind(0, 1, {"x": 5, "output:y": 2}))
    kind, text = bench.fails(rq.Bind(0, 1, {"x": 1, "output:y": 5}))
    assert (kind, "is written" in text) == ("ExecutionError", True)
    for request, frames in (
        (rq.Write(0, 5, 0), [b"x"]),
        (rq.Read(0, 5, 0, 1), []),
        (rq.Copy(0, 1, 5), []),
        (rq.Copy(0, 5, 1), []),
        (rq.Run(0, 1, [(5, 0)], []), [b"x"]),
        (rq.Run(0, 1, [], [5]), []),
        (rq.Ticket(0, 5, "d" * 64), []),
        (rq.Fetch(0, 5, "127.0.0.1:9", "a" * 64, "b" * 64), []),
    ):
        kind, text = bench.fails(request, frames)
        assert (kind, "neither read nor written" in text) == ("UsageError", True)


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


def test_a_run_is_checked_before_anything_is_written(bench):
    ready(bench)
    bench.fails(rq.Run(0, 1, [(1, 0), (2, 90)], []), [b"\x07" * 16, b"x"])
    assert bench.does(rq.Read(0, 1, 0, 16))[1] == [bytes(16)]


def test_freed_buffers_end_a_binding(bench):
    ready(bench)
    bench.does(rq.Free(0, [1], []))
    assert "freed" in bench.fails(rq.Run(0, 1, [], []))[1]


def test_everything_is_freed_at_the_end(bench, device):
    free = device.memory().free
    ready(bench)
    bench.does(rq.Allocate(0, 9, 1000))
    assert device.memory().free < free
    bench.send(rq.Bye())
    deadline = time.monotonic() + 20
    while device.memory().free != free and time.monotonic() < deadline:
        time.sleep(0.01)
    assert device.memory().free == free
    assert bench.shared.offers[0].taken == 0
    assert bench.fails(rq.Memory(0))[0] == "SessionError"


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


def test_two_requests_do_not_get_one_handle(device):
    """A device's lane and the one beside it may both have looked whether it is free."""
    bench = Bench(device)
    bench.does(HELLO)
    offer, holdings = bench.shared.offers[0], bench.service._sessions[b"a"].holdings
    check, holdings.check_new_buffer = holdings.check_new_buffer, lambda handle: None
    bench.does(rq.Allocate(0, 1, 8))
    assert bench.fails(rq.Allocate(0, 1, 8))[0] == "ProtocolError"
    assert offer.taken == 8
    holdings.check_new_buffer = check
    bench.service.end(b"a", "of a test")
    eventually(lambda: offer.taken == 0)
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


class Gate:
    """Holds a device's runs until it is opened."""

    def __init__(self):
        self.open = threading.Event()
        self.entered = threading.Event()

    def __call__(self):
        self.entered.set()
        assert self.open.wait(20)


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


def test_a_device_s_errors_reach_the_client_and_nobody_else(device, bench):
    ready(bench)
    device.add_fault(Fault("run", DeviceLostError("fell off", device="fake:0"), times=1))
    assert bench.fails(rq.Run(0, 1, [], [])) == ("DeviceLostError", "fell off")
    bench.does(rq.Run(0, 1, [], []))
    device.add_fault(Fault("run", ZeroDivisionError("oops"), call=3, times=1))
    assert bench.fails(rq.Run(0, 1, [], []))[0] == "ExecutionError"


def test_a_closing_server_admits_nobody(bench):
    bench.service.closing = True
    assert bench.fails(HELLO, peer=b"b")[0] == "ServerClosingError"
    bench.does(rq.Memory(0))


def test_a_key_that_is_taken_off_the_list_ends_its_sessions(bench, device):
    ready(bench)
    bench.does(HELLO, peer=b"b")
    assert bench.fails(rq.Memory(0), ticket_only=True)[1].endswith("not allowed any more")
    assert bench.fails(rq.Memory(0))[0] == "SessionError"
    assert bench.fails(HELLO, ticket_only=True)[0] == "SessionError"
    assert bench.service.peers == [b"b"]
    bench.service.end_unknown(lambda key: key == b"\xcc" * 32)
    assert bench.service.peers == [b"b"]
    bench.service.end_unknown(lambda key: False)
    assert bench.service.peers == []
    eventually(lambda: bench.shared.offers[0].taken == 0)


def eventually(condition):
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def test_who_came_for_a_ticket_gets_nothing_else(bench):
    bench.does(rq.Allocate(0, 1, 8))
    bench.does(rq.Ticket(0, 1, "c" * 64))
    body = bench.ask(HELLO, peer=b"t", ticket_only=True)[0].body
    assert body["devices"] == []
    for request in (rq.Memory(0), rq.Allocate(0, 1, 4), rq.Weights(0, [])):
        assert bench.fails(request, peer=b"t", ticket_only=True)[0] == "SessionError"


def test_tickets(bench):
    bench.does(rq.Allocate(0, 1, 8))
    bench.does(rq.Write(0, 1, 0), [b"12345678"])
    ticket = bench.does(rq.Ticket(0, 1, "c" * 64))[0]["ticket"]
    other = bench.does(rq.Ticket(0, 1, "d" * 64))[0]["ticket"]
    bench.ask(HELLO, peer=b"t", ticket_only=True)
    assert bench.does(rq.Redeem(ticket, None), peer=b"t")[1] == [b"12345678"]
    assert bench.fails(rq.Redeem(ticket, None), peer=b"t")[0] == "SessionError"
    assert bench.fails(rq.Redeem(other, None), peer=b"t")[0] == "SessionError"


def test_a_ticket_gives_no_more_than_a_frame_at_once():
    """Else a client could have a buffer of any size copied into the host's memory."""
    bench = Bench(FakeDevice("fake:0"), limits=Limits(frame_bytes=4))
    bench.does(HELLO)
    bench.does(rq.Allocate(0, 1, 10))
    for offset, data in [(0, b"1234"), (4, b"5678"), (8, b"90")]:
        bench.does(rq.Write(0, 1, offset), [data])
    ticket = bench.does(rq.Ticket(0, 1, "c" * 64))[0]["ticket"]
    for nbytes in (None, 5, 1 << 40):
        assert bench.fails(rq.Redeem(ticket, nbytes)) == (
            "UsageError", f"{nbytes or 10} bytes are not given at once, but 4"
        )  # fmt: skip
    pieces = [bench.does(rq.Redeem(ticket, nbytes))[1] for nbytes in (4, 0, 3)]
    assert pieces == [[b"1234"], [b""], [b"567"]]
    assert bench.fails(rq.Redeem(ticket, 4))[0] == "UsageError"
    assert bench.does(rq.Redeem(ticket, None))[1] == [b"890"]
    assert bench.fails(rq.Redeem(ticket, 0))[0] == "SessionError"
    bench.service.close()


def test_a_ticket_is_good_longer_for_more_bytes(bench, monkeypatch):
    bench.does(rq.Allocate(0, 1, 1 << 19))
    ticket = bench.does(rq.Ticket(0, 1, "c" * 64))[0]["ticket"]
    now = time.monotonic()
    for later, fails in [(30.2, False), (31, True)]:
        monkeypatch.setattr(peers.time, "monotonic", lambda later=later: now + later)
        kind = bench.ask(rq.Redeem(ticket, 8))[0].kind
        assert (kind is Kind.FAILED) is fails


def test_tickets_end_and_are_few(bench, monkeypatch):
    bench.does(rq.Allocate(0, 1, 8))
    monkeypatch.setattr(peers, "_MOST", 2)
    old = bench.does(rq.Ticket(0, 1, "c" * 64))[0]["ticket"]
    bench.does(rq.Ticket(0, 1, "c" * 64))
    assert bench.fails(rq.Ticket(0, 1, "c" * 64))[0] == "SessionError"
    now = time.monotonic()
    monkeypatch.setattr(peers.time, "monotonic", lambda: now + 31)
    assert bench.fails(rq.Redeem(old, None))[0] == "SessionError"
    assert not bench.shared.peers.expects("c" * 64)
    bench.does(rq.Ticket(0, 1, "c" * 64))


def test_bytes_that_wait_are_bounded():
    limits = Limits(waiting=3, waiting_bytes=10)
    limits.check_waiting(0, 0, 100)  # one request may be large
    limits.check_waiting(2, 8, 2)
    for requests, held, more in ((1, 8, 3), (3, 0, 0)):
        with pytest.raises(LimitError):
            limits.check_waiting(requests, held, more)


def test_metrics(bench):
    ready(bench)
    bench.fails(rq.Memory(9))
    text = bench.service.metrics.text()
    assert 'hotplug_rpc_requests_total{kind="allocate"} 2' in text
    assert 'hotplug_rpc_failures_total{error="UsageError"} 1' in text
    assert "# TYPE hotplug_rpc_requests_total counter" in text
