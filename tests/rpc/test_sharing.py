"""One model over several servers: the same tokens as on one device."""

from __future__ import annotations

import contextlib
import re
import socket

import pytest
from tests.rpc.models import continuation, write_model
from tests.rpc.servers import in_thread, serve

import hotplug_llm
from hotplug.backend import DeviceType
from hotplug.testing.fakes import FakeDevice
from hotplug_llm.sampling import SamplingOptions
from hotplug_rpc.addresses import Address
from hotplug_rpc.client import weights
from hotplug_rpc.server.build import Options


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "small.gguf")


@pytest.fixture(scope="module")
def expected(model):
    return continuation(model, [local()])


def local(name="cpu:0"):
    return FakeDevice(name, type=DeviceType.CPU, is_host=True)


@pytest.fixture
def servers(tmp_path):
    """Starts servers of this process, each with one fake device; gives their addresses."""
    with contextlib.ExitStack() as stack:

        def start(count, cache=True):
            started = []
            for number in range(count):
                folder = tmp_path / str(number) if cache else None
                options = Options(bind=Address("127.0.0.1", 0), cache=folder)
                started.append(stack.enter_context(in_thread([local(f"cpu:{number}")], options)))
            return started

        yield start


def selector(server):
    return f"{server.address.server}/{server.service.shared.offers[0].id}"


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_same_tokens_over_servers(model, expected, servers, connect, count):
    started = servers(count)
    devices = [connect(selector(server)) for server in started]
    assert continuation(model, devices, [1] * len(devices)) == expected
    for server in started:
        assert server.service.metrics.get("requests_total", 'kind="run"') > 10


def test_the_same_tokens_with_a_local_device_among_them(model, expected, servers, connect):
    devices = [connect(selector(server)) for server in servers(2)]
    devices.insert(1, local("gpu:0"))
    assert continuation(model, devices, [1] * len(devices)) == expected


@pytest.mark.parametrize("kind", ["content", "lend"])
def test_weights_are_brought_once(model, expected, servers, connect, monkeypatch, kind):
    (server,) = servers(1)
    if kind == "content":
        monkeypatch.setattr(weights, "WAYS", weights.WAYS[1:])
    elif not hasattr(socket, "send_fds"):
        pytest.skip("no descriptors through sockets here")
    for _ in range(2):
        device = connect(selector(server))
        assert continuation(model, [device]) == expected
        device.close()
    received = server.service.metrics.get
    times = received("requests_total", f'kind="{kind}"')
    assert times > 0
    assert continuation(model, [connect(selector(server))]) == expected
    assert received("requests_total", f'kind="{kind}"') == times


def test_a_token_is_one_round_trip(model, servers, connect):
    (server,) = servers(1)
    device = connect(selector(server))
    counts = []
    answered = server.service.metrics.get

    def note(_):
        kinds = ("run", "write", "read", "bind", "memory")
        counts.append({kind: answered("requests_total", f'kind="{kind}"') for kind in kinds})

    continuation(model, [device], after=note)
    before, after = counts[4], counts[-1]
    assert after["run"] - before["run"] == len(counts) - 5
    assert {kind: after[kind] - before[kind] for kind in after if kind != "run"} == {
        "write": 0, "read": 0, "bind": 0, "memory": 0,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("mixed", [False, True])
def test_a_real_model_says_the_same(demo_model, tmp_path, count, mixed):
    """Its layers shared out evenly over servers, and a local device among them."""
    prompt, sampling = "Why is the sky blue?", SamplingOptions(temperature=0)
    options = {"precision": "exact", "context": 512}
    with hotplug_llm.load(demo_model, "cpu", **options) as whole:
        answer = whole.generate(prompt, max_tokens=24, sampling=sampling)
        expected = "".join(answer), answer.ids
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(serve("--devices", "cpu", "--cache", str(tmp_path / str(n))))
            for n in range(count)
        ]
        names = ",".join([f"rpc://{server.server}" for server in started] + ["cpu"] * mixed)
        options |= {"fallback": "error", "split": [1] * (count + mixed)}
        with hotplug_llm.load(demo_model, names, **options) as model:
            parts = re.findall(r"^part \d+ on (\S+):$", model.explain(), re.MULTILINE)
            assert set(parts) == {info.id for info in model.devices}
            assert len(set(parts)) == count + mixed
            got = model.generate(prompt, max_tokens=24, sampling=sampling)
            assert ("".join(got), got.ids) == expected
