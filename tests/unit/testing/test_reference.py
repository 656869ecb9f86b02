"""The reference backend: memory with a limit, bindings, several devices."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug import ops
from hotplug.backend import DeviceInfo, DeviceType, Partition
from hotplug.errors import (
    DeviceUnavailableError,
    ExecutionError,
    OutOfDeviceMemoryError,
    UsageError,
)
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.testing.reference import HostBuffer, HostMemory, ReferenceBackend, ReferenceDevice

INFO = DeviceInfo("reference", 0, "Oracle", DeviceType.CPU)


@pytest.fixture
def device():
    return ReferenceDevice(INFO)


def floats(device, *values):
    buffer = device.buffers.allocate(4 * len(values))
    buffer.write(0, np.array(values, np.float32).data)
    return buffer


def read(buffer):
    data = np.empty(buffer.nbytes // 4, np.float32)
    buffer.read(0, data.data)
    return data.tolist()


def x(*shape, dtype="f32"):
    return ops.input(name="x", dtype=dtype, shape=shape)


def test_one_device_by_default():
    backend = ReferenceBackend()
    (info,) = backend.probe()

    assert info.id == "reference:0"
    assert backend.open(info).id == "reference:0"


def test_any_devices_may_be_given():
    infos = [DeviceInfo("fake", index, f"Fake {index}", DeviceType.GPU) for index in range(3)]

    assert [info.id for info in ReferenceBackend(infos).probe()] == ["fake:0", "fake:1", "fake:2"]


def test_a_strange_device_cannot_be_opened():
    with pytest.raises(DeviceUnavailableError, match="reference has no device other:0"):
        ReferenceBackend().open(DeviceInfo("other", 0, "Other", DeviceType.CPU))


def test_outputs_and_states(device):
    state = ops.state(name="s", dtype="f32", shape=(2,))
    grown = ops.add(state, x(2))
    executable = device.compile(Partition(Graph.build({"y": ops.neg(grown)}, {"s": grown})))
    bindings = {
        "x": floats(device, 1, 2),
        "s": floats(device, 0, 0),
        "output:y": floats(device, 0, 0),
    }

    executable.run(bindings)
    executable.run(bindings)

    assert read(bindings["output:y"]) == [-2, -4]
    assert read(bindings["s"]) == [2, 4]


def test_a_missing_binding_leaves_everything_as_it_was(device):
    state = ops.state(name="s", dtype="f32", shape=(1,))
    grown = ops.add(state, x(1))
    executable = device.compile(Partition(Graph.build({"y": grown}, {"s": grown})))
    bindings = {"x": floats(device, 1), "s": floats(device, 5)}

    with pytest.raises(ExecutionError, match="no buffer is bound to 'output:y'") as caught:
        executable.run(bindings)

    assert caught.value.device == "reference:0"
    assert read(bindings["s"]) == [5]


def test_a_buffer_too_small_is_refused(device):
    executable = device.compile(Partition(Graph.build({"y": ops.neg(x(4))})))
    bindings = {"x": floats(device, 1), "output:y": device.buffers.allocate(16)}

    with pytest.raises(ExecutionError, match=r"'x' is f32\[4\] and needs 16 bytes; .* has 4"):
        executable.run(bindings)


def test_memory_is_counted():
    device = ReferenceDevice(INFO, memory_bytes=100)
    buffer = device.buffers.allocate(60)

    assert device.memory().free == 40
    with pytest.raises(OutOfDeviceMemoryError, match="has 40 bytes left, and 41") as caught:
        device.buffers.allocate(41)
    assert (caught.value.requested, caught.value.free) == (41, 40)
    assert caught.value.device == "reference:0"
    buffer.free()
    buffer.free()
    assert device.memory().free == 100


def test_memory_without_a_limit():
    memory = HostMemory("any:0")

    assert memory.free is None
    with pytest.raises(OutOfDeviceMemoryError, match="the system refused"):
        memory.allocate(1 << 60)


def test_read_only_memory_stays_what_it_is():
    buffer = HostBuffer(memoryview(b"abc"))

    with pytest.raises(UsageError, match="read-only"):
        buffer.write(0, memoryview(b"x"))
    assert bytes(buffer.host()) == b"abc"


def test_a_freed_buffer_has_no_bytes():
    buffer = HostBuffer(memoryview(bytearray(4)))
    buffer.free()

    with pytest.raises(UsageError, match="freed"):
        buffer.host()


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (Node("mystery", (), (), x(1).type), "there is no op 'mystery'"),
        (ops.cast(x(256), dtype="iq1_s"), "iq1_s cannot be encoded"),
    ],
)  # fmt: skip
def test_what_it_does_not_support(device, node, reason):
    answer = device.supports(node)

    assert not answer
    assert answer.reason == reason


def test_blocks_that_only_move_need_no_encoder(device):
    weight = ops.weight(name="w", dtype="iq1_s", shape=(2, 3, 256))

    assert device.supports(ops.contiguous(ops.transpose(weight, axis0=0, axis1=1)))


def test_it_says_what_it_does(device):
    executable = device.compile(Partition(Graph.build({"y": ops.neg(x(2))})))

    assert executable.explain()[0] == "oracle: x -> f32[2]"
    assert executable.explain()[1].endswith("-> f32[2]")
