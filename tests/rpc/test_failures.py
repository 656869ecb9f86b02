"""Links that are cut or fall silent, devices that hang, runs that are stopped."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tests.rpc.models import continuation, write_model
from tests.rpc.servers import in_thread

from hotplug import ops
from hotplug.backend import DeviceType, Partition
from hotplug.errors import (
    DeviceLostError,
    ExecutionError,
    FallbackWarning,
    OutOfDeviceMemoryError,
    RunCancelledError,
    SettingsError,
)
from hotplug.graph import Graph
from hotplug.registry import Registry
from hotplug.session import Session
from hotplug.testing.fakes import FakeDevice, Fault, fake_backend
from hotplug_rpc.backend import RPCBackend
from hotplug_rpc.errors import DeadlineError, ProtocolError, ServerLostError
from hotplug_rpc.server.build import Options
from hotplug_rpc.testing import Link


@pytest.fixture
def device():
    return FakeDevice("fake:0", memory_bytes=1 << 24)


@pytest.fixture
def link(device, monkeypatch):
    """A server with the device, behind a link; a silent peer is given up after half a second."""
    monkeypatch.setenv("HOTPLUG_RPC_HEARTBEAT", "0.5")
    with in_thread([device]) as server, Link(server.address.port) as made:
        made.server = server
        yield made


@pytest.fixture
def remote(link, connect):
    return connect(f"127.0.0.1:{link.port}/fake:0")


class Doubling:
    """A compiled x + x of so many floats."""

    def __init__(self, device, count=16):
        x = ops.input(name="x", dtype="f32", shape=(count,))
        graph = Graph.build({"y": ops.add(x, x)})
        self.x = np.arange(count, dtype=np.float32)
        self.executable = device.compile(Partition(graph))
        allocate = device.buffers.allocate
        self.bindings = {"x": allocate(4 * count), "output:y": allocate(4 * count)}

    def run(self):
        self.bindings["x"].write(0, self.x.data)
        self.executable.run(self.bindings)
        got = np.empty_like(self.x)
        self.bindings["output:y"].read(0, got.data)
        return bool((got == 2 * self.x).all())


@pytest.mark.parametrize("count", [16, 1 << 18], ids=["small", "large"])
def test_latency_changes_nothing(link, remote, count):
    link.seconds = 0.005
    doubling = Doubling(remote, count)
    assert doubling.run()
    assert doubling.run()


def test_a_cut_link_is_an_error_at_once(link, remote):
    doubling = Doubling(remote)
    assert doubling.run()
    link.cut()
    with pytest.raises(ServerLostError, match="gone") as caught:
        doubling.run()
    assert isinstance(caught.value, DeviceLostError)


def test_a_silent_link_is_an_error_soon(link, remote):
    doubling = Doubling(remote)
    assert doubling.run()
    link.silence(silent=True)
    began = time.monotonic()
    with pytest.raises(ServerLostError, match="gone"):
        doubling.run()
    assert time.monotonic() - began < 20


def test_the_server_frees_what_a_lost_client_held(link, remote, device):
    free = device.memory().free
    Doubling(remote)
    remote.memory()
    assert device.memory().free < free
    link.cut()
    deadline = time.monotonic() + 20
    while device.memory().free != free and time.monotonic() < deadline:
        time.sleep(0.05)
    assert device.memory().free == free
    assert link.server.service.peers == []


def test_a_new_connection_works_after_a_cut(link, remote, backend):
    link.cut()
    with pytest.raises(ServerLostError):
        remote.memory()
    with backend.open(backend.find(f"127.0.0.1:{link.port}/fake:0")[0]) as again:
        assert Doubling(again).run()


def test_a_device_that_hangs_is_given_up(device, monkeypatch, backend):
    monkeypatch.setenv("HOTPLUG_RPC_TIMEOUT", "0.5")
    gate = threading.Event()
    with in_thread([device]) as server:
        remote = backend.open(backend.find(f"{server.address.server}/fake:0")[0])
        doubling = Doubling(remote)
        device.add_fault(Fault("run", lambda: gate.wait(20)))
        with pytest.raises(DeadlineError, match=r"0\.5 s") as caught:
            doubling.run()
        assert caught.value.seconds == 0.5
        with pytest.raises(ServerLostError, match=r"0\.5 s"):
            remote.memory()
        gate.set()
        remote.close()


def test_closing_tells_those_who_wait(device, backend):
    gate, told = threading.Event(), []
    with in_thread([device]) as server:
        remote = backend.open(backend.find(f"{server.address.server}/fake:0")[0])
        doubling, begun = Doubling(remote), threading.Event()
        device.add_fault(Fault("run", lambda: (begun.set(), gate.wait(20))))

        def work():
            with pytest.raises(ServerLostError, match="disconnected"):
                doubling.run()
            told.append(True)

        waiting = threading.Thread(target=work)
        waiting.start()
        assert begun.wait(20)
        remote.close()
        waiting.join(10)
        assert told
        gate.set()


@pytest.mark.parametrize("variable", ["HOTPLUG_RPC_TIMEOUT", "HOTPLUG_RPC_HEARTBEAT"])
@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "1e9"])
def test_variables_that_are_not_understood(link, backend, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=variable):
        backend.find(f"127.0.0.1:{link.port}")


def test_a_run_is_stopped(device, connect, monkeypatch):
    stopped, begun = threading.Event(), threading.Event()

    def hang():
        begun.set()
        assert stopped.wait(20)
        raise RunCancelledError("stopped", device="fake:0")

    compile_here = device.compile

    def compile_stoppable(partition):
        executable = compile_here(partition)
        executable.stop = stopped.set
        return executable

    monkeypatch.setattr(device, "compile", compile_stoppable)
    with in_thread([device]) as server:
        remote = connect(f"{server.address.server}/fake:0")
        doubling = Doubling(remote)
        doubling.executable.stop()  # nothing runs, and nothing happens
        device.add_fault(Fault("run", hang, times=1))
        threading.Thread(target=lambda: (begun.wait(20), doubling.executable.stop())).start()
        with pytest.raises(RunCancelledError, match="stopped"):
            doubling.run()
        assert doubling.run()


def test_what_failed_without_being_waited_for_is_told_later(remote, device):
    device.add_fault(Fault("write", ExecutionError("broken memory", device="fake:0"), times=1))
    doubling = Doubling(remote)
    doubling.bindings["x"].write(0, doubling.x.data)
    with pytest.raises(ExecutionError, match="broken memory") as caught:
        doubling.bindings["output:y"].read(0, memoryview(bytearray(64)))
    assert caught.value.device == "rpc:0"
    assert doubling.run()


def test_answers_of_the_wrong_size_are_errors(remote):
    """A server is believed as little as a client."""
    doubling = Doubling(remote)
    settle = remote.settle

    def damaged(change):
        def settled(pending):
            answer = settle(pending)
            answer.frames = change(answer.frames)
            return answer

        remote.settle = settled

    for change in (lambda frames: [], lambda frames: [f[:-1] for f in frames]):
        damaged(change)
        with pytest.raises(ProtocolError, match="instead of"):
            doubling.run()
    with pytest.raises(ProtocolError, match="instead of"):
        doubling.bindings["output:y"].read(0, memoryview(bytearray(64)))
    remote.settle = settle
    assert doubling.run()


def test_memory_that_is_not_there(remote):
    for nbytes in (1 << 25, 1 << 40):
        with pytest.raises(OutOfDeviceMemoryError) as caught:
            remote.buffers.allocate(nbytes)
        assert caught.value.requested == nbytes
        assert caught.value.device == "rpc:0"
    held = [remote.buffers.allocate(1 << 20) for _ in range(16)]
    refused = remote.buffers.allocate(1 << 19)
    with pytest.raises(OutOfDeviceMemoryError):
        refused.read(0, memoryview(bytearray(4)))
    for buffer in held:
        buffer.free()


def test_a_session_goes_on_without_its_server(link, remote, tmp_path):
    model = write_model(tmp_path / "small.gguf")
    local = FakeDevice("cpu:0", type=DeviceType.CPU, is_host=True)
    expected = continuation(model, [local])
    with pytest.warns(FallbackWarning, match="rpc:0"):
        got = continuation(
            model, [remote, local], after=lambda count: link.cut() if count == 9 else None
        )
    assert got == expected


def test_a_server_that_is_back_is_used_again(device, monkeypatch):
    """By itself, in a session that takes in what appears."""
    monkeypatch.setenv("HOTPLUG_RPC_RETRY", "0.05")
    returned = threading.Event()
    registry = Registry(list)
    registry.register(RPCBackend(lambda: (registry.refresh(), returned.set())))
    registry.register(fake_backend("cpu", FakeDevice("cpu:0", type=DeviceType.CPU, is_host=True)))
    x = ops.input(name="x", dtype="f32", shape=(4,))
    graph, inputs = Graph.build({"y": ops.add(x, x)}), {"x": np.ones(4, np.float32)}
    with contextlib.ExitStack() as stack:
        first = in_thread([device])
        address = first.__enter__().address
        selector = f"rpc://{address.server}/fake:0"
        session = stack.enter_context(Session(selector, registry=registry, hot_plug=True))
        assert session.run(graph, inputs)["y"].tolist() == [2] * 4
        first.__exit__(None, None, None)
        with pytest.warns(FallbackWarning, match="gone"):
            assert session.run(graph, inputs)["y"].tolist() == [2] * 4
        assert [item.id for item in session.devices] == ["cpu:0"]
        stack.enter_context(in_thread([device], Options(bind=address)))
        assert returned.wait(20)
        assert session.run(graph, inputs)["y"].tolist() == [2] * 4
        assert [item.id for item in session.devices] == ["rpc:0", "cpu:0"]
        assert device.calls["run"] == 2
        session.close()
        registry.unload("rpc")


@contextlib.contextmanager
def beside_one_that_ends(device, monkeypatch):
    """A session on a server that is about to end, and on a processor; and what runs it once more.

    It adds to a state, which has been done once.
    """
    monkeypatch.setattr("hotplug_rpc.server.loop._NUDGE_SECONDS", 0.0)
    monkeypatch.setattr("hotplug_rpc.server.loop._LOOK_MS", 10)
    registry = Registry(list)
    registry.register(RPCBackend())
    registry.register(fake_backend("cpu", FakeDevice("cpu:0", type=DeviceType.CPU, is_host=True)))
    x = ops.input(name="x", dtype="f32", shape=(4,))
    total = ops.add(ops.state(name="total", dtype="f32", shape=(4,)), x)
    graph, inputs = Graph.build({"y": total}, {"total": total}), {"x": np.ones(4, np.float32)}
    with in_thread([device]) as server:
        selector = f"rpc://{server.address.server}/fake:0,cpu"
        with Session(selector, registry=registry, fallback="error") as session:

            def run():
                return session.run(graph, inputs)["y"].tolist()

            assert run() == [1] * 4
            server.drain(60)
            yield session, registry, run
            assert [item.id for item in session.devices] == ["cpu:0"]
            assert not session.failed
    registry.unload("rpc")


def test_a_server_that_is_about_to_end_is_drained(device, monkeypatch):
    with beside_one_that_ends(device, monkeypatch) as (_, registry, run):
        while not registry.refresh():  # it takes a moment to hear of it
            time.sleep(0.01)
        assert run() == [2] * 4
    assert device.calls["run"] == 1


def test_sessions_leave_a_server_that_is_about_to_end_without_being_told(device, monkeypatch):
    with beside_one_that_ends(device, monkeypatch) as (session, _, run):
        runs = 1
        while len(session.devices) > 1:  # a run's answer brings the news
            runs += 1
            assert run() == [runs] * 4
    assert 1 <= device.calls["run"] < runs


def test_a_server_that_does_not_answer_is_told_of_once(device, monkeypatch, caplog, backend):
    with in_thread([device]) as down:
        pass
    with in_thread([device]) as up:
        servers = f"{down.address.server},{up.address.server}"
        monkeypatch.setenv("HOTPLUG_RPC_SERVERS", servers)
        for _ in range(3):
            assert len(backend.probe()) == 1
    assert [record.levelname for record in caplog.records if "listens" in record.message] == [
        "WARNING"
    ]


def test_a_server_that_is_started_after_a_selector_named_it_is_taken_in(device):
    registry = Registry(list)
    registry.register(RPCBackend())
    registry.register(fake_backend("cpu", FakeDevice("cpu:0", type=DeviceType.CPU, is_host=True)))
    x = ops.input(name="x", dtype="f32", shape=(4,))
    graph, inputs = Graph.build({"y": ops.add(x, x)}), {"x": np.ones(4, np.float32)}
    with in_thread([device]) as server:
        address = server.address
    with contextlib.ExitStack() as stack:
        selector = f"rpc://{address.server}/fake:0,cpu"
        session = stack.enter_context(Session(selector, registry=registry, hot_plug=True))
        for ids in (["cpu:0"], ["rpc:0", "cpu:0"]):
            registry.refresh()
            assert session.run(graph, inputs)["y"].tolist() == [2] * 4
            assert [item.id for item in session.devices] == ids
            if len(ids) == 1:
                stack.enter_context(in_thread([device], Options(bind=address)))
        session.close()
        registry.unload("rpc")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="processes cannot be stopped there")
@pytest.mark.timeout(600)
def test_chaos():
    sys.path.append(str(Path(__file__).parents[2] / "tools"))
    import chaos_rpc

    with chaos_rpc.chaos(seed=5) as made:
        answer = made.run(25)
    assert answer["broken"] == []
    assert sum(answer["outcomes"].values()) == 25
