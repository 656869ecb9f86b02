"""Weights that are brought to a server before a device is to have them."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from tests.rpc.models import write_model
from tests.rpc.servers import in_thread

from hotplug.formats.gguf import GGUFFile
from hotplug.session import Session
from hotplug.testing.fakes import FakeDevice
from hotplug_rpc.addresses import Address
from hotplug_rpc.client import weights
from hotplug_rpc.errors import ServerLostError
from hotplug_rpc.requests import Memory
from hotplug_rpc.server.build import Options
from hotplug_rpc.server.weights import WeightStore


@pytest.fixture
def server(tmp_path):
    options = Options(bind=Address("127.0.0.1", 0), cache=tmp_path / "cache")
    with in_thread([FakeDevice("fake:0")], options) as started:
        yield started


@pytest.fixture
def device(server, connect):
    return connect(f"{server.address.server}/fake:0")


def content(seed, nbytes=5000):
    data = np.random.default_rng(seed).integers(0, 256, nbytes, np.uint8)
    return memoryview(data.tobytes())


def asked(server, kind):
    return server.service.metrics.get("requests_total", f'kind="{kind}"')


def wait_until(holds, seconds=20):
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_what_is_expected_is_there_when_it_is_asked_for(server, device, monkeypatch):
    monkeypatch.setattr(weights, "_BATCH", 8000)  # several batches
    data = [content(seed) for seed in range(5)]
    device.buffers.expect([*data, memoryview(bytearray(10))])
    wait_until(lambda: asked(server, "content") == 5)
    offer = server.service.shared.offers[0]
    assert offer.taken == 0
    assert all(buffer is not None for buffer in device.buffers.wrap_all(data))
    assert asked(server, "content") == 5
    assert asked(server, "weights") == 1
    assert offer.taken == 5 * 5000


def test_a_session_with_one_device_says_what_it_will_need(server, device, tmp_path):
    with GGUFFile.open(write_model(tmp_path / "model.gguf")) as file:
        tensors = {name: file.tensor(name) for name in file.tensors}
        with Session([device], tensors):
            wait_until(lambda: asked(server, "want") > 0)
            wait_until(lambda: asked(server, "lend") + asked(server, "content") > 0)


def test_others_are_not_kept_waiting(server, device, monkeypatch):
    """A transfer that takes long does not stop planning and compiling of the same client."""
    entered, go_on = threading.Event(), threading.Event()
    receive = WeightStore.receive

    def slow(*arguments):
        entered.set()
        assert go_on.wait(20)
        receive(*arguments)

    monkeypatch.setattr(WeightStore, "receive", slow)
    device.buffers.expect([content(0)])
    assert entered.wait(20)
    assert device.connection.request(Memory(0)).body["total"] is None
    go_on.set()
    assert device.buffers.wrap(content(0)) is not None


def test_older_servers_are_not_asked(server, device):
    device.connection.minor = 0
    device.buffers.expect([content(0)])
    assert device.buffers.wrap(content(0)) is not None
    assert asked(server, "want") == 0


def test_what_goes_wrong_is_told_when_it_matters(server, device):
    device.buffers.expect([content(0)])
    server.drain(0)
    with pytest.raises(ServerLostError):
        device.buffers.wrap(content(1))


def test_closing_ends_it(server, device, monkeypatch):
    monkeypatch.setattr(weights, "_BATCH", 1)
    many = [content(seed, 100) for seed in range(2000)]
    device.buffers.expect(many)
    wait_until(lambda: asked(server, "content") > 0)
    device.close()
    wait_until(lambda: not any(t.name == "hotplug-rpc-ahead" for t in threading.enumerate()))
    assert asked(server, "content") < 2000
