"""What the contract says of buffers, executables and errors, each as a check by name."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt

from hotplug import ops
from hotplug.backend import Buffer, Device, DeviceType, Executable, MemoryInfo
from hotplug.errors import (
    ExecutionError,
    HotplugError,
    OutOfDeviceMemoryError,
    RunCancelledError,
    UsageError,
)
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.testing.conformance.check import (
    Mismatch,
    Unsupported,
    compile_graph,
    download,
    unsupported,
)
from hotplug.testing.oracle import evaluate

__all__ = ["BEHAVIOURS", "Behaviour"]

Behaviour: TypeAlias = Callable[[Device], None]
"""Raises Mismatch where a device does not do as the contract says, and Unsupported where it
declares not to run the graph by which that would show."""

BEHAVIOURS: dict[str, Behaviour] = {}
"""Every check by name."""


def _behaviour(check: Behaviour) -> Behaviour:
    BEHAVIOURS[check.__name__.strip("_")] = check
    return check


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise Mismatch(message)


def _expect_error(action: Callable[[], object], what: str, *kinds: type[HotplugError]) -> None:
    try:
        action()
    except kinds as error:
        _expect(bool(str(error)), f"{what}: {type(error).__name__} without a sentence")
        return
    except Exception as error:
        raise Mismatch(f"{what}: raised {type(error).__name__}: {error}") from error
    raise Mismatch(f"{what}: raised nothing")


def _bytes(count: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, count, np.uint8).tobytes()


def _contents(buffer: Buffer, offset: int = 0, count: int | None = None) -> bytes:
    target = bytearray(buffer.nbytes - offset if count is None else count)
    buffer.read(offset, memoryview(target))
    return bytes(target)


# Device


@_behaviour
def device_describes_itself(device: Device) -> None:
    """Id, type and memory have the contract's types, and make sense together."""
    info, memory = device.info, device.memory()
    _expect(device.id == f"{info.backend}:{info.index}", f"the device's id is {device.id!r}")
    _expect(isinstance(info.type, DeviceType), f"the device's type is {info.type!r}")
    _expect(bool(info.name), "the device has no name")
    _expect(isinstance(memory, MemoryInfo), f"memory() gives {memory!r}")
    if memory.total is not None and memory.free is not None:
        _expect(0 <= memory.free <= memory.total, f"{memory.free} of {memory.total} bytes free")


@_behaviour
def supports_never_raises(device: Device) -> None:
    """An op that is in no table is refused with a reason, not with an exception."""
    strange = Node("no_such_op", (), (), _x().type)
    answer = device.supports(strange)
    _expect(not answer, "supports() says yes to an op that does not exist")
    _expect(bool(answer.reason), "supports() says no without a reason")


@_behaviour
def stream_synchronises(device: Device) -> None:
    """Work queued on a stream is done after `synchronise`, and after waiting for an event."""
    stream = device.stream()
    with _Run(device, _doubled()) as run:
        run.executable.run(run.bindings, stream)
        stream.synchronise()
        run.expect_doubled()
        run.give(seed=5)
        run.executable.run(run.bindings, stream)
        stream.record().wait()
        run.expect_doubled()


# Buffers


@_behaviour
def new_buffers_are_zero(device: Device) -> None:
    """Also where memory of a freed buffer is used again."""
    for count in (1, 64, 1000, 4096):
        used = device.buffers.allocate(count)
        used.write(0, memoryview(b"\xff" * count))
        used.free()
        fresh = device.buffers.allocate(count)
        _expect(_contents(fresh) == bytes(count), f"a new buffer of {count} bytes is not zero")
        fresh.free()


@_behaviour
def buffers_read_and_write_ranges(device: Device) -> None:
    """Offsets and lengths of any alignment; nothing beside them changes."""
    expected = bytearray(_bytes(257))
    buffer = device.buffers.allocate(257)
    _expect(buffer.nbytes == 257, f"a buffer of 257 bytes says it has {buffer.nbytes}")
    buffer.write(0, memoryview(bytes(expected)))
    for offset, count in ((0, 1), (3, 5), (64, 64), (256, 1), (13, 200), (100, 0), (257, 0)):
        part = _bytes(count, seed=offset)
        buffer.write(offset, memoryview(part))
        expected[offset : offset + count] = part
        _expect(_contents(buffer) == expected, f"writing {count} bytes at {offset} went wrong")
        _expect(_contents(buffer, offset, count) == part, f"reading {count} at {offset} went wrong")
    buffer.free()


