"""Geometries are tried with clocks of the test's own, so that nothing depends on speed."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from hotplug import kernel_cache, ops
from hotplug.backend import Partition
from hotplug.errors import ExecutionError
from hotplug.gpu.autotune import Answers, Tuner
from hotplug.gpu.executable import GPUExecutable
from hotplug.gpu.programs import Programs
from hotplug.graph import Graph

ROWS, COLUMNS, DEPTH = 40, 48, 64
QUESTION = "matmul f32 f32 f32 64x64x64"
FIRST = {"TILE": 32, "SIDE": 1, "DOWN": 4, "ACROSS": 16}
WANTED = {"TILE": 32, "SIDE": 1, "DOWN": 8, "ACROSS": 8}


def graph():
    x = ops.input(name="x", dtype="f32", shape=(ROWS, DEPTH))
    w = ops.weight(name="w", dtype="f32", shape=(COLUMNS, DEPTH))
    return Graph.build({"y": ops.matmul(x, w, transpose_b=True)})


class Times:
    """In place of a driver's clock: some kernels are said to take so many seconds.

    Attributes:
        tried: geometries that were timed.
    """

    def __init__(self, device, monkeypatch, seconds):
        self.tried = []
        self._bound = {}
        self._seconds = seconds
        bind = Programs.bind

        def noted(programs, launch, buffers):
            bound = bind(programs, launch, buffers)
            self._bound[id(bound)] = (bound, dict(launch.variant.defines))
            return bound

        monkeypatch.setattr(Programs, "bind", noted)
        monkeypatch.setattr(device.driver, "timed", self.timed)

    def timed(self, launches):
        defines = [self._bound[id(launch)][1] for launch in launches]
        self.tried += [tuple(int(one[name]) for name in FIRST) for one in defines]
        return [self._seconds(tried) for tried in self.tried[-len(defines) :]]


def fast(tried):
    return 1.0 if tried == tuple(WANTED.values()) else 2.0


@pytest.fixture
def answers(tmp_path):
    return lambda: Answers(kernel_cache.path(tmp_path, "geometry", "key", "json"))


def tuner(device, answers, seconds=2.0, clock=lambda: 0.0):
    return Tuner(device.driver, device.programs, answers, seconds, clock)


def test_the_fastest_is_kept_and_used(device, monkeypatch, answers):
    times = Times(device, monkeypatch, fast)
    learning = tuner(device, answers())
    learning.learn(graph())
    assert len(set(times.tried)) == 3
    learning.learn(graph())
    assert len(times.tried) == 3 * 3  # each three times, and nothing a second time
    later = tuner(device, answers(), seconds=0)
    assert later.choose(QUESTION, [FIRST, WANTED]) == WANTED
    executable = GPUExecutable(
        Partition(graph()), device.buffers, device.programs, choose=later.choose
    )
    assert "ACROSS=8, " in executable.explain()[0]
    assert "DOWN=8, " in executable.explain()[0]
    random = np.random.default_rng(1)
    x = random.standard_normal((ROWS, DEPTH), np.float32)
    w = random.standard_normal((COLUMNS, DEPTH), np.float32)
    bindings = {name: device.buffers.allocate(n) for name, n in executable.required.items()}
    bindings["x"].write(0, x.data)
    bindings["w"].write(0, w.data)
    executable.run(bindings)
    y = np.empty((ROWS, COLUMNS), np.float32)
    bindings["output:y"].read(0, y.data)
    np.testing.assert_allclose(y, x @ w.T, rtol=1e-4, atol=1e-4)


def test_what_there_was_no_time_for_stays_open(device, monkeypatch, answers):
    times = Times(device, monkeypatch, fast)
    clock = itertools.count(0.0, 0.5)
    hurried = tuner(device, answers(), 2.0, lambda: next(clock))
    hurried.learn(graph())
    assert 0 < len(set(times.tried)) < 3
    assert hurried.choose(QUESTION, [FIRST, WANTED]) == FIRST
    tried = len(times.tried)
    hurried.learn(graph())  # its time is over in this process
    assert len(times.tried) == tried


def test_geometries_that_a_device_refuses_are_left_out(device, monkeypatch, answers):
    def refuse(tried):
        if tried != (32, 1, 2, 16):
            raise ExecutionError("too many registers", device="test")
        return 1.0

    Times(device, monkeypatch, refuse)
    learning = tuner(device, answers())
    learning.learn(graph())
    chosen = learning.choose(QUESTION, [FIRST, {"TILE": 32, "SIDE": 1, "DOWN": 2, "ACROSS": 16}])
    assert chosen == {"TILE": 32, "SIDE": 1, "DOWN": 2, "ACROSS": 16}


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"[1]", b'{"a": ', json.dumps({QUESTION: {"SIDE": 77}}).encode(), b"3"],
)
def test_answers_that_make_no_sense_are_the_first_geometry(answers, tmp_path, content):
    kernel_cache.write(kernel_cache.path(tmp_path, "geometry", "key", "json"), content)
    found = answers()
    assert found.get(QUESTION, [FIRST, WANTED]) is None
    found.put(QUESTION, WANTED)
    assert answers().get(QUESTION, [FIRST, WANTED]) == WANTED


def test_a_damaged_file_is_the_first_geometry(answers, tmp_path):
    answers().put(QUESTION, WANTED)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-3] + b"999")
    assert answers().get(QUESTION, [FIRST, WANTED]) is None


def test_answers_of_two_processes_are_both_kept(answers):
    one, other = answers(), answers()
    one.put("a", FIRST)
    other.put("b", WANTED)
    assert answers().get("a", [FIRST]) == FIRST
    assert answers().get("b", [WANTED]) == WANTED


@pytest.mark.parametrize(
    ("setting", "is_cpu", "seconds"),
    [("gpu", True, 0), ("all", True, 7), ("off", False, 0), ("gpu", False, 7), (None, False, 7)],
)
def test_the_setting_says_which_devices_try(
    device, monkeypatch, tmp_path, setting, is_cpu, seconds
):
    import dataclasses

    monkeypatch.setenv("HOTPLUG_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("HOTPLUG_AUTOTUNE_SECONDS", "7")
    if setting:
        monkeypatch.setenv("HOTPLUG_AUTOTUNE", setting)
    able = dataclasses.replace(device.driver.capabilities, is_cpu=is_cpu)
    monkeypatch.setattr(device.driver, "capabilities", able)
    made = Tuner.open("opencl", device.driver, device.programs)
    assert made._left == seconds
    made._answers.put(QUESTION, WANTED)
    assert bool(list(tmp_path.rglob("geometry-*.json"))) == (seconds > 0)


def test_bits_that_must_not_change_are_left_to_no_clock(device, monkeypatch, tmp_path):
    """What was found before is not looked at either: tomorrow it may be gone."""
    import dataclasses

    monkeypatch.setenv("HOTPLUG_CACHE_DIR", str(tmp_path))
    able = dataclasses.replace(device.driver.capabilities, is_cpu=False)
    monkeypatch.setattr(device.driver, "capabilities", able)
    Tuner.open("opencl", device.driver, device.programs)._answers.put(QUESTION, WANTED)
    found = Tuner.open("opencl", device.driver, device.programs)
    assert found.choose(QUESTION, [FIRST, WANTED]) == WANTED
    monkeypatch.setenv("HOTPLUG_DETERMINISTIC", "on")
    made = Tuner.open("opencl", device.driver, device.programs)
    assert made._left == 0
    assert made.choose(QUESTION, [FIRST, WANTED]) == FIRST
