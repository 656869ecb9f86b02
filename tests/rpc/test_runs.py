"""Runs on a remote device: what goes along, and what is too much for one message."""

from __future__ import annotations

import numpy as np
import pytest
from tests.rpc.servers import in_thread

from hotplug import ops
from hotplug.backend import Partition
from hotplug.errors import OutOfDeviceMemoryError
from hotplug.graph import Graph
from hotplug.testing.fakes import FakeDevice
from hotplug_rpc.errors import ProtocolError
from hotplug_rpc.requests import MAX_FRAMES, Bind, Ping


@pytest.fixture
def server():
    with in_thread([FakeDevice("fake:0", memory_bytes=1 << 24)]) as made:
        yield made


@pytest.fixture
def remote(server, connect):
    return connect(f"{server.address.server}/fake:0")


@pytest.mark.parametrize(("minor", "asked"), [(3, (0, 2)), (2, (300, 0))])
def test_buffers_are_made_with_the_next_request(server, connect, monkeypatch, minor, asked):
    """Of which an older server wants one for each."""
    monkeypatch.setattr("hotplug_rpc.server.service.VERSION", (1, minor))
    remote = connect(f"{server.address.server}/fake:0")
    buffers = [remote.buffers.allocate(8) for _ in range(300)]
    buffers[0].write(0, memoryview(b"12345678"))
    back = bytearray(8)
    for buffer, content in ((buffers[0], b"12345678"), (buffers[299], bytes(8))):
        buffer.read(0, memoryview(back))
        assert back == content
    kinds = ("allocate", "allocate_all")
    got = [server.service.metrics.get("requests_total", f'kind="{kind}"') for kind in kinds]
    assert tuple(got) == asked


def test_large_buffers_are_asked_for_where_memory_may_be_short(server, remote):
    """Else a model's states would be a round trip each."""
    asked = lambda: server.service.metrics.get("requests_total", 'kind="allocate"')  # noqa: E731
    assert remote.memory().free == 1 << 24
    held = [remote.buffers.allocate(2 << 20) for _ in range(3)]
    assert asked() == 0
    held += [remote.buffers.allocate(4 << 20) for _ in range(2)]  # more than a quarter of the rest
    assert asked() == 2
    with pytest.raises(OutOfDeviceMemoryError):
        remote.buffers.allocate(4 << 20)
    assert remote.memory().free == 2 << 20
    assert len(held) == 5


def test_buffers_that_are_not_made_are_an_error_of_what_comes_next(remote):
    for _ in range(20):
        held = remote.buffers.allocate(1 << 20)
    with pytest.raises(OutOfDeviceMemoryError):
        held.read(0, memoryview(bytearray(4)))


def test_a_buffer_that_is_not_made_takes_no_other_along(server, remote):
    held = [remote.buffers.allocate(1 << 20) for _ in range(17)]
    back = bytearray(4)
    with pytest.raises(OutOfDeviceMemoryError):
        held[0].read(0, memoryview(back))
    held[0].write(0, memoryview(b"1234"))
    held[0].read(0, memoryview(back))
    assert back == b"1234"
    assert server.service.metrics.get("requests_total", 'kind="allocate_all"') == 1


def test_more_results_than_come_along(remote):
    count = MAX_FRAMES + 10
    value = ops.input(name="x", dtype="f32", shape=(2,))
    outputs = {}
    for number in range(count):
        value = ops.neg(value)
        outputs[f"y{number}"] = value
    executable = remote.compile(Partition(Graph.build(outputs)))
    names = ["x", *(f"output:{name}" for name in outputs)]
    bindings = {name: remote.buffers.allocate(8) for name in names}
    bindings["x"].write(0, np.array([1, 2], np.float32).data)
    executable.run(bindings)
    got = np.empty(2, np.float32)
    for number in (0, 1, count - 2, count - 1):
        bindings[f"output:y{number}"].read(0, got.data)
        assert got.tolist() == ([1, 2] if number % 2 else [-1, -2])


def test_a_head_that_is_too_long_is_not_waited_for(remote, monkeypatch):
    monkeypatch.setattr("hotplug_rpc.wire.MAX_HEAD", 1000)
    connection = remote.connection
    names = {f"{number:064}": number for number in range(20)}
    for _ in range(200):  # more than may be pending
        with pytest.raises(ProtocolError, match="is not sent"):
            connection.submit(Bind(0, 1, names))
    assert connection.request(Ping(), [b"x"]).frames == [b"x"]


def test_what_has_no_answer_is_not_waited_for(remote):
    connection = remote.connection
    answered = connection.request(Ping())
    for _ in range(300):  # more than may be pending
        connection.take_back(answered)
    assert connection.request(Ping(), [b"x"]).frames == [b"x"]
