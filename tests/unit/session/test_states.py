"""What becomes of states when a device fails in a run: never is one updated twice, or half."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug import ops
from hotplug.backend import Device, DeviceType
from hotplug.errors import ExecutionError, StatesLostError
from hotplug.graph import Graph
from hotplug.session import Session
from hotplug.testing.fakes import FakeDevice
from hotplug.testing.faults import Fault, FaultyDevice, Step

ONES = {"x": np.ones(4, np.float32)}


def counter() -> Graph:
    total = ops.state(name="total", dtype="f32", shape=(4,))
    grown = ops.add(total, ops.input(name="x", dtype="f32", shape=(4,)))
    return Graph.build({"total": grown}, {"total": grown})


def devices(step: Step) -> list[Device]:
    """The first does not get beyond a step of its second run, but can be read from later."""
    fault = Fault(step, ExecutionError("a bad moment"), call=2, times=1)
    card = FaultyDevice(FakeDevice("gpu:0"), [fault])
    return [card, FakeDevice("cpu:0", type=DeviceType.CPU, is_host=True)]


@pytest.mark.parametrize("step", ["run", "read"])
def test_a_run_that_may_have_changed_states_is_not_repeated(step: Step) -> None:
    with Session(devices(step), fallback="allow") as session:
        assert session.run(counter(), ONES)["total"].tolist() == [1] * 4
        with pytest.raises(StatesLostError, match="a bad moment"):
            session.run(counter(), ONES)
        assert list(session.failed) == ["gpu:0"]
        assert session.run(counter(), ONES)["total"].tolist() == [1] * 4


def test_a_run_that_has_not_begun_is_repeated_with_all_states() -> None:
    with Session(devices("write"), fallback="allow") as session:
        for count in range(1, 4):
            assert session.run(counter(), ONES)["total"].tolist() == [count] * 4
        assert list(session.failed) == ["gpu:0"]
