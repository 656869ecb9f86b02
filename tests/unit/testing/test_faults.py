"""Devices on which things go wrong on cue."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug import ops
from hotplug.backend import DeviceInfo, DeviceType
from hotplug.errors import DeviceLostError, ExecutionError
from hotplug.graph import Graph
from hotplug.session import Session
from hotplug.testing.conformance import BEHAVIOURS, Outcome, check_behaviour
from hotplug.testing.faults import Fault, FaultyDevice
from hotplug.testing.reference import ReferenceDevice

INFO = DeviceInfo("any", 0, "Any", DeviceType.GPU)
X = np.arange(4, dtype=np.float32)


def negation() -> Graph:
    return Graph.build({"y": ops.neg(ops.input(name="x", dtype="f32", shape=(4,)))})


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_without_faults_it_is_the_device(behaviour: str) -> None:
    assert check_behaviour(FaultyDevice(ReferenceDevice(INFO)), behaviour).outcome is Outcome.PASSED


def test_faults_are_counted_from_when_they_are_added() -> None:
    device = FaultyDevice(ReferenceDevice(INFO))
    with Session([device], fallback="error") as session:
        session.run(negation(), {"x": X})
        device.script.add(Fault("run", ExecutionError("bad luck"), call=2, times=1))
        session.run(negation(), {"x": X})
        with pytest.raises(ExecutionError, match="bad luck") as caught:
            session.run(negation(), {"x": X})
        assert caught.value.device == "any:0"


def test_what_is_held_is_counted() -> None:
    device = FaultyDevice(ReferenceDevice(INFO))
    with Session([device], fallback="error") as session:
        session.run(negation(), {"x": X})
        assert (device.held, device.executables) == (32, 1)
    assert (device.held, device.executables) == (0, 0)


def test_a_lost_device_fails_until_it_is_revived() -> None:
    device = FaultyDevice(ReferenceDevice(INFO), [Fault("memory", ExecutionError("x"))])
    device.lose("pulled out")
    with pytest.raises(DeviceLostError, match="any:0 is lost: pulled out"):
        device.buffers.allocate(8)
    device.revive()
    assert device.memory().free is None
