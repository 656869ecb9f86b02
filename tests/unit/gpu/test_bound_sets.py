"""Runs that take several sets of buffers in turn, as those of a pipeline do."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug import ops
from hotplug.backend import Partition
from hotplug.gpu import executable as module
from hotplug.graph import Graph


@pytest.fixture
def squares(each):
    x = ops.input(name="x", dtype="f32", shape=(64,))
    executable = each.compile(Partition(Graph.build({"y": ops.mul(x, x)})))
    yield executable
    executable.free()


def bound(monkeypatch, executable):
    """Counts how often launches are bound."""
    counted = []
    bind = executable._bind
    monkeypatch.setattr(executable, "_bind", lambda *given: counted.append(given) or bind(*given))
    return counted


def new_set(device):
    return {name: device.buffers.allocate(256) for name in ("x", "output:y")}


def squared(executable, buffers, value):
    buffers["x"].write(0, np.full(64, value, np.float32).view(np.uint8).data)
    executable.run(buffers)
    found = np.empty(64, np.float32)
    buffers["output:y"].read(0, found.view(np.uint8).data)
    np.testing.assert_array_equal(found, value * value)


def test_each_set_is_bound_once(each, squares, monkeypatch):
    counted = bound(monkeypatch, squares)
    sets = [new_set(each) for _ in range(3)]
    for run in range(9):
        squared(squares, sets[run % 3], float(run))
    assert len(counted) == 3


def test_a_set_that_was_freed_is_forgotten(each, squares, monkeypatch):
    counted = bound(monkeypatch, squares)
    first, second = new_set(each), new_set(each)
    squared(squares, first, 2.0)
    for buffer in first.values():
        buffer.free()
    squared(squares, second, 3.0)
    assert [held.given for held in squares._bound] == [second]
    squared(squares, new_set(each), 4.0)
    assert len(counted) == 3


def test_only_so_many_sets_are_kept(each, squares, monkeypatch):
    monkeypatch.setattr(module, "_SETS", 2)
    counted = bound(monkeypatch, squares)
    sets = [new_set(each) for _ in range(3)]
    for run, buffers in enumerate([*sets, sets[2], sets[1], sets[0]]):
        squared(squares, buffers, float(run))
        assert len(squares._bound) <= 2
    assert len(counted) == 4  # the first one again
