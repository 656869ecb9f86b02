"""The driver on simulated devices, whose streams do nothing before somebody waits."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from hotplug.errors import (
    DeviceLostError,
    ExecutionError,
    KernelCompileError,
    OutOfDeviceMemoryError,
)
from hotplug.testing.fakes import FakeDevice
from hotplug_cuda import backend
from hotplug_cuda.driver import CUDADriver
from hotplug_cuda.simulation import MEMORY, SimulatedError, SimulatedRuntime, device_at

ADD = """
extern "C" __global__ void add(int *x, int by)
{
    x[blockIdx.x * blockDim.x + threadIdx.x] += by;
}
"""
COUNT = 64


def number(value):
    return value.to_bytes(4, "little", signed=True)


def contents(driver, memory, count=COUNT):
    target = np.empty(count, np.int32)
    driver.read(memory, 0, memoryview(target).cast("B"))
    return target


@pytest.fixture
def numbers(driver):
    """Device memory that counts up from 0."""
    memory = driver.allocate(4 * COUNT)
    driver.write(memory, 0, memoryview(np.arange(COUNT, dtype=np.int32)).cast("B"))
    return memory


@pytest.fixture
def add(driver, numbers):
    """Makes a launch that adds to the numbers."""
    program = driver.compile("add", ADD)

    def bound(by):
        return driver.bind("add", program, (2, 1), COUNT // 2, [numbers, number(by)])

    return bound


# Work in order


def test_launches_and_copies_happen_in_order(driver, numbers, add):
    copy = driver.allocate(4 * COUNT)
    driver.launch([add(1), add(10)])
    driver.copy(numbers, copy, 4 * COUNT)
    driver.launch([add(100)])
    assert contents(driver, copy).tolist() == list(range(11, 11 + COUNT))
    assert contents(driver, numbers).tolist() == list(range(111, 111 + COUNT))


def test_what_is_written_may_be_changed_at_once(driver, numbers):
    source = np.full(COUNT, 7, np.int32)
    driver.write(numbers, 0, memoryview(source).cast("B"))
    source[:] = 8
    assert contents(driver, numbers).tolist() == [7] * COUNT


def test_zeros_and_offsets(driver, numbers):
    driver.zero(numbers, 8)
    driver.write(numbers, 12, memoryview(number(-1)))
    assert contents(driver, numbers)[:5].tolist() == [0, 0, 2, -1, 4]


def test_freed_memory_is_still_used_by_what_was_queued(driver, numbers, add):
    copy = driver.allocate(4 * COUNT)
    driver.launch([add(1)])
    driver.copy(numbers, copy, 4 * COUNT)
    driver.free(numbers)
    assert contents(driver, copy)[0] == 1


def test_memory_that_nobody_holds_is_given_back(driver):
    before = driver.memory().free
    memory = driver.allocate(1 << 20)
    assert driver.memory().free < before
    del memory
    gc.collect()
    driver.synchronise()
    assert driver.memory().free == before


def test_without_pinned_memory_copies_go_on(found, monkeypatch, caplog):
    def refuse(runtime, nbytes):
        raise SimulatedError(2, "out of memory")

    monkeypatch.setattr(SimulatedRuntime, "pinned", refuse)
    driver = CUDADriver.open(found[0])
    memory = driver.allocate(4)
    driver.write(memory, 0, memoryview(number(7)))
    assert contents(driver, memory, 1).tolist() == [7]
    assert "no pinned memory: out of memory" in caplog.text


def test_threads_share_a_device(driver):
    program = driver.compile("add", ADD)
    results = {}

    def work(index):
        memory = driver.allocate(4 * COUNT)
        driver.zero(memory, 4 * COUNT)
        launch = driver.bind("add", program, (1, 1), COUNT, [memory, number(index)])
        driver.launch([launch] * 3)
        results[index] = contents(driver, memory).tolist()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {index: [3 * index] * COUNT for index in range(4)}


# Captured launches


def test_capturing_does_nothing_and_replaying_does_all(driver, numbers, add):
    captured = driver.capture([add(1), add(10)])
    assert len(captured) == 1
    assert contents(driver, numbers)[0] == 0
    driver.launch(captured)
    driver.launch(captured)
    assert contents(driver, numbers)[0] == 22


def test_a_captured_graph_reads_what_buffers_hold_then(driver, numbers, add):
    captured = driver.capture([add(1)])
    driver.write(numbers, 0, memoryview(number(40)))
    driver.launch(captured)
    assert contents(driver, numbers)[0] == 41


def test_what_others_queue_does_not_get_into_a_graph(found, driver, numbers, add):
    class Meddling:
        """A launch during which another thread writes."""

        def queue(self, runtime, stream):
            add(1).queue(runtime, stream)
            writer = threading.Thread(
                target=driver.write, args=(numbers, 0, memoryview(number(50)))
            )
            writer.start()
            writer.join()

    captured = driver.capture([Meddling()])
    driver.launch(captured)
    driver.launch(captured)
    assert contents(driver, numbers)[0] == 52


class Failing:
    """A launch that CUDA refuses."""

    def __init__(self, status):
        self.status = status

    def queue(self, runtime, stream):
        raise SimulatedError(self.status, "not in a graph")


@pytest.mark.parametrize("status", [1, 2, 900])
def test_launches_that_make_no_graph_stay_single(driver, numbers, add, caplog, status):
    launches = [add(1), Failing(status)]
    assert driver.capture(launches) is launches
    assert "2 launches stay single, since they make no graph: cuda:0" in caplog.text
    driver.launch(driver.capture([add(1)]))  # the stream is usable
    assert contents(driver, numbers)[0] == 1


def test_a_launch_that_fails_is_an_error_and_the_device_goes_on(driver, numbers, add):
    with pytest.raises(ExecutionError, match="cuda:0 failed: not in a graph"):
        driver.launch([add(1), Failing(1)])
    assert contents(driver, numbers)[0] == 1


def test_a_capture_on_a_lost_device_raises(driver):
    with pytest.raises(DeviceLostError):
        driver.capture([Failing(700)])


def test_a_stream_that_is_captured_cannot_be_waited_for(found):
    stream = SimulatedRuntime(0).stream()
    stream.begin_capture()
    with pytest.raises(SimulatedError, match="captured"):
        stream.synchronize()


# Two devices


def test_devices_copy_to_each_other_in_order(driver, other, numbers, add):
    received = other.allocate(4 * COUNT)
    driver.launch([add(1)])
    assert other.copy_peer(driver, numbers, received, 4 * COUNT)
    driver.launch([add(100)])
    assert contents(driver, numbers)[0] == 101  # whose stream had to wait for the copy
    assert contents(other, received)[0] == 1


def test_devices_are_tried_once(driver, other, numbers, monkeypatch):
    tried = []
    reach = SimulatedRuntime.reach
    monkeypatch.setattr(
        SimulatedRuntime, "reach", lambda self, index: tried.append(index) or reach(self, index)
    )
    received = other.allocate(4 * COUNT)
    for _ in range(3):
        assert other.copy_peer(driver, numbers, received, 4 * COUNT)
    assert tried == [0]


def test_without_a_direct_way_cuda_finds_another(driver, other, numbers, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(SimulatedRuntime, "reach", lambda self, index: False)
    received = other.allocate(4 * COUNT)
    assert other.copy_peer(driver, numbers, received, 4 * COUNT)
    assert contents(other, received)[1] == 1
    assert "copies from cuda:0 to cuda:1 are left to CUDA" in caplog.text


def refused(*arguments):
    raise SimulatedError(217, "peer access unsupported")


def garbled(runtime, target, source, device, nbytes, stream):
    runtime.fill(target, 0, nbytes, stream)


@pytest.mark.parametrize(
    ("copy", "reason"), [(refused, "peer access unsupported"), (garbled, "do not arrive as")]
)
def test_copies_that_fail_go_through_the_host(found, monkeypatch, caplog, copy, reason):
    monkeypatch.setattr(SimulatedRuntime, "copy_peer", copy)
    with backend.open(found[0].info) as one, backend.open(found[1].info) as two:
        source, target = one.buffers.allocate(1000), two.buffers.allocate(1000)
        data = bytes(range(250)) * 4
        source.write(0, memoryview(data))
        target.copy_from(source)
        arrived = bytearray(1000)
        target.read(0, memoryview(arrived))
    assert arrived == data
    assert "copies from cuda:0 to cuda:1 go through the host: " in caplog.text
    assert reason in caplog.text


def test_devices_know_which_others_they_reach(found, other):
    with backend.open(found[0].info) as one, backend.open(found[1].info) as two:
        assert two.direct_from(one) == 0
        assert two.direct_from(FakeDevice("cuda:7")) is None
        assert not other.reaches(object())


@pytest.mark.parametrize(
    ("call", "does"), [("reach", lambda self, index: False), ("copy_peer", garbled)]
)
def test_devices_know_which_others_they_do_not_reach(found, monkeypatch, call, does):
    monkeypatch.setattr(SimulatedRuntime, call, does)
    with backend.open(found[0].info) as one, backend.open(found[1].info) as two:
        assert two.direct_from(one) is None


def test_a_device_that_is_lost_in_a_copy_is_said_to_be_lost(driver, other, numbers):
    device_at(0).error = SimulatedError(700, "illegal address")
    received = other.allocate(4 * COUNT)
    with pytest.raises(DeviceLostError, match="cuda:0"):
        other.copy_peer(driver, numbers, received, 4 * COUNT)
    other.synchronise()  # which goes on


def test_other_drivers_memory_is_not_reached(driver, numbers):
    assert not driver.copy_peer(object(), numbers, numbers, 4)


# What goes wrong


def test_a_refused_kernel_shows_its_line(driver):
    with pytest.raises(KernelCompileError, match=r"line 4, 'x\[blockIdx") as caught:
        driver.compile("add", ADD.replace("by;", "bye;"))
    assert "bye" in (caught.value.log or "")


def test_a_binary_serves_again_and_a_broken_one_does_not(driver, numbers):
    image = driver.binary(driver.compile("add", ADD))
    program = driver.load("add", image)
    driver.launch([driver.bind("add", program, (1, 1), COUNT, [numbers, number(3)])])
    assert contents(driver, numbers)[0] == 3
    assert driver.load("add", b"\x7fELF") is None
    assert driver.load("sub", image) is None


def test_too_much_memory_is_refused_with_numbers(driver):
    with pytest.raises(OutOfDeviceMemoryError, match="cuda:0 has no room") as caught:
        driver.allocate(MEMORY + 1)
    assert caught.value.requested == MEMORY + 1
    assert caught.value.free == driver.memory().free


def test_too_many_groups_are_refused_when_bound(driver, numbers):
    program = driver.compile("add", ADD)
    with pytest.raises(ExecutionError, match="65536 groups along y"):
        driver.bind("add", program, (1, 65536), 1, [numbers, number(0)])


@pytest.fixture
def lost(driver, numbers):
    """A device whose memory a kernel has left."""
    program = driver.compile("add", ADD)
    wild = driver.bind("add", program, (1 << 16, 1), 1024, [numbers, number(1)])
    driver.launch([wild])  # which only queues it
    with pytest.raises(DeviceLostError, match="cuda:0 is gone: add: "):
        driver.synchronise()
    return driver


def test_after_an_illegal_access_a_device_stays_lost(lost, numbers):
    for action in (
        lost.synchronise,
        lambda: lost.allocate(1),
        lambda: contents(lost, numbers),
        lambda: lost.compile("add", ADD),
        lambda: lost.capture([]),
    ):
        with pytest.raises(DeviceLostError, match="cuda:0 is gone"):
            action()


def test_letting_go_of_a_lost_device_is_quiet(lost, numbers):
    lost.free(numbers)
    lost.close()


def test_other_devices_go_on(lost, other):
    memory = other.allocate(4)
    other.write(memory, 0, memoryview(number(5)))
    assert contents(other, memory, 1).tolist() == [5]


FORKED = """
import os, sys, warnings
warnings.simplefilter("ignore")
from hotplug.errors import ExecutionError
from hotplug_cuda import discovery
from hotplug_cuda.driver import CUDADriver

driver = CUDADriver.open(discovery.find()[0])
memory = driver.allocate(4)
if os.fork() == 0:
    try:
        driver.zero(memory, 4)
    except ExecutionError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
driver.zero(memory, 4)
driver.synchronise()
print("the parent goes on")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_is_noticed(found):
    environment = {**os.environ, "HOTPLUG_CUDA_SIMULATE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", FORKED], env=environment, capture_output=True, text=True, check=True
    )
    child, parent = done.stdout.splitlines()
    assert "cuda:0 was opened before this process was forked off" in child
    assert "'spawn'" in child
    assert parent == "the parent goes on"
    assert done.stderr == ""


def test_a_device_that_gives_no_stream_is_unavailable(found, monkeypatch):
    def refuse(runtime):
        raise SimulatedError(46, "devices unavailable")

    monkeypatch.setattr(SimulatedRuntime, "stream", refuse)
    with pytest.raises(RuntimeError, match="cuda:0 gives no stream: devices unavailable"):
        CUDADriver.open(found[0])
