"""Runs that are ended from outside, and devices that give no answer."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hotplug import ops
from hotplug.backend import DeviceType
from hotplug.dtypes import get
from hotplug.errors import (
    DeadlineExceededError,
    DeviceHungError,
    FallbackWarning,
    RunCancelledError,
    StatesLostError,
    UsageError,
)
from hotplug.graph import Graph
from hotplug.session import CancelToken, Session
from hotplug.session.worker import Worker
from hotplug.tensor import HostTensor, TensorType
from hotplug.testing.fakes import FakeDevice, FakeExecutable, Fault
from hotplug.testing.faults import FaultyDevice

FOR_EVER = 1e9
RETURNED = Worker.returned

X = np.arange(8, dtype=np.float32)


pytestmark = pytest.mark.usefixtures("hasty")


def gpu(*faults: Fault, index: int = 0, **options: Any) -> FakeDevice:
    return FakeDevice(f"gpu:{index}", faults=faults, **options)


def cpu(*faults: Fault) -> FakeDevice:
    return FakeDevice("cpu:0", type=DeviceType.CPU, is_host=True, faults=faults)


WEIGHTS = {"w": HostTensor(TensorType(get("f32"), (8,)), np.full(8, -1, np.float32).view(np.uint8))}


def spare() -> FakeDevice:
    return FakeDevice("spare:1", type=DeviceType.CPU, is_host=True)


def negation() -> Graph:
    """It runs where its weight is: on the first device."""
    x = ops.input(name="x", dtype="f32", shape=(8,))
    return Graph.build({"y": ops.mul(x, ops.weight(name="w", dtype="f32", shape=(8,)))})


def counter() -> Graph:
    total = ops.state(name="total", dtype="f32", shape=(8,))
    grown = ops.add(total, ops.input(name="x", dtype="f32", shape=(8,)))
    return Graph.build({"total": grown}, {"total": grown})


def eventually(true: Callable[[], bool]) -> bool:
    for _ in range(500):
        if true():
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("step", ["compile", "allocate", "write", "run", "read"])
def test_a_device_that_hangs_is_left_and_gives_all_back_when_it_returns(gate, step) -> None:
    card = gpu(Fault(step, gate.wait, times=1))
    with Session([card, cpu()], WEIGHTS, fallback="warn", device_timeout=60) as session:
        with pytest.warns(FallbackWarning, match="gave no answer within"):
            result = session.run(negation(), {"x": X})
        assert list(result["y"]) == list(-X)
        held = session.quarantine["gpu:0"]
        assert isinstance(held.error, DeviceHungError)
        assert held.stuck
        if step in {"run", "read"}:  # the others hang in making what would be held
            assert held.nbytes == card.buffers.memory.used
        gate.open()
        assert eventually(lambda: not session.quarantine["gpu:0"].stuck)
        assert session.quarantine["gpu:0"].nbytes == 0
        assert card.buffers.memory.used == 0
        session.restore("gpu:0")
        assert list(session.run(negation(), {"x": X})["y"]) == list(-X)
        assert card.calls["run"] >= 1


def test_a_device_that_still_hangs_cannot_be_brought_back(gate) -> None:
    with Session(
        [gpu(Fault("run", gate.wait, times=1)), cpu()],
        WEIGHTS,
        fallback="allow",
        device_timeout=60,
    ) as session:
        session.run(negation(), {"x": X})
        with pytest.raises(DeviceHungError, match="still gives no answer"):
            session.restore("gpu:0")
    assert gate.reached.is_set()


def test_a_session_closes_though_its_device_hangs(gate) -> None:
    card = gpu(Fault("run", gate.wait))
    with (
        Session([card], WEIGHTS, fallback="error", device_timeout=60) as session,
        pytest.raises(DeviceHungError),
    ):
        session.run(negation(), {"x": X})
    assert card.buffers.memory.used > 0  # the call works on it
    gate.open()
    assert eventually(lambda: card.buffers.memory.used == 0)


def test_the_device_that_hangs_in_a_copy_is_told_from_the_other(gate) -> None:
    first = gpu(unsupported={"relu"})
    second = FakeDevice("other:1", faults=[Fault("write", gate.wait, call=1)])
    third = FakeDevice("third:2")
    graph = Graph.build({"y": ops.relu(dict(negation().outputs)["y"])})
    with Session([first, second, third], WEIGHTS, fallback="allow", device_timeout=60) as session:
        assert list(session.run(graph, {"x": -X})["y"]) == list(X)
        assert list(session.quarantine) == ["other:1"]
        assert list(session.run(graph, {"x": -X})["y"]) == list(X)


def test_a_device_that_hangs_while_another_reads_from_it_is_told_from_that(gate) -> None:
    first = FaultyDevice(gpu(unsupported={"relu"}), [Fault("read", gate.wait)])
    second, third = FakeDevice("other:1"), FakeDevice("third:2", unsupported={"relu"})
    graph = Graph.build({"y": ops.relu(dict(negation().outputs)["y"])})
    devices = [first, third, second]
    with Session(devices, WEIGHTS, fallback="allow", device_timeout=60) as session:
        for _ in range(2):
            assert list(session.run(graph, {"x": -X})["y"]) == list(X)
            assert list(session.quarantine) == ["gpu:0"]
            assert session.quarantine["gpu:0"].stuck


@pytest.mark.parametrize("make", [cpu, gpu])
def test_a_run_ends_by_its_deadline(gate, make) -> None:
    device = make(Fault("run", gate.wait, call=2, times=1))
    devices = [device, spare()]
    with Session(devices, WEIGHTS, fallback="allow", device_timeout=FOR_EVER) as session:
        program = session.compile(negation())
        assert list(program.run({"x": X}, timeout=60)["y"]) == list(-X)
        with pytest.raises(DeadlineExceededError, match="not done within"):
            program.run({"x": X}, timeout=0.1)
        # It did not let go of the run, so that others go on.
        assert list(program.run({"x": X})["y"]) == list(-X)
        assert isinstance(session.failed[device.id], DeviceHungError)


def test_a_device_that_ends_its_work_in_time_is_kept(gate, monkeypatch) -> None:
    monkeypatch.setattr("hotplug.session.worker._GRACE", 30)
    device = gpu(Fault("run", gate.wait, times=1))
    threading.Timer(0.2, gate.open).start()
    with Session([device], WEIGHTS, fallback="error", device_timeout=FOR_EVER) as session:
        with pytest.raises(DeadlineExceededError):
            session.compile(negation()).run({"x": X}, timeout=0.05)
        assert list(session.run(negation(), {"x": X})["y"]) == list(-X)
        assert not session.failed


@pytest.mark.parametrize("make", [cpu, gpu])
def test_a_device_is_asked_to_end_its_work(gate, monkeypatch, make) -> None:
    monkeypatch.setattr("hotplug.session.worker._GRACE", 5)
    monkeypatch.setattr(FakeExecutable, "stop", lambda executable: gate.open())
    device = make(Fault("run", gate.wait, times=1))
    with Session([device], WEIGHTS, fallback="error", device_timeout=FOR_EVER) as session:
        program = session.compile(negation())
        with pytest.raises(DeadlineExceededError):
            program.run({"x": X}, timeout=0.05)
        assert list(program.run({"x": X})["y"]) == list(-X)
        assert not session.failed


@pytest.mark.parametrize("make", [cpu, gpu])
def test_a_device_that_comes_back_before_the_next_run_is_kept(gate, make) -> None:
    device = make(Fault("run", gate.wait, times=1))
    with Session([device], WEIGHTS, fallback="error", device_timeout=FOR_EVER) as session:
        program = session.compile(negation())
        with pytest.raises(DeadlineExceededError):
            program.run({"x": X}, timeout=0.05)
        gate.open()
        assert eventually(lambda: not any(m.worker.stuck for m in session._fleet.members.values()))
        assert list(program.run({"x": X})["y"]) == list(-X)
        assert not session.failed


@pytest.mark.parametrize("make", [cpu, gpu])
def test_the_next_run_waits_for_a_device_that_is_slow_to_end_the_last(
    gate, monkeypatch, make
) -> None:
    monkeypatch.setattr(Worker, "returned", RETURNED)
    device = make(Fault("run", gate.wait, times=1))
    with Session([device], WEIGHTS, fallback="error", device_timeout=FOR_EVER) as session:
        program = session.compile(negation())
        for _ in range(2):  # the second for waiting
            with pytest.raises(DeadlineExceededError):
                program.run({"x": X}, timeout=0.05)
        threading.Timer(0.1, gate.open).start()
        assert list(program.run({"x": X})["y"]) == list(-X)
        assert not session.failed


@pytest.mark.parametrize("make", [cpu, gpu])
def test_another_thread_cancels_a_run(gate, make) -> None:
    token = CancelToken()
    devices = [make(Fault("run", gate.wait)), spare()]
    with Session(devices, WEIGHTS, fallback="allow", device_timeout=FOR_EVER) as session:
        program = session.compile(negation())

        def cancel() -> None:
            gate.reached.wait(600)
            token.cancel("the user has had enough")

        thread = threading.Thread(target=cancel)
        thread.start()
        with pytest.raises(RunCancelledError, match="the user has had enough"):
            program.run({"x": X}, cancel=token)
        thread.join()
        with pytest.raises(RunCancelledError):  # for good
            program.run({"x": X}, cancel=token)


def test_a_cancelled_run_that_is_still_at_work_costs_its_states(gate) -> None:
    devices = [gpu(Fault("run", gate.wait, call=2)), cpu()]
    with Session(devices, WEIGHTS, fallback="allow", device_timeout=FOR_EVER) as session:
        program = session.compile(counter())
        program.run({"x": X})
        with pytest.raises(DeadlineExceededError):
            program.run({"x": X}, timeout=0.05)
        with pytest.raises(StatesLostError, match="gpu:0"):
            program.run({"x": X})
        assert list(program.run({"x": X})["total"]) == list(X)


def test_the_time_is_a_number_above_zero() -> None:
    with Session([cpu()], WEIGHTS) as session, pytest.raises(UsageError, match="above 0"):
        session.compile(negation()).run({"x": X}, timeout=0)


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such signals")
@pytest.mark.parametrize("make", [cpu, gpu])
def test_ctrl_c_does_not_wait_for_a_device(gate, monkeypatch, make) -> None:
    monkeypatch.setattr("hotplug.session.compiled._LONG", 0)  # so that the processor is watched
    device = make(Fault("run", gate.wait))
    devices = [device, spare()]
    with Session(devices, WEIGHTS, fallback="allow", device_timeout=FOR_EVER) as session:
        program = session.compile(negation())

        ended = threading.Event()

        def interrupt() -> None:
            gate.reached.wait(600)
            # As a user does: Python loses one that finds it in a finaliser, which may run any time.
            while not ended.is_set():
                os.kill(os.getpid(), signal.SIGINT)
                ended.wait(20)

        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                program.run({"x": X})
        finally:
            ended.set()
            thread.join()
        assert list(program.run({"x": X})["y"]) == list(-X)
        assert isinstance(session.failed[device.id], DeviceHungError)


def test_a_run_does_not_wait_for_another_longer_than_it_may(gate) -> None:
    device = gpu(Fault("run", gate.wait, times=1))
    with Session([device], WEIGHTS, device_timeout=FOR_EVER) as session:
        program = session.compile(negation())
        thread = threading.Thread(target=program.run, args=({"x": X},))
        thread.start()
        gate.reached.wait(600)
        with pytest.raises(DeadlineExceededError):
            program.run({"x": X}, timeout=0.05)
        gate.open()
        thread.join()
        assert list(program.run({"x": X})["y"]) == list(-X)
        assert not session.failed


def test_threads_end_with_a_session_that_is_dropped() -> None:
    device = FakeDevice("dropped:0")
    session = Session([device], WEIGHTS, device_timeout=FOR_EVER)
    session.run(negation(), {"x": X})
    [thread] = [one for one in threading.enumerate() if one.name == "hotplug-dropped:0"]
    del session
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()


def test_large_work_has_more_time(gate) -> None:
    with Session([gpu()], WEIGHTS, device_timeout=2.0) as session:
        x = ops.input(name="x", dtype="f32", shape=(1000, 1000))
        small, large = (
            session.compiled(negation()),
            session.compiled(Graph.build({"y": ops.matmul(x, x)})),
        )
        assert small.steps[0].limit == pytest.approx(2.0, abs=0.01)
        assert large.steps[0].limit == pytest.approx(4.0, abs=0.1)
