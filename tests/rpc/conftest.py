"""Fixtures of the tests of RPC: keys of their own, and servers."""

from __future__ import annotations

import pytest
from tests.rpc.services import HELLO, Bench

from hotplug.testing.fakes import FakeDevice
from hotplug_rpc.backend import RPCBackend


@pytest.fixture(scope="session", autouse=True)
def keys(tmp_path_factory):
    """A folder of keys, in the environment of all tests and of the servers that they start."""
    folder = tmp_path_factory.mktemp("keys") / "rpc"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOTPLUG_RPC_KEYS", str(folder))
        patch.delenv("HOTPLUG_RPC_SERVERS", raising=False)
        yield folder


@pytest.fixture
def backend():
    """A backend of the test's own, whose connections end with it."""
    made = RPCBackend()
    yield made
    made.close()


@pytest.fixture
def connect(backend):
    """Opens a device by its address; all are closed at the end."""
    opened = []

    def open_device(address):
        device = backend.open(backend.find(address)[0])
        opened.append(device)
        return device

    yield open_device
    for device in opened:
        device.close()


@pytest.fixture
def device():
    return FakeDevice("fake:0", memory_bytes=1 << 20)


@pytest.fixture
def bench(device):
    made = Bench(device)
    made.does(HELLO)
    yield made
    made.service.close()
