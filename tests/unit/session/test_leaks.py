"""Two hundred failures in a row leave nothing behind."""

from __future__ import annotations

import importlib
import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hotplug import ops
from hotplug.backend import Device, DeviceType
from hotplug.dtypes import get
from hotplug.errors import (
    DeviceLostError,
    ExecutionError,
    KernelCompileError,
    OutOfDeviceMemoryError,
    StatesLostError,
)
from hotplug.graph import Graph
from hotplug.session import Session
from hotplug.tensor import HostTensor, TensorType
from hotplug.testing.fakes import FakeDevice
from hotplug.testing.faults import Fault, FaultyDevice, Step

SIZE = 64
WEIGHTS = {
    f"w{n}": HostTensor(
        TensorType(get("f32"), (SIZE, SIZE)),
        np.eye(SIZE, dtype=np.float32).reshape(-1).view(np.uint8),
    )
    for n in range(2)
}
X = np.ones((1, SIZE), np.float32)

ERRORS: list[tuple[Step, Exception]] = [
    ("compile", KernelCompileError("no")),
    ("allocate", OutOfDeviceMemoryError("full")),
    ("run", ExecutionError("bad launch")),
    ("run", DeviceLostError("gone")),
    ("read", ExecutionError("bad cable")),
    ("write", ExecutionError("bad cable")),
]


def graph(width: int) -> Graph:
    """Products with two weights, and a state that sums them up."""
    x = ops.input(name="x", dtype="f32", shape=(width, SIZE))
    for name in WEIGHTS:
        x = ops.matmul(x, ops.weight(name=name, dtype="f32", shape=(SIZE, SIZE)))
    total = ops.add(
        ops.state(name="total", dtype="f32", shape=(SIZE,)),
        ops.reshape(ops.slice(x, starts=(0, 0), stops=(1, SIZE)), shape=(SIZE,)),
    )
    return Graph.build({"y": x, "total": total}, {"total": total})


def descriptors() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def fail_again_and_again(inner: Device, times: int) -> None:
    """Let a device fail in a session, bring it back, and so on; each run's result is looked at."""
    spare = FakeDevice("spare:1")
    card = FaultyDevice(inner)
    after = []
    before = threading.active_count()
    with Session([card, spare], WEIGHTS, fallback="allow") as session:
        for number, (step, error) in zip(range(times), itertools.cycle(ERRORS), strict=False):
            width = 2 + number % 3  # of which no graph is compiled
            card.script.add(Fault(step, error))
            while True:
                try:
                    got = session.run(graph(width), {"x": np.repeat(X, width, axis=0)})
                    break
                except StatesLostError:
                    continue
            np.testing.assert_allclose(got["y"], np.repeat(X, width, axis=0), rtol=1e-5)
            assert list(session.failed) == [card.id]
            assert (card.held, card.executables) == (0, 0)
            card.revive()
            session.restore(card.id)
            session.run(graph(1), {"x": X})  # all is on the device again
            after.append((card.held, descriptors()))
            # Those just let go may be on their way out.
            assert threading.active_count() < before + 10
    assert (card.held, spare.buffers.memory.used) == (0, 0)
    # The first rounds bring up what stays: kernels, pinned memory.
    held, files = zip(*after[len(ERRORS) :], strict=True)
    assert len(set(held)) == 1
    assert max(files) <= files[0], (
        "earlier tests' may be closed meanwhile, and no new ones stay open"
    )


def workers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("hotplug-gpu")]


def opencl(opencl_devices: Callable[..., Any]) -> Device:
    device: Device = importlib.import_module("hotplug_opencl").backend.open(
        opencl_devices(intel=False)
    )
    return device


def test_on_a_fake_device() -> None:
    fail_again_and_again(FakeDevice("fake:0"), 200)


def test_on_opencl(opencl_devices: Callable[..., Any]) -> None:
    fail_again_and_again(opencl(opencl_devices), 200)


@pytest.mark.slow
@pytest.mark.usefixtures("two_simulated_gpus")
def test_on_simulated_cuda_its_memory_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTPLUG_CUDA_SIMULATE", "2")
    backend = importlib.import_module("hotplug_cuda").backend
    device = backend.open(backend.probe()[0])
    fail_again_and_again(device, 2 * len(ERRORS))
    free = device.memory().free
    fail_again_and_again(device, 3 * len(ERRORS))
    assert device.memory().free == free


@pytest.mark.usefixtures("hasty")
def test_devices_that_hang_leave_no_thread_and_no_memory_once_they_come_back(
    gate: Any,
) -> None:
    cards = [FakeDevice(f"gpu:{n}", faults=[Fault("run", gate.wait)]) for n in range(20)]
    host = FakeDevice("cpu:0", type=DeviceType.CPU, is_host=True)
    with Session([*cards, host], WEIGHTS, fallback="allow", device_timeout=60) as session:
        for _ in cards:
            with pytest.raises(StatesLostError):
                session.run(graph(1), {"x": X})
        assert (session.run(graph(1), {"x": X})["y"] == X).all()
        assert len(session.quarantine) == 20
        assert all(
            held.stuck and held.nbytes > 2 * X.nbytes for held in session.quarantine.values()
        )
        assert len(workers()) == 20
    assert all(card.buffers.memory.used for card in cards)
    gate.open()
    for thread in workers():
        thread.join(30)
    assert not workers()
    assert not any(card.buffers.memory.used for card in cards)
