"""Devices that come and go while a session is in use."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from hotplug import ops
from hotplug.backend import DeviceType
from hotplug.dtypes import get
from hotplug.errors import (
    BackendInUseError,
    DeadlineExceededError,
    DeviceLostError,
    DeviceNotFoundError,
    DeviceUnavailableError,
    ExecutionError,
    FallbackWarning,
    UsageError,
)
from hotplug.graph import Graph
from hotplug.registry import Event, EventKind, Registry, watch
from hotplug.session import Session
from hotplug.tensor import HostTensor, TensorType
from hotplug.testing.fakes import FakeBackend, FakeDevice, Fault, fake_backend

ONES = np.ones(4, np.float32)
WEIGHTS = {"w": HostTensor(TensorType(get("f32"), (4,)), ONES.view(np.uint8))}


def gpu(name: str = "gpu:0", **options: object) -> FakeDevice:
    return FakeDevice(name, **options)  # type: ignore[arg-type]


def cpu() -> FakeDevice:
    return FakeDevice("cpu:0", type=DeviceType.CPU, is_host=True)


def counter() -> Graph:
    """A state that lives with a weight, and grows by the input times that weight at every run."""
    x = ops.mul(
        ops.input(name="x", dtype="f32", shape=(4,)), ops.weight(name="w", dtype="f32", shape=(4,))
    )
    grown = ops.add(ops.state(name="total", dtype="f32", shape=(4,)), x)
    return Graph.build({"total": grown}, {"total": grown})


def total(session: Session) -> float:
    return float(session.run(counter(), {"x": ONES})["total"][0])


def where(session: Session) -> tuple[str, ...]:
    return session.plan(counter()).devices


@pytest.fixture
def card() -> FakeDevice:
    return FakeDevice("card:0")


@pytest.fixture
def cards(card) -> FakeBackend:
    return fake_backend("card", card)


@pytest.fixture
def registry(cards) -> Registry:
    made = Registry(list)
    made.register(fake_backend("cpu", cpu()))
    made.register(cards)
    return made


# --- by the session's own methods


def test_a_device_is_taken_in_between_two_runs_with_what_states_hold() -> None:
    host, card = cpu(), gpu()
    with Session([host], WEIGHTS) as session:
        assert total(session) == 1
        assert session.add_device(card) == ["gpu:0"]
        assert [device.id for device in session.devices] == ["gpu:0", "cpu:0"]  # as types go
        assert total(session) == 2
        assert where(session) == ("gpu:0",)
        assert session.add_device(card) == []
    assert card.buffers.memory.used == host.buffers.memory.used == 0


def test_a_device_takes_the_place_that_is_asked_for() -> None:
    with Session([gpu()], WEIGHTS) as session:
        session.add_device(gpu("other:1"), place=0)
        assert [device.id for device in session.devices] == ["other:1", "gpu:0"]
        total(session)
        assert where(session) == ("other:1",)


def test_a_device_is_drained_before_it_is_left() -> None:
    card = gpu()
    with Session([card, cpu()], WEIGHTS) as session:
        total(session)
        session.remove_device("gpu:0")
        assert card.buffers.memory.used == 0
        assert total(session) == 2
        assert not session.failed
        with pytest.raises(UsageError, match=r"not in use; in use: cpu:0"):
            session.remove_device("gpu:0")
        with pytest.raises(UsageError, match="nothing else may take over"):
            Session([gpu()], fallback="error").remove_device("gpu:0")


def test_a_device_is_brought_back_to_its_place() -> None:
    card = gpu(faults=[Fault("compile", ExecutionError("hiccup"), call=1, times=1)])
    with Session([card, cpu()], WEIGHTS, fallback="allow") as session:
        assert total(session) == 1
        assert where(session) == ("cpu:0",)
        held = session.quarantine["gpu:0"]
        assert str(held.error) == "hiccup"
        assert held.at > 1.7e9
        assert not held.stuck
        with pytest.raises(UsageError, match="gpu:0 was set aside"):
            session.add_device(card)
        session.restore("gpu:0")
        assert not session.quarantine
        assert [device.id for device in session.devices] == ["gpu:0", "cpu:0"]
        assert total(session) == 2
        assert where(session) == ("gpu:0",)
        with pytest.raises(UsageError, match="was not set aside"):
            session.restore("gpu:0")


def test_a_device_that_is_brought_back_stands_before_those_of_its_type_again() -> None:
    card = gpu(faults=[Fault("compile", ExecutionError("hiccup"), call=1, times=1)])
    with Session([card, gpu("gpu:1"), cpu()], WEIGHTS, fallback="allow") as session:
        assert total(session) == 1
        assert where(session) == ("gpu:1",)
        session.restore("gpu:0")
        assert [device.id for device in session.devices] == ["gpu:0", "gpu:1", "cpu:0"]


def test_listeners_are_told() -> None:
    told: list[Event] = []
    card = gpu(faults=[Fault("compile", ExecutionError("hiccup"), times=1)])
    with Session([card, cpu()], WEIGHTS, fallback="allow") as session:
        stop = session.subscribe(told.append)
        total(session)
        session.restore("gpu:0")
        session.remove_device("gpu:0")
        session.add_device(card)
        stop()
        session.remove_device("gpu:0")
    assert [(event.kind, event.device, event.reason) for event in told] == [
        (EventKind.QUARANTINED, "gpu:0", "hiccup"),
        (EventKind.RESTORED, "gpu:0", ""),
        (EventKind.DEVICE_REMOVED, "gpu:0", "it was drained"),
        (EventKind.DEVICE_ADDED, "gpu:0", ""),
    ]


# --- by what the registry tells


def test_unloading_a_backend_drains_it_first(registry, card) -> None:
    with Session("card,cpu", WEIGHTS, registry=registry, fallback="error") as session:
        total(session)
        registry.unload("card")
        assert card.open_count == 0
        assert card.buffers.memory.used == 0
        assert total(session) == 2
        assert not session.failed


def test_the_cpu_takes_over_from_a_backend_that_is_unloaded(registry) -> None:
    with Session("card", WEIGHTS, registry=registry, fallback="warn") as session:
        total(session)
        with pytest.warns(FallbackWarning, match="card:0 is to go"):
            registry.unload("card")
        assert total(session) == 2


def test_a_backend_whose_device_a_session_needs_is_not_unloaded(registry) -> None:
    with Session("card", WEIGHTS, registry=registry, fallback="error") as session:
        total(session)
        with pytest.raises(BackendInUseError, match="session"):
            registry.unload("card")
        assert total(session) == 2


def test_who_looks_on_at_a_run_cannot_unload_its_devices(registry, card) -> None:
    refused = []

    def unload(_: object) -> None:
        with pytest.raises(BackendInUseError, match="session"):
            registry.unload("card")
        refused.append(card.open_count)

    with Session("card,cpu", WEIGHTS, registry=registry, fallback="error") as session:
        with session.observed(unload):
            assert total(session) == 1
        assert refused == [1, 1]
        assert total(session) == 2
        assert where(session) == ("card:0",)
        registry.unload("card")
        assert total(session) == 3
        assert where(session) == ("cpu:0",)


def test_a_device_that_says_it_is_leaving_is_drained_before_the_next_run(registry, card) -> None:
    told: list[Event] = []
    with (
        Session("card,cpu", WEIGHTS, registry=registry, fallback="error") as one,
        Session("auto", WEIGHTS, registry=registry, fallback="error", hot_plug=True) as two,
    ):
        assert total(one) == total(two) == 1
        one.subscribe(told.append)
        card.leaving = True
        assert total(one) == total(two) == 2
        assert where(one) == where(two) == ("cpu:0",)
        assert [(e.kind, e.reason) for e in told] == [(EventKind.DEVICE_REMOVED, "it was drained")]
        assert (one.failed, two.failed, card.open_count) == ({}, {}, 0)
        with pytest.raises(DeviceNotFoundError, match="it will soon be gone"):
            registry.select("card")
        card.leaving = False
        registry.refresh()  # it has come back
        assert total(two) == 3
        assert where(two) == ("card:0",)


def test_a_device_that_fails_when_asked_whether_it_leaves_is_set_aside() -> None:
    class Failing(FakeDevice):
        @property
        def leaving(self) -> bool:  # type: ignore[override]
            if self.calls["run"]:
                raise ZeroDivisionError("oops")
            return False

    with Session([Failing("gpu:0"), cpu()], WEIGHTS, fallback="allow") as session:
        assert total(session) == 1
        assert total(session) == 2
        assert isinstance(session.failed["gpu:0"], ExecutionError)
        assert where(session) == ("cpu:0",)


def test_a_device_that_is_leaving_stays_in_use_while_there_is_no_other(caplog) -> None:
    card = gpu()
    with Session([card], WEIGHTS, fallback="error") as session:
        assert total(session) == 1
        card.leaving = True
        for run in (2, 3):
            assert total(session) == run
        assert caplog.text.count("gpu:0 will soon be gone: gpu:0 cannot be left") == 1
        session.add_device(cpu())
        assert total(session) == 4
        assert where(session) == ("cpu:0",)


@pytest.mark.parametrize("unload", [True, False])
def test_a_device_that_was_slow_to_end_a_run_is_drained_like_any_other(
    registry, card, gate, unload
) -> None:
    with Session("card,cpu", WEIGHTS, registry=registry, fallback="error") as session:
        assert total(session) == 1
        card.add_fault(Fault("run", gate.wait, call=2, times=1))
        with pytest.raises(DeadlineExceededError):
            session.compile(counter()).run({"x": ONES}, timeout=0.05)
        threading.Timer(0.1, gate.open).start()
        if unload:
            registry.unload("card")
        card.leaving = True
        assert total(session) == 3  # the run that was ended has come to its end, too
        assert where(session) == ("cpu:0",)
        assert (session.failed, card.open_count) == ({}, 0)


def test_unloading_waits_for_the_run_that_is_on_its_way(registry, card, gate) -> None:
    with Session("card,cpu", WEIGHTS, registry=registry, fallback="error") as session:
        total(session)
        card.add_fault(Fault("run", gate.wait, call=2, times=1))
        results = []
        runner = threading.Thread(target=lambda: results.append(total(session)))
        runner.start()
        gate.reached.wait(600)
        unloader = threading.Thread(target=lambda: registry.unload("card"))
        unloader.start()
        unloader.join(0.1)
        assert unloader.is_alive()
        gate.open()
        runner.join()
        unloader.join()
        assert results == [2]
        assert total(session) == 3


def test_a_device_that_appears_is_taken_in_if_that_was_asked_for(registry, cards, card) -> None:
    cards.devices.clear()
    with (
        Session("auto", WEIGHTS, registry=registry, hot_plug=True) as keen,
        Session("auto", WEIGHTS, registry=registry) as content,
    ):
        assert total(keen) == total(content) == 1
        cards.devices.append(card)
        registry.refresh()
        assert total(keen) == total(content) == 2
        assert where(keen) == ("card:0",)
        assert where(content) == ("cpu:0",)


def test_nobody_needs_to_look_where_somebody_watches(registry, cards, card) -> None:
    cards.devices.clear()
    with Session("auto", WEIGHTS, registry=registry, hot_plug=True) as session:
        assert total(session) == 1
        found = threading.Event()
        session.subscribe(lambda event: found.set())
        stop = watch(registry, 0.01)
        cards.devices.append(card)
        runs = 1
        while not found.is_set():
            runs += 1
            assert total(session) == runs
        stop()
        assert where(session) == ("card:0",)
        assert total(session) == runs + 1
    assert not any(thread.name == "hotplug-watch" for thread in threading.enumerate())


def test_a_backend_that_is_installed_later_is_taken_in(registry) -> None:
    with Session("auto", WEIGHTS, registry=registry, hot_plug=True) as session:
        total(session)
        registry.register(fake_backend("late", gpu("late:0"), priority=90))
        assert total(session) == 2
        assert where(session) == ("late:0",)


def test_a_device_that_is_no_longer_there_is_drained(registry, cards, card) -> None:
    with Session("card,cpu", WEIGHTS, registry=registry) as session:
        total(session)
        cards.devices.clear()
        registry.refresh()
        assert total(session) == 2
        assert where(session) == ("cpu:0",)
        assert card.open_count == 0


def test_a_device_that_one_session_loses_is_left_by_the_others(registry, card) -> None:
    first = Session("card,cpu", WEIGHTS, registry=registry, fallback="allow")
    second = Session("card,cpu", registry=registry, fallback="allow")
    idle = Graph.build({"y": ops.neg(ops.input(name="x", dtype="f32", shape=(4,)))})
    with first, second:
        second.run(idle, {"x": ONES})
        card.lose()
        first.plan(counter())
        assert "card:0" in first.failed
        assert registry.problem("card:0") == "card:0 is lost: it fell off the bus"
        second.run(idle, {"x": ONES})
        assert isinstance(second.failed["card:0"], DeviceLostError)
        assert card.open_count == 0
        with pytest.raises(DeviceNotFoundError, match="'card:0': card:0: card:0 is gone"):
            registry.open("card:0")
        card.revive()
        first.restore("card:0")
        assert registry.problem("card:0") == ""
        assert card.open_count == 1
        second.restore("card:0")
        assert total(first) == 1
        assert where(first) == ("card:0",)


def test_a_device_that_cannot_be_opened_again_stays_away(registry, cards, card) -> None:
    with Session("card,cpu", WEIGHTS, registry=registry, fallback="allow") as session:
        card.lose()
        assert total(session) == 1
        cards.add_fault(Fault("open", OSError("no such card"), call=2))
        with pytest.raises(DeviceUnavailableError, match="no such card"):
            session.restore("card:0")
        assert "card:0" in session.failed
        assert total(session) == 2
