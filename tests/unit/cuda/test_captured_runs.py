"""An executable has its launches captured when a run repeats another one, and not before."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug import ops
from hotplug.backend import Partition
from hotplug.graph import Graph
from hotplug_cuda import backend
from hotplug_cuda.driver import CUDADriver


@pytest.fixture
def captures(monkeypatch):
    """Collects how many launches are captured each time."""
    collected = []
    capture = CUDADriver.capture

    def counted(driver, launches):
        collected.append(len(launches))
        return capture(driver, launches)

    monkeypatch.setattr(CUDADriver, "capture", counted)
    return collected


@pytest.fixture
def device(found):
    with backend.open(found[0].info) as device:
        yield device


def bindings(device):
    return {name: device.buffers.allocate(4 * 16) for name in ("x", "output:y")}


def run(executable, buffers, value):
    buffers["x"].write(0, memoryview(np.full(16, value, np.float32)).cast("B"))
    executable.run(buffers)
    result = np.empty(16, np.float32)
    buffers["output:y"].read(0, memoryview(result).cast("B"))
    return result[0]


def test_the_first_repetition_is_captured_and_replayed(device, captures):
    x = ops.input(name="x", dtype="f32", shape=(16,))
    executable = device.compile(Partition(Graph.build({"y": ops.add(ops.relu(x), x)})))
    one, other = bindings(device), bindings(device)
    assert run(executable, one, 1) == 2
    assert captures == []
    assert run(executable, one, 2) == 4
    assert run(executable, one, 3) == 6
    assert len(captures) == 1
    assert run(executable, other, 4) == 8  # other buffers: bound anew
    assert len(captures) == 1
    assert run(executable, other, 5) == 10
    assert len(captures) == 2
