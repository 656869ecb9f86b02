"""Runs on a GPU that another thread stops."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug import ops
from hotplug.backend import Partition
from hotplug.errors import RunCancelledError
from hotplug.graph import Graph
from hotplug_opencl import backend


def test_a_run_stops_between_stretches_and_the_next_one_does_not(opencl_devices, monkeypatch):
    monkeypatch.setattr("hotplug.gpu.executable.STRETCH", 1)
    device = backend.open(opencl_devices(intel=False))
    x = ops.input(name="x", dtype="f32", shape=(64, 64))
    graph = Graph.build({"y": ops.softmax(ops.matmul(ops.softmax(ops.matmul(x, x)), x))})
    executable = device.compile(Partition(graph))
    assert len(executable._stretches) > 2
    buffers = {name: device.buffers.allocate(64 * 64 * 4) for name in ("x", "output:y")}
    values = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    buffers["x"].write(0, values.reshape(-1).view(np.uint8).data)

    def read():
        found = np.empty((64, 64), np.float32)
        buffers["output:y"].read(0, found.reshape(-1).view(np.uint8).data)
        return found

    executable.stop()  # there is nothing to be stopped yet
    executable.run(buffers)
    whole = read()
    np.testing.assert_allclose(whole.sum(axis=1), np.ones(64), rtol=1e-5)
    buffers["output:y"].write(0, memoryview(bytes(64 * 64 * 4)))
    launch = device.driver.launch

    def stopping(launches):
        executable.stop()
        launch(launches)

    monkeypatch.setattr(device.driver, "launch", stopping)
    with pytest.raises(RunCancelledError, match="stopped"):
        executable.run(buffers)
    assert not read().any()
    monkeypatch.undo()
    for _ in range(2):  # queued again as they are, then captured
        executable.run(buffers)
        np.testing.assert_array_equal(read(), whole)
    device.close()
