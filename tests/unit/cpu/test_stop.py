"""Runs on the processor that another thread stops."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug import ops
from hotplug.backend import Partition
from hotplug.errors import RunCancelledError
from hotplug.graph import Graph
from hotplug_cpu.buffers import HostBufferType
from hotplug_cpu.interpreter import NumpyExecutable
from hotplug_cpu.plan import PlanExecutable


def compiled(partition):
    return PlanExecutable(partition, HostBufferType(), 2)


def interpreted(partition):
    return NumpyExecutable(partition, HostBufferType())


@pytest.mark.parametrize("make", [compiled, interpreted])
def test_a_run_stops_between_steps_and_the_next_one_does_not(make, monkeypatch):
    monkeypatch.setattr("hotplug_cpu.plan.STRETCH", 1)
    x = ops.input(name="x", dtype="f32", shape=(64, 64))
    first = ops.matmul(x, x, transpose_b=True)
    graph = Graph.build(
        {
            "first": first,
            "y": ops.matmul(ops.matmul(first, x, transpose_b=True), x, transpose_b=True),
        }
    )
    executable = make(Partition(graph))
    memory = HostBufferType()
    buffers = {name: memory.allocate(64 * 64 * 4) for name in ("x", "output:first", "output:y")}
    values = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    buffers["x"].write(0, values.reshape(-1).data)
    assert make is interpreted or not executable._numpy
    executable.stop()  # there is nothing to be stopped yet
    executable.run(buffers)
    whole = bytes(buffers["output:y"].host())
    np.testing.assert_allclose(
        np.frombuffer(whole, np.float32).reshape(64, 64),
        values @ values.T @ values.T @ values.T,
        1e-3,
        1e-2,
    )
    buffers["output:y"].write(0, memoryview(bytes(len(whole))))

    def stopping(*args):
        executable.stop()
        return do(*args)

    do = executable._do
    monkeypatch.setattr(executable, "_do", stopping)
    with pytest.raises(RunCancelledError, match="stopped"):
        executable.run(buffers)
    assert bytes(buffers["output:y"].host()) == bytes(len(whole))
    monkeypatch.undo()
    executable.run(buffers)
    assert bytes(buffers["output:y"].host()) == whole
