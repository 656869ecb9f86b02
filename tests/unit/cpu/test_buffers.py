"""Host buffers: zero, aligned, lazily committed, bounds-checked, wrapped without a copy."""

from __future__ import annotations

import numpy as np
import psutil
import pytest

from hotplug.dtypes import get
from hotplug.errors import OutOfDeviceMemoryError, UsageError
from hotplug.tensor import TensorType
from hotplug_cpu.buffers import ALIGNMENT, HostBuffer, HostBufferType


@pytest.fixture
def kind() -> HostBufferType:
    return HostBufferType("cpu:0")


@pytest.mark.parametrize("nbytes", [0, 1, 63, 4096, 1 << 20])
def test_new_memory_is_zero_and_aligned(kind, nbytes):
    buffer = kind.allocate(nbytes)
    assert buffer.nbytes == nbytes == buffer.array.nbytes
    assert buffer.address % ALIGNMENT == 0
    assert not buffer.array.any()
    assert not buffer.read_only


def test_memory_is_committed_when_touched(kind):
    size = 1 << 30
    before = psutil.Process().memory_info().rss
    buffer = kind.allocate(size)
    assert psutil.Process().memory_info().rss - before < size // 8
    assert buffer.array[-1] == 0


@pytest.mark.parametrize("nbytes", [1 << 56, 1 << 66])
def test_refused_memory_is_a_typed_error(kind, nbytes):
    with pytest.raises(OutOfDeviceMemoryError) as caught:
        kind.allocate(nbytes)
    assert caught.value.requested == nbytes
    assert caught.value.free is not None
    assert caught.value.free > 0
    assert caught.value.device == "cpu:0"


def test_negative_sizes_are_refused(kind):
    with pytest.raises(UsageError, match="-1"):
        kind.allocate(-1)


def test_write_then_read(kind):
    buffer = kind.allocate(16)
    buffer.write(4, memoryview(np.arange(4, dtype=np.int16)))
    target = np.zeros((2, 2), np.int16)
    buffer.read(4, memoryview(target))
    np.testing.assert_array_equal(target, [[0, 1], [2, 3]])
    assert bytes(buffer.host()) == b"\0\0\0\0\0\0\1\0\2\0\3\0\0\0\0\0"


@pytest.mark.parametrize("offset", [-1, 13, 100])
def test_ranges_outside_are_refused(kind, offset):
    buffer = kind.allocate(16)
    with pytest.raises(UsageError, match="do not lie within"):
        buffer.write(offset, memoryview(bytes(4)))
    with pytest.raises(UsageError, match="do not lie within"):
        buffer.read(offset, memoryview(bytearray(4)))


def test_nothing_may_be_read_and_written_at_the_end(kind):
    buffer = kind.allocate(16)
    buffer.write(16, memoryview(b""))
    buffer.read(16, memoryview(bytearray()))


def test_reading_needs_a_fit_target(kind):
    buffer = kind.allocate(16)
    with pytest.raises(UsageError, match="writable"):
        buffer.read(0, memoryview(bytes(4)))
    with pytest.raises(UsageError, match="contiguous"):
        buffer.read(0, memoryview(bytearray(8))[::2])
    with pytest.raises(UsageError, match="contiguous"):
        buffer.write(0, memoryview(bytes(8))[::2])


def test_wrapping_shares_memory(kind):
    data = np.arange(8, dtype=np.float32)
    buffer = kind.wrap(memoryview(data))
    assert buffer is not None
    assert buffer.address == data.ctypes.data
    buffer.write(0, memoryview(np.array([7], np.float32)))
    assert data[0] == 7


def test_wrapped_read_only_memory_can_only_be_read(kind):
    buffer = kind.wrap(memoryview(b"01234567"))
    assert buffer is not None
    assert buffer.read_only
    assert buffer.host().readonly
    with pytest.raises(UsageError, match="read-only"):
        buffer.write(0, memoryview(b"x"))
    target = bytearray(2)
    buffer.read(2, memoryview(target))
    assert target == b"23"


def test_memory_that_cannot_be_used_as_it_lies_is_not_wrapped(kind):
    data = np.zeros(64, np.uint8)
    assert kind.wrap(memoryview(data)[::2]) is None
    assert kind.wrap(memoryview(data)[1:33]) is None
    empty = kind.wrap(memoryview(b""))
    assert empty is not None
    assert empty.nbytes == 0


def test_a_freed_buffer_is_refused(kind):
    buffer = kind.allocate(8)
    array = buffer.as_array(TensorType(get("f32"), (2,)))
    buffer.free()
    buffer.free()
    assert array.tolist() == [0, 0]
    for use in (buffer.host, lambda: buffer.address, lambda: buffer.write(0, memoryview(b"x"))):
        with pytest.raises(UsageError, match="freed"):
            use()


def test_tensors_are_arrays_over_the_buffer_and_speak_dlpack(kind):
    buffer = kind.allocate(256)
    array = buffer.as_array(TensorType(get("f32"), (2, 3)), offset=64)
    array[:] = [[1, 2, 3], [4, 5, 6]]
    np.testing.assert_array_equal(buffer.array[64:88].view(np.float32), [1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(np.from_dlpack(array), array)
    with pytest.raises(UsageError, match="do not lie within"):
        buffer.as_array(TensorType(get("f32"), (100,)))


@pytest.mark.parametrize(
    ("dtype", "shape", "stored", "stored_shape"),
    [
        ("bf16", (2, 3), np.uint16, (2, 3)),
        ("q8_0", (3, 64), np.uint8, (3, 68)),
        ("bool", (5,), np.bool_, (5,)),
        ("i64", (), np.int64, ()),
        ("f32", (0, 4), np.float32, (0, 4)),
    ],
)
def test_what_numpy_lacks_comes_as_raw_elements(kind, dtype, shape, stored, stored_shape):
    array = kind.allocate(1024).as_array(TensorType(get(dtype), shape))
    assert array.dtype == stored
    assert array.shape == stored_shape


def test_copy_from_another_buffer(kind):
    source, target = kind.allocate(8), kind.allocate(8)
    source.write(0, memoryview(b"abcdefgh"))
    target.copy_from(source)
    assert bytes(target.host()) == b"abcdefgh"
    assert isinstance(target, HostBuffer)
