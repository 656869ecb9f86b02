"""Measured speeds place a model better than shares do, and as well as the best of all splits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from hotplug.backend import Buffer, DeviceInfo, DeviceType, Executable, Partition, Stream
from hotplug.placement import Link, Rates, calibrate
from hotplug.session import Session
from hotplug.tensor import HostTensor
from hotplug.testing.graphs import DecoderShape, decoder
from hotplug.testing.limits import LimitedDevice, SimulatedClock
from hotplug.testing.reference import ReferenceDevice

LAYERS = 8
LINK = Link(2e-5, 1e9)
FAST = Rates(4e10, 8e8, LINK, LINK, launch=2e-5, step=1e-6, gemv={"q8_0": 6e8})
SLOW = Rates(1e10, 2e8, LINK, LINK, launch=2e-5, step=1e-6, gemv={"q8_0": 1e8})
SHAPE = DecoderShape(
    layers=LAYERS, width=64, hidden=192, heads=2, kv_heads=1, head=32, vocabulary=512,
    context=64, weights="q8_0",
)  # fmt: skip


class Nothing(Executable):
    def run(self, bindings: Mapping[str, Buffer], stream: Stream | None = None) -> None:
        pass


class Idle(ReferenceDevice):
    def compile(self, partition: Partition) -> Executable:
        return Nothing()


class Machine:
    """Two devices of a simulated machine, the fast one of which is too small."""

    def __init__(self) -> None:
        self.clock = SimulatedClock()
        self.graph = decoder(SHAPE)
        leaves = [node for node in self.graph.nodes if node.op in {"weight", "state"}]
        whole = sum(node.type.nbytes for node in leaves)
        inner = Idle(DeviceInfo("inner", 0, "Inner", DeviceType.CPU))
        small, large = int(0.75 * whole) + 50_000, 9 * whole
        self.devices = [
            LimitedDevice("fast:0", inner, FAST, self.clock, memory_bytes=small),
            LimitedDevice("slow:0", inner, SLOW, self.clock, memory_bytes=large),
        ]
        self.rates = {
            name: calibrate(
                LimitedDevice(name, inner, limits, self.clock),
                seconds=1e6,
                weights=("q8_0",),
                clock=self.clock,
            )
            for name, limits in (("fast:0", FAST), ("slow:0", SLOW))
        }
        self.weights = {
            name: HostTensor(node.type, np.zeros(node.type.nbytes, np.uint8))
            for name, node in self.graph.weights.items()
        }

    def seconds(self, **asked: Any) -> float:
        with Session(self.devices, self.weights, fallback="error", **asked) as session:
            program = session.compile(self.graph)
            inputs = {
                name: np.zeros(node.shape, np.int32) for name, node in self.graph.inputs.items()
            }
            program.run(inputs)
            began = self.clock()
            program.run(inputs)
            return self.clock() - began


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(
        "hotplug.session.planning.known_rates", lambda info, threads: made.rates[info.id]
    )
    return made


def layer_pins(fast: range, embedding: str) -> dict[str, str]:
    names = "|".join(map(str, fast))
    pins = {"^embedding$|^norm$": embedding}
    if fast:
        pins[rf"^(({names})\.|[kv]({names})$)"] = "fast:0"
    if len(fast) < LAYERS:
        pins[r"^(\d+\.|[kv]\d)"] = "slow:0"
    return pins


def test_measured_speeds_beat_shares_and_match_the_best_split(machine: Machine) -> None:
    planned = machine.seconds()
    free = [float(device.memory().total or 0) for device in machine.devices]
    assert planned < 0.9 * machine.seconds(split=(1, 1))
    assert planned < 0.9 * machine.seconds(split=free)
    best = float("inf")
    for count in range(LAYERS + 1):
        for fast in (range(count), range(LAYERS - count, LAYERS)):
            for embedding in ("fast:0", "slow:0"):
                try:
                    taken = machine.seconds(pins=layer_pins(fast, embedding))
                except RuntimeError:  # it does not fit
                    continue
                best = min(best, taken)
    assert planned <= 1.05 * best


def test_what_is_expected_is_what_passes(machine: Machine) -> None:
    with Session(machine.devices, machine.weights) as session:
        plan = session.plan(machine.graph)
        assert plan.stats.known
        assert len(plan.devices) == 2
        assert plan.seconds == pytest.approx(machine.seconds(), rel=0.05)
