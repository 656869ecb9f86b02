"""Scripted devices do what their script says, and compute right where it says nothing."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug import ops
from hotplug.backend import DeviceType, Partition
from hotplug.errors import (
    DeviceLostError,
    DeviceUnavailableError,
    KernelCompileError,
    OutOfDeviceMemoryError,
)
from hotplug.graph import Graph
from hotplug.testing.fakes import FakeDevice, Fault, fake_backend, fake_registry


def doubling() -> Graph:
    x = ops.input(name="x", dtype="f32", shape=(4,))
    return Graph.build({"y": ops.add(x, x)})


def run(device: FakeDevice, values: list[float]) -> list[float]:
    executable = device.compile(Partition(doubling(), arena_bytes=64))
    x, y = device.buffers.allocate(16), device.buffers.allocate(16)
    x.write(0, np.array(values, np.float32).data)
    executable.run({"x": x, "output:y": y})
    result = np.empty(4, np.float32)
    y.read(0, result.data)
    for part in (x, y, executable):
        part.free()
    return result.tolist()


def test_computes_and_counts():
    device = FakeDevice("fake:0", memory_bytes=1000)
    assert run(device, [1, 2, 3, 4]) == [2, 4, 6, 8]
    assert device.calls == {"compile": 1, "allocate": 2, "write": 2, "run": 1, "read": 2}
    assert device.memory().free == 1000


def test_memory_runs_out():
    device = FakeDevice("fake:0", memory_bytes=100)
    device.buffers.allocate(60)
    with pytest.raises(OutOfDeviceMemoryError) as caught:
        device.buffers.allocate(41)
    assert (caught.value.requested, caught.value.free) == (41, 40)
    with pytest.raises(OutOfDeviceMemoryError):
        device.compile(Partition(doubling(), arena_bytes=41))
    device.compile(Partition(doubling(), arena_bytes=40)).free()
    assert device.memory().free == 40


def test_faults_hit_the_calls_they_name():
    device = FakeDevice("fake:0", faults=[Fault("run", OSError("jam"), call=2, times=1)])
    assert run(device, [1, 1, 1, 1]) == [2, 2, 2, 2]
    with pytest.raises(OSError, match="jam"):
        run(device, [1, 1, 1, 1])
    assert run(device, [1, 1, 1, 1]) == [2, 2, 2, 2]


def test_faults_may_last():
    device = FakeDevice("fake:0")
    device.add_fault(Fault("compile", KernelCompileError("bad source", source="x", log="line 1")))
    for _ in range(2):
        with pytest.raises(KernelCompileError) as caught:
            run(device, [1, 1, 1, 1])
        assert caught.value.log == "line 1"


def test_a_fault_may_be_a_call():
    seen: list[str] = []
    device = FakeDevice("fake:0", faults=[Fault("run", lambda: seen.append("run"))])
    assert run(device, [1, 1, 1, 1]) == [2, 2, 2, 2]
    assert seen == ["run"]


def test_lost_and_found():
    device = FakeDevice("fake:0")
    buffer = device.buffers.allocate(16)
    device.lose("it was pulled out")
    for step in (device.memory, lambda: buffer.read(0, memoryview(bytearray(4)))):
        with pytest.raises(DeviceLostError, match="pulled out") as caught:
            step()
        assert caught.value.device == "fake:0"
    buffer.free()
    device.revive()
    assert run(device, [1, 1, 1, 1]) == [2, 2, 2, 2]


def test_refuses_ops():
    x = ops.input(name="x", dtype="f32", shape=(4,))
    device = FakeDevice("fake:0", unsupported={"mul"})
    assert device.supports(ops.add(x, x))
    assert device.supports(ops.mul(x, x)).reason == "fake:0 refuses mul"
    picky = FakeDevice("fake:1", unsupported=lambda node: "too wide" if node.shape[0] > 3 else "")
    assert picky.supports(ops.add(x, x)).reason == "too wide"


def test_computes_wrong():
    assert run(FakeDevice("fake:0", error=0.5), [1, 2, 3, 4]) == [2.5, 4.5, 6.5, 8.5]


@pytest.mark.parametrize("is_host", [True, False])
def test_host_memory_is_seen_or_not(is_host):
    device = FakeDevice("fake:0", type=DeviceType.CPU, is_host=is_host)
    assert (device.buffers.allocate(4).host() is not None) == is_host
    assert (device.buffers.wrap(memoryview(b"abcd")) is not None) == is_host


def test_backend():
    device = FakeDevice("fake:1", uuid="U")
    backend = fake_backend(
        "fake", device, priority=70, faults=[Fault("open", OSError("busy"), times=1)]
    )
    assert (backend.name, backend.priority, backend.probe()) == ("fake", 70, [device.info])
    assert device.info.uuid == "U"
    with pytest.raises(OSError, match="busy"):
        backend.open(device.info)
    assert backend.open(device.info) is device
    assert device.open_count == 1
    device.close()
    assert device.open_count == 0
    backend.devices.clear()
    with pytest.raises(DeviceUnavailableError):
        backend.open(device.info)


def test_registry_holds_nothing_else():
    fakes = fake_registry(fake_backend("one", FakeDevice("one:0")), fake_backend("two"))
    assert fakes.names() == ["one", "two"]