@_behaviour
def buffers_take_typed_memory(device: Device) -> None:
    """Memory of other element types counts in bytes."""
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    buffer = device.buffers.allocate(numbers.nbytes)
    buffer.write(0, numbers.data)
    back = np.empty((2, 3), np.float32)
    buffer.read(0, back.data)
    _expect(bool((back == numbers).all()), "a float32 array comes back changed")
    buffer.free()


@_behaviour
def writes_are_finished_when_they_return(device: Device) -> None:
    """The source may be changed at once."""
    source = bytearray(_bytes(4096))
    expected = bytes(source)
    buffer = device.buffers.allocate(4096)
    buffer.write(0, memoryview(source))
    source[:] = bytes(4096)
    _expect(_contents(buffer) == expected, "a write still reads its source after it returned")
    buffer.free()


@_behaviour
def ranges_outside_a_buffer_are_refused(device: Device) -> None:
    """Neither bytes before nor after a buffer are touched."""
    buffer = device.buffers.allocate(64)
    for offset, count in ((-1, 1), (64, 1), (60, 5), (1 << 40, 1)):
        data = memoryview(bytearray(count))
        what = f"{count} bytes at {offset} of a buffer of 64"
        _expect_error(partial(buffer.read, offset, data), f"reading {what}", UsageError)
        _expect_error(partial(buffer.write, offset, data), f"writing {what}", UsageError)
    _expect(_contents(buffer) == bytes(64), "a refused write changed the buffer")
    buffer.free()


@_behaviour
def empty_buffers_work(device: Device) -> None:
    """Tensors with an axis of length 0 have no bytes."""
    buffer = device.buffers.allocate(0)
    _expect(buffer.nbytes == 0, f"an empty buffer has {buffer.nbytes} bytes")
    buffer.write(0, memoryview(b""))
    _expect(_contents(buffer) == b"", "an empty buffer holds something")
    buffer.free()


@_behaviour
def buffers_copy_from_each_other(device: Device) -> None:
    """Later changes of the source do not show."""
    source, target = device.buffers.allocate(100), device.buffers.allocate(100)
    data = _bytes(100)
    source.write(0, memoryview(data))
    target.copy_from(source)
    source.write(0, memoryview(bytes(100)))
    _expect(_contents(target) == data, "copy_from did not copy")
    for buffer in (source, target):
        buffer.free()


@_behaviour
def freed_buffers_are_refused(device: Device) -> None:
    """A second free does nothing; reading or running with it is an error, not a crash."""
    buffer = device.buffers.allocate(16)
    buffer.free()
    buffer.free()
    data = memoryview(bytearray(16))
    _expect_error(lambda: buffer.read(0, data), "reading a freed buffer", UsageError)
    _expect_error(lambda: buffer.write(0, data), "writing a freed buffer", UsageError)
    with _Run(device, _doubled()) as run:
        for name in list(run.bindings):
            bindings = dict(run.bindings)
            bindings[name] = device.buffers.allocate(bindings[name].nbytes)
            bindings[name].free()
            what = f"running with {name!r} bound to a freed buffer"
            _expect_error(partial(run.executable.run, bindings), what, ExecutionError, UsageError)


@_behaviour
def host_memory_is_the_buffer(device: Device) -> None:
    """`host`, where there is one, shows what was written."""
    buffer = device.buffers.allocate(32)
    data = _bytes(32)
    buffer.write(0, memoryview(data))
    seen = buffer.host()
    if seen is not None:
        _expect(seen.nbytes == 32 and bytes(seen) == data, "host() shows other bytes")
    _expect(seen is not None or not device.buffers.is_host, "is_host, but host() gives None")
    del seen
    buffer.free()


@_behaviour
def wrapped_memory_is_used_as_it_lies(device: Device) -> None:
    """A change of either side shows on the other; read-only memory cannot be written."""
    memory = np.zeros(64, np.uint8)
    buffer = device.buffers.wrap(memory.data)
    if buffer is None:
        return
    memory[:4] = 7
    _expect(_contents(buffer)[:4] == bytes([7] * 4), "a wrapping buffer shows other bytes")
    buffer.write(8, memoryview(b"\x09"))
    _expect(memory[8] == 9, "a write to a wrapping buffer does not reach its memory")
    buffer.free()
    _expect(memory[8] == 9, "freeing a wrapping buffer changed its memory")
    fixed = device.buffers.wrap(np.zeros(64, np.uint8).data.toreadonly())
    if fixed is not None:
        data = memoryview(b"\x01")
        _expect_error(lambda: fixed.write(0, data), "writing read-only memory", UsageError)
        fixed.free()


