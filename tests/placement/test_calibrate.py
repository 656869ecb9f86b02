"""Rates measured on devices whose rates are known, kept in files, and used by sessions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hotplug import kernel_cache
from hotplug.backend import DeviceInfo, DeviceType, Executable, Partition
from hotplug.placement import (
    Rates,
    calibrate,
    calibrate_link,
    known_link,
    known_rates,
    store_link,
    store_rates,
)
from hotplug.placement.cost import Link
from hotplug.placement.measured import forget_link, forget_rates
from hotplug.session import Session
from hotplug.testing.fakes import FakeDevice
from hotplug.testing.graphs import layers
from hotplug.testing.limits import LimitedDevice, SimulatedClock
from hotplug.testing.reference import ReferenceDevice

INFO = DeviceInfo("inner", 0, "Inner", DeviceType.CPU)

LIMITS = Rates(
    flops=2e9,
    bandwidth=3e8,
    upload=Link(3e-4, 2e8),
    download=Link(5e-4, 1e8),
    launch=2e-3,
    step=1e-4,
    gemv={"q8_0": 1e8, "f16": 2e8},
    gemm={"q8_0": 5e9, "f16": 1e9},
)


class Nothing(Executable):
    def run(self, bindings: object, stream: object = None) -> None:
        pass


class Idle(ReferenceDevice):
    """Computes nothing, and that at once."""

    def compile(self, partition: Partition) -> Executable:
        return Nothing()


def limited(clock: SimulatedClock, limits: Rates = LIMITS) -> LimitedDevice:
    return LimitedDevice("slow:0", Idle(INFO), limits, clock)


def test_a_device_of_known_rates_is_measured_right() -> None:
    clock = SimulatedClock()
    found = calibrate(limited(clock), seconds=1e6, weights=("q8_0", "f16"), clock=clock)
    assert found.source == "measured"
    assert found.upload.latency == pytest.approx(3e-4, rel=2e-3)
    assert found.download.latency == pytest.approx(5e-4, rel=2e-3)
    assert found.upload.bandwidth == pytest.approx(2e8, rel=2e-3)
    assert found.download.bandwidth == pytest.approx(1e8, rel=2e-3)
    assert found.launch == pytest.approx(2e-3, rel=0.01)
    assert found.step == pytest.approx(1e-4, rel=0.05)
    assert found.bandwidth == pytest.approx(3e8, rel=0.05)
    assert found.gemv == {name: pytest.approx(rate, rel=0.05) for name, rate in LIMITS.gemv.items()}
    assert found.gemm == {name: pytest.approx(rate, rel=0.05) for name, rate in LIMITS.gemm.items()}


@pytest.mark.parametrize("least", [0, 3 << 20])
def test_a_link_of_known_speed_is_measured_right(least: int) -> None:
    clock = SimulatedClock()
    one = LimitedDevice("card:0", Idle(INFO), LIMITS, clock, memory_bytes=1 << 28)
    way = {"card:0": Link(2e-3, 4e9, least)}
    two = LimitedDevice("card:1", Idle(INFO), LIMITS, clock, memory_bytes=1 << 28, peers=way)
    found = calibrate_link(one, two, seconds=1e6, clock=clock)
    assert found is not None
    assert found.latency == pytest.approx(2e-3, rel=1e-3)
    assert found.bandwidth == pytest.approx(4e9, rel=1e-3)
    assert found.least == least
    assert calibrate_link(two, one, clock=clock) is None
    assert one.memory().free == two.memory().free == 1 << 28


def test_a_slow_link_is_measured_for_no_longer_than_it_may_be() -> None:
    clock = SimulatedClock()
    one = LimitedDevice("card:0", Idle(INFO), LIMITS, clock)
    two = LimitedDevice("card:1", Idle(INFO), LIMITS, clock, peers={"card:0": Link(1.0, 1e7)})
    found = calibrate_link(one, two, seconds=4, clock=clock)
    assert found is not None
    assert found.bandwidth == pytest.approx(1e7, rel=1e-3)
    assert clock() < 10


def test_it_ends_when_its_time_is_over() -> None:
    clock = SimulatedClock()
    slow = Rates(1e6, 1e6, Link(0.1, 1e6), Link(0.1, 1e6), launch=0.5)
    found = calibrate(limited(clock, slow), seconds=20, clock=clock)
    assert clock() < 60  # what was begun was ended
    assert found.launch == pytest.approx(0.5, rel=0.1)
    assert not found.gemm


def test_dtypes_without_kernels_are_left_out() -> None:
    class Picky(Idle):
        def supports(self, node):
            refused = any(operand.dtype.name == "q8_0" for operand in node.operands)
            return False if refused else super().supports(node)

    clock = SimulatedClock()
    device = LimitedDevice("slow:0", Picky(INFO), LIMITS, clock)
    found = calibrate(device, seconds=1e6, weights=("q8_0", "f16"), clock=clock)
    assert found.gemv.keys() == {"f16"}


def test_nothing_is_left_on_the_device() -> None:
    clock = SimulatedClock()
    device = LimitedDevice("slow:0", Idle(INFO), LIMITS, clock, memory_bytes=1 << 28)
    calibrate(device, seconds=100, weights=("f16",), clock=clock)
    assert device.memory().free == 1 << 28


def test_a_device_with_little_memory_is_measured_with_what_fits() -> None:
    clock = SimulatedClock()
    device = LimitedDevice("slow:0", Idle(INFO), LIMITS, clock, memory_bytes=9 << 20)
    found = calibrate(device, seconds=1e6, weights=("f16",), clock=clock)
    assert found.gemv["f16"] == pytest.approx(2e8, rel=0.2)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOTPLUG_CACHE", "on")
    monkeypatch.setenv("HOTPLUG_CACHE_DIR", str(tmp_path))
    return tmp_path


def test_what_was_measured_is_kept_for_the_device_and_its_threads(cache: Path) -> None:
    store_rates(INFO, LIMITS, 4)
    found = known_rates(INFO, 4)
    assert found is not None
    assert (found.launch, found.gemv, found.source) == (2e-3, LIMITS.gemv, "measured")
    assert known_rates(INFO) is None
    assert known_rates(DeviceInfo("inner", 0, "Inner", DeviceType.CPU, driver="2"), 4) is None
    assert forget_rates(INFO, 4)
    assert not forget_rates(INFO, 4)
    assert known_rates(INFO, 4) is None


def test_what_was_measured_is_found_with_another_number_of_threads_that_is_none(
    cache: Path,
) -> None:
    processor = DeviceInfo("inner", 0, "Inner", DeviceType.CPU, units=8)
    card = DeviceInfo("card", 0, "Card", DeviceType.GPU, units=8)
    store_rates(processor, LIMITS)
    store_rates(card, LIMITS, 3)
    assert known_rates(processor, 8) is not None  # all there are
    assert known_rates(processor, 3) is None
    assert known_rates(card, 5) is not None
    assert forget_rates(card)


def test_a_measured_link_is_kept_for_its_direction(cache: Path) -> None:
    other = DeviceInfo("inner", 1, "Inner", DeviceType.CPU)
    store_link(INFO, other, Link(1e-5, 3e9))
    assert known_link(INFO, other) == Link(1e-5, 3e9)
    assert known_link(other, INFO) is None
    (path,) = cache.glob("inner/link-*.json")
    kernel_cache.write(path, b'{"version": 1, "link": [-1, 3e9]}')
    assert known_link(INFO, other) is None
    assert forget_link(INFO, other)
    assert not forget_link(INFO, other)


def kept(cache: Path) -> Path:
    (path,) = cache.glob("inner/rates-*.json")
    return path


def test_a_broken_file_counts_as_absent(cache: Path) -> None:
    store_rates(INFO, LIMITS)
    path = kept(cache)
    path.write_bytes(path.read_bytes()[:-3])
    assert known_rates(INFO) is None


@pytest.mark.parametrize(
    "change",
    [
        {"version": 0},
        {"flops": -1},
        {"flops": "fast"},
        {"bandwidth": float("inf")},
        {"upload": [0]},
        {"gemv": 3},
        {"launch": None},
    ],
)
def test_a_file_of_other_content_counts_as_absent(cache: Path, change: dict[str, object]) -> None:
    store_rates(INFO, LIMITS)
    path = kept(cache)
    content = kernel_cache.read(path)
    assert content is not None
    kernel_cache.write(path, json.dumps(json.loads(content) | change).encode())
    assert known_rates(INFO) is None


def test_dtypes_of_other_versions_are_passed_over(cache: Path) -> None:
    store_rates(INFO, LIMITS)
    path = kept(cache)
    plain = json.loads(kernel_cache.read(path) or b"")
    plain["gemv"]["q77"] = 1.0
    kernel_cache.write(path, json.dumps(plain).encode())
    found = known_rates(INFO)
    assert found is not None
    assert "q77" not in found.gemv


def test_sessions_use_what_was_measured(cache: Path) -> None:
    slow, fast = FakeDevice("a:0"), FakeDevice("b:0")
    graph = layers(2, 64)
    with Session([slow, fast]) as session:
        plan = session.plan(graph)
        assert plan.devices == ("a:0",)
        assert not plan.stats.known
    link = Link(1e-6, 1e10)
    store_rates(slow.info, Rates(1e9, 1e9, link, link))
    store_rates(fast.info, Rates(1e12, 1e12, link, link))
    with Session([slow, fast]) as session:
        plan = session.plan(graph)
        assert plan.devices == ("b:0",)
        assert plan.to_json()["speeds"] == {"a:0": "measured", "b:0": "measured"}
        assert "by speeds 2 measured" in plan.explain()
