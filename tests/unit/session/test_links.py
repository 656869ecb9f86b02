"""Copies between two devices without the host in between: as planned, and as done."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from hotplug.backend import Device, DeviceInfo, DeviceType
from hotplug.errors import DeviceLostError
from hotplug.placement import Link, Plan, Rates, store_link
from hotplug.session import Session
from hotplug.tensor import HostTensor
from hotplug.testing.fakes import FakeDevice
from hotplug.testing.graphs import layers
from hotplug.testing.limits import LimitedDevice, SimulatedClock
from hotplug.testing.reference import ReferenceDevice

WIDTH, COUNT, ROWS = 16, 4, 8
EYE = np.eye(WIDTH, dtype=np.float32)
GRAPH = layers(COUNT, WIDTH, ROWS)
WEIGHTS = {
    name: HostTensor(node.type, EYE.reshape(-1).view(np.uint8))
    for name, node in GRAPH.weights.items()
}
X = np.ones((ROWS, WIDTH), np.float32)
SLOW, FAST = Link(1e-2, 1e4), Link(1e-3, 1e6)
SPEED = Rates(flops=1e7, bandwidth=1e6, upload=SLOW, download=SLOW, launch=1e-3, source="measured")


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hotplug.session.planning.known_rates", lambda info, threads: SPEED)


def cards(peers: Mapping[str, Link], clock: SimulatedClock, count: int = 2) -> list[Device]:
    """The last of which receives directly from those that are named."""
    inner = ReferenceDevice(DeviceInfo("inner", 0, "Inner", DeviceType.CPU))
    return [
        LimitedDevice(f"card:{n}", inner, SPEED, clock, peers=peers if n == count - 1 else None)
        for n in range(count)
    ]


def planned(devices: list[Device], pins: Mapping[str, str]) -> Plan:
    with Session(devices, WEIGHTS, pins=pins) as session:
        return session.plan(GRAPH)


HALVES = {r"blk\.[01]": "card:0", r"blk\.[23]": "card:1"}


@pytest.mark.parametrize("link", [FAST, Link(FAST.latency, FAST.bandwidth, least=X.nbytes)])
def test_a_direct_copy_is_planned_and_takes_as_long_as_it_takes(
    monkeypatch: pytest.MonkeyPatch, link: Link
) -> None:
    monkeypatch.setattr("hotplug.session.links.known_link", lambda source, target: link)
    clock = SimulatedClock()
    with Session(cards({"card:0": link}, clock), WEIGHTS, pins=HALVES) as session:
        program = session.compile(GRAPH)
        (copy,) = program.plan.copies
        assert program.plan.to_json()["copies"][0]["direct"] is True
        assert program.plan.copy_seconds(copy) == FAST.seconds(X.nbytes)
        began = clock()
        assert (program.run({"x": X})["y"] == X).all()
        assert clock() - began == pytest.approx(program.plan.seconds)


@pytest.mark.parametrize("peers", [{}, {"card:0": Link(1e-3, 1e6, least=X.nbytes + 1)}])
def test_what_has_no_direct_way_or_is_too_small_goes_by_the_host(peers: Mapping[str, Link]) -> None:
    clock = SimulatedClock()
    with Session(cards(peers, clock), WEIGHTS, pins=HALVES) as session:
        program = session.compile(GRAPH)
        (copy,) = program.plan.copies
        assert program.plan.to_json()["copies"][0]["direct"] is False
        assert program.plan.copy_seconds(copy) == 2 * SLOW.seconds(X.nbytes)
        began = clock()
        assert (program.run({"x": X})["y"] == X).all()
        assert clock() - began == pytest.approx(program.plan.seconds)


def test_the_neighbour_that_is_reached_directly_is_preferred() -> None:
    """Two layers have to go to another card; all are alike but for how they are reached."""
    first = {r"blk\.[01]": "card:0"}
    budgets = {"card:0": 1 << 12}
    for peers, expected in (({}, "card:1"), ({"card:0": FAST}, "card:2")):
        devices = cards(peers, SimulatedClock(), 3)
        with Session(devices, WEIGHTS, pins=first, budgets=budgets) as session:
            plan = session.plan(GRAPH)
        assert plan.devices == ("card:0", expected)


def test_a_link_that_was_not_measured_is_as_slow_as_the_slower_way_to_the_host() -> None:
    plan = planned(cards({"card:0": FAST}, SimulatedClock()), HALVES)
    assert plan.copy_seconds(plan.copies[0]) == SLOW.seconds(X.nbytes)


def test_a_link_that_was_measured_counts(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTPLUG_CACHE", "on")
    monkeypatch.setenv("HOTPLUG_CACHE_DIR", str(tmp_path))
    devices = cards({"card:0": FAST}, SimulatedClock())
    store_link(devices[0].info, devices[1].info, Link(0.05, 2e6))
    plan = planned(devices, HALVES)
    assert plan.copy_seconds(plan.copies[0]) == 0.05 + X.nbytes / 2e6


@pytest.mark.parametrize(
    ("link", "direct"),
    [
        (Link(3e-2, 1e6), True),  # 10 ms later than by the host, and then 0.2 ms a byte faster
        (Link(2e-1, 1e6), False),
        (Link(1e-3, 4e3), False),
    ],
)
def test_what_is_faster_by_the_host_goes_there(
    monkeypatch: pytest.MonkeyPatch, link: Link, direct: bool
) -> None:
    monkeypatch.setattr("hotplug.session.links.known_link", lambda source, target: link)
    clock = SimulatedClock()
    with Session(cards({"card:0": link}, clock), WEIGHTS, pins=HALVES) as session:
        program = session.compile(GRAPH)
        (copy,) = program.plan.copies
        assert program.plan.is_direct(copy) == direct
        began = clock()
        program.run({"x": X})
        assert clock() - began == pytest.approx(program.plan.seconds)


class Answering(FakeDevice):
    """A card that tells of its neighbours whatever a test wants."""

    def __init__(self, name: str, answer: object) -> None:
        super().__init__(name)
        self.answer = answer
        self.asked: list[str] = []

    def direct_from(self, source: Device) -> int | None:
        self.asked.append(source.id)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[return-value]


@pytest.mark.parametrize("answer", ["yes", -1, 1.5, None])
def test_answers_that_make_no_sense_are_none(answer: object) -> None:
    plan = planned([Answering("card:0", None), Answering("card:1", answer)], HALVES)
    assert not plan.peers
    assert not plan.is_direct(plan.copies[0])


def test_devices_are_asked_about_those_of_their_backend_once_until_others_come() -> None:
    one, two, other = (Answering(name, None) for name in ("card:0", "card:1", "other:0"))
    with Session([one, two, other], WEIGHTS) as session:
        for rows in (1, 2):
            session.plan(layers(COUNT, WIDTH, rows))
        assert (one.asked, two.asked, other.asked) == (["card:1"], ["card:0"], [])
        two.lose()
        with pytest.warns(UserWarning, match="card:1 is set aside"):
            session.compile(layers(COUNT, WIDTH, 3))
        assert one.asked == ["card:1"]


def test_a_device_that_is_lost_when_it_is_asked_is_set_aside() -> None:
    """The neighbour finds out; the one that is lost is the one that is left."""
    lost = DeviceLostError("card:0 is gone", device="card:0")
    devices = [Answering("card:0", None), Answering("card:1", lost)]
    with Session(devices, WEIGHTS, fallback="allow") as session:
        assert (session.run(GRAPH, {"x": X})["y"] == X).all()
        assert list(session.quarantine) == ["card:0"]


def test_sums_of_tensor_mode_reckon_with_direct_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Link] = []

    def spy(graph: object, shares: object, *, link: Link, **others: object) -> None:
        del graph, shares, others
        seen.append(link)
        raise RuntimeError("enough")

    monkeypatch.setattr("hotplug.session.sharing.parallelise", spy)
    for peers in ({}, {"card:0": FAST, "card:1": FAST}):
        devices = cards(peers, SimulatedClock())
        for device in devices:
            device.peers = peers  # type: ignore[attr-defined]
        with Session(devices, WEIGHTS, mode="tensor") as session, pytest.raises(RuntimeError):
            session.plan(GRAPH)
    assert seen == [Link(2e-2, 5e3), SLOW]