@_behaviour
def wrapped_memory_serves_as_a_weight(device: Device) -> None:
    """Read-only memory, as of a mapped file."""
    w = ops.weight(name="w", dtype="f32", shape=(16,))
    graph = Graph.build({"y": ops.add(_x(), w)})
    values = np.arange(16, dtype=np.float32)
    wrapped = device.buffers.wrap(values.data.toreadonly().cast("B"))
    if wrapped is None:
        return
    with _Run(device, graph) as run:
        run.bindings["w"].free()
        run.bindings["w"] = wrapped
        run.executable.run(run.bindings)
        got = run.output()
    _expect(bool((got == run.x + values).all()), "a weight in wrapped memory gives other results")


@_behaviour
def too_large_buffers_are_refused(device: Device) -> None:
    """With the error that placement understands."""
    asked = 1 << 60
    what = f"allocating {asked} bytes"
    _expect_error(lambda: device.buffers.allocate(asked), what, OutOfDeviceMemoryError)


# Executables


@_behaviour
def runs_again_with_the_same_bindings(device: Device) -> None:
    """New contents of the inputs count each time."""
    with _Run(device, _doubled()) as run:
        for seed in range(4):
            run.give(seed)
            run.executable.run(run.bindings)
            run.expect_doubled()


@_behaviour
def runs_again_with_other_bindings(device: Device) -> None:
    """Another mapping, the same with another buffer in it, and after letting go of all."""
    with _Run(device, _doubled()) as run:
        run.executable.run(run.bindings)
        run.expect_doubled()
        for name in ("x", "output:y"):
            first = run.bindings[name]
            run.bindings[name] = device.buffers.allocate(first.nbytes)
            first.free()
            run.give(seed=9)
            run.executable.run(run.bindings)
            run.expect_doubled()
        run.executable.run(dict(run.bindings))
        run.expect_doubled()
        if run.executable.unbind():
            run.give(seed=10)
            run.executable.run(run.bindings)
            run.expect_doubled()


@_behaviour
def missing_bindings_are_refused(device: Device) -> None:
    """Of an input, a weight, a state or an output; the sentence names it."""
    w = ops.weight(name="w", dtype="f32", shape=(16,))
    total = ops.add(ops.add(_x(), w), ops.state(name="s", dtype="f32", shape=(16,)))
    with _Run(device, Graph.build({"y": total}, {"s": total})) as run:
        for name in list(run.bindings):
            bindings = {other: b for other, b in run.bindings.items() if other != name}
            what = f"running without {name!r}"
            _expect_error(partial(run.executable.run, bindings), what, ExecutionError)
        run.executable.run(run.bindings)  # and the device goes on working


@_behaviour
def small_buffers_are_refused(device: Device) -> None:
    """Before anything is written over their ends."""
    with _Run(device, _doubled()) as run:
        for name in list(run.bindings):
            bindings = {**run.bindings, name: device.buffers.allocate(60)}
            what = f"running with 60 of 64 bytes bound to {name!r}"
            _expect_error(partial(run.executable.run, bindings), what, ExecutionError)
            bindings[name].free()
        run.executable.run(run.bindings)
        run.expect_doubled()


@_behaviour
def executables_are_freed_twice(device: Device) -> None:
    """And others of the same graph go on."""
    with _Run(device, _doubled()) as kept, _Run(device, _doubled()) as freed:
        freed.executable.free()
        freed.executable.free()
        kept.executable.run(kept.bindings)
        kept.expect_doubled()


@_behaviour
def executables_share_states(device: Device) -> None:
    """As a prompt's plan and a token's plan share one KV cache."""
    state = ops.state(name="s", dtype="f32", shape=(16,))
    grown = ops.add(state, _x())
    grow, read = Graph.build({}, {"s": grown}), Graph.build({"y": ops.add(state, _x())})
    with _Run(device, grow) as writer, _Run(device, read) as reader:
        reader.bindings["s"].free()
        reader.bindings["s"] = writer.bindings["s"]
        for turn in range(1, 4):
            writer.executable.run(writer.bindings)
            reader.executable.run(reader.bindings)
            close = np.allclose(reader.output(), turn * writer.x + reader.x, rtol=1e-6)
            _expect(bool(close), f"after {turn} updates another executable sees another state")


