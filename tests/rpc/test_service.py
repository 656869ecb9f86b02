"""The server without sockets: sessions, handles and errors, on scripted devices."""

from __future__ import annotations

import time

import numpy as np
import pytest
from tests.rpc.services import HELLO, Bench, doubled, eventually, ready

import hotplug
from hotplug import ops, serialize
from hotplug.errors import DeviceLostError
from hotplug.testing.fakes import FakeDevice, Fault
from hotplug_rpc import requests as rq
from hotplug_rpc.contents import digest_of
from hotplug_rpc.server.limits import Limits
from hotplug_rpc.wire import VERSION


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


def test_several_buffers_are_made_each_as_if_it_were_alone(bench, device):
    free = device.memory().free
    bench.does(rq.Allocate(0, 3, 4))
    for buffers, error in (
        ([(3, 8), (1, 8), (2, 1 << 40)], "ProtocolError"),
        ([(1, 8), (2, 1 << 40), (3, 8)], "OutOfDeviceMemoryError"),
        ([(1, 8), (1, 8)], "ProtocolError"),
    ):
        assert bench.fails(rq.AllocateAll(0, buffers))[0] == error
        assert bench.shared.offers[0].taken == 12
        bench.does(rq.Free(0, [1], []))
    bench.does(rq.AllocateAll(0, [(1, 8), (2, 0), (7, 16)]))
    assert bench.does(rq.Read(0, 7, 0, 16))[1] == [bytes(16)]
    bench.does(rq.Free(0, [1, 2, 3, 7], []))
    assert device.memory().free == free


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


def test_metrics(bench):
    ready(bench)
    bench.fails(rq.Memory(9))
    text = bench.service.metrics.text()
    assert 'hotplug_rpc_requests_total{kind="allocate"} 2' in text
    assert 'hotplug_rpc_failures_total{error="UsageError"} 1' in text
    assert "# TYPE hotplug_rpc_requests_total counter" in text


def test_large_counts_have_all_digits(bench):
    bench.service.metrics.add("sent_bytes_total", 123_456_789)
    assert "hotplug_rpc_sent_bytes_total 123456789\n" in bench.service.metrics_text()
    bench.does(rq.Allocate(0, 1, 4))
    text = bench.service.metrics_text()
    assert "hotplug_rpc_sessions 1\n" in text
    assert 'hotplug_rpc_device_taken_bytes{device="fake:0"} 4\n' in text
