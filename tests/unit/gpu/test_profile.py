"""A run with a clock beside every launch does what a run does, and tells how long each took."""

from __future__ import annotations

import numpy as np

from hotplug import ops
from hotplug.backend import Partition
from hotplug.graph import Graph
from hotplug.session import Session
from hotplug.testing.fakes import FakeDevice

VALUES = np.arange(64, dtype=np.float32).reshape(4, 16)


def graph():
    x = ops.input(name="x", dtype="f32", shape=(4, 16))
    total = ops.state(name="total", dtype="f32", shape=(4, 16))
    grown = ops.add(total, ops.softmax(x))
    return Graph.build({"y": ops.sum(grown, axis=0)}, {"total": grown})


def test_every_launch_has_its_time(each):
    executable = each.compile(Partition(graph()))
    bindings = {name: each.buffers.allocate(n) for name, n in executable.required.items()}
    bindings["x"].write(0, VALUES.data)
    seconds = executable.profile(bindings)
    assert len(seconds) == len(executable.explain())
    assert all(0 < taken < 60 for taken in seconds)
    executable.run(bindings)
    result = np.empty(16, np.float32)
    bindings["output:y"].read(0, result.data)
    np.testing.assert_allclose(result.sum(), 2 * 4, rtol=1e-6)  # both runs have counted


def test_a_program_tells_of_each_step_on_which_device_it_was(device):
    with Session([device]) as session:
        program = session.compile(graph())
        profile = program.profile({"x": VALUES})
        assert {step.device for step in profile} == {device.id}
        assert profile[0].step.startswith("softmax(")
        assert all(step.seconds > 0 for step in profile)


def test_devices_that_cannot_tell_run_all_the_same():
    with Session([FakeDevice("gpu:0")]) as session:
        program = session.compile(graph())
        assert program.profile({"x": VALUES}) == []
        np.testing.assert_allclose(session.read("total").sum(), 4, rtol=1e-6)