@_behaviour
def executables_explain_themselves(device: Device) -> None:
    """In lines of text."""
    with _Run(device, _doubled()) as run:
        lines = run.executable.explain()
        _expect(all(isinstance(line, str) for line in lines), f"explain() gives {lines!r}")
        _expect(run.executable.arena_bytes >= 0, f"arena_bytes is {run.executable.arena_bytes}")


@_behaviour
def runs_can_be_stopped(device: Device) -> None:
    """A run that is stopped ends or is cancelled, and the next one is as if nothing had been."""
    with _Run(device, _doubled()) as run:
        run.executable.stop()
        run.executable.run(run.bindings)
        run.expect_doubled()
        with ThreadPoolExecutor(1) as pool:
            for seed in range(20):
                run.give(seed)
                running = pool.submit(run.executable.run, run.bindings)
                while not running.done():
                    run.executable.stop()
                    wait([running], timeout=0.002)
                error = running.exception()
                _expect(
                    error is None or isinstance(error, RunCancelledError),
                    f"a run that is stopped raises {type(error).__name__}: {error}",
                )
        run.executable.run(run.bindings)
        run.expect_doubled()


@_behaviour
def threads_run_at_the_same_time(device: Device) -> None:
    """Executables of their own, in four threads, each several times."""
    graph = _doubled() if unsupported(device, _busy()) else _busy()

    def work(seed: int) -> None:
        with _Run(device, graph) as run:
            run.give(seed)
            expected = evaluate(graph, {"x": run.x})["y"]
            for _ in range(5):
                run.executable.run(run.bindings)
                right = bool(np.allclose(run.output(), expected, atol=1e-4))
                _expect(right, "graphs that run in several threads disturb each other")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


@_behaviour
def results_are_the_same_every_time(device: Device) -> None:
    """One executable on one device gives the same bits for the same inputs."""
    w = ops.weight(name="w", dtype="f32", shape=(64, 16))
    graph = Graph.build({"y": ops.matmul(ops.reshape(_x(), shape=(1, 16)), w, transpose_b=True)})
    with _Run(device, graph) as run:
        weights = np.random.default_rng(1).standard_normal((64, 16)).astype(np.float32)
        run.bindings["w"].write(0, weights.data)
        outputs = []
        for _ in range(5):
            run.executable.run(run.bindings)
            outputs.append(_contents(run.bindings["output:y"]))
    _expect(len(set(outputs)) == 1, "the same inputs give different bits")


def _x() -> Node:
    return ops.input(name="x", dtype="f32", shape=(16,))


def _doubled() -> Graph:
    return Graph.build({"y": ops.add(_x(), _x())})


def _busy() -> Graph:
    negative = ops.neg(_x())
    ordered = ops.take(negative, ops.argsort(negative))
    return Graph.build({"y": ops.maximum(negative, ops.cumsum(ordered))})


class _Run:
    """A compiled graph with an input "x" of 16 floats, and buffers for all that it binds."""

    def __init__(self, device: Device, graph: Graph) -> None:
        reason = unsupported(device, graph)
        if reason:
            raise Unsupported(reason)
        self.graph = graph
        self.executable: Executable = compile_graph(device, graph)
        self.bindings: dict[str, Buffer] = {
            node.name: device.buffers.allocate(node.type.nbytes)
            for node in graph.nodes
            if node.is_leaf
        }
        for name, node in graph.outputs:
            self.bindings[f"output:{name}"] = device.buffers.allocate(node.type.nbytes)
        self.give(seed=0)

    def give(self, seed: int) -> None:
        """New contents of the input."""
        self.x = np.random.default_rng(seed).standard_normal(16).astype(np.float32)
        self.bindings["x"].write(0, self.x.data)

    def output(self) -> npt.NDArray[np.float32]:
        """What the output "y" holds."""
        node = dict(self.graph.outputs)["y"]
        return download(self.bindings["output:y"], node.type).array()

    def expect_doubled(self) -> None:
        """Check the result of `_doubled`."""
        _expect(bool((self.output() == 2 * self.x).all()), "x + x gives another result")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.executable.free()
        for buffer in self.bindings.values():
            buffer.free()
