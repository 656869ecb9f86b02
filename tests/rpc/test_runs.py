"""Runs on a remote device: what goes along, and what is too much for one message."""

from __future__ import annotations

import numpy as np
import pytest
from tests.rpc.servers import in_thread

from hotplug import ops
from hotplug.backend import Partition
from hotplug.graph import Graph
from hotplug.testing.fakes import FakeDevice
from hotplug_rpc.errors import ProtocolError
from hotplug_rpc.requests import MAX_FRAMES, Bind, Ping


@pytest.fixture
def remote(connect):
    with in_thread([FakeDevice("fake:0", memory_bytes=1 << 24)]) as server:
        yield connect(f"{server.address.server}/fake:0")


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
