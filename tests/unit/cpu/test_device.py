"""The processor as the contract's device."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

import hotplug_cpu
from hotplug import ops
from hotplug.backend import DeviceInfo, Partition
from hotplug.errors import FallbackWarning, KernelCompileError
from hotplug.graph import Graph
from hotplug_cpu import device as device_module
from hotplug_cpu.device import CPUDevice


@pytest.fixture
def info() -> DeviceInfo:
    return hotplug_cpu.backend.probe()[0]


@pytest.fixture
def without_kernels(info: DeviceInfo) -> CPUDevice:
    return CPUDevice(replace(info, kernels="numpy", properties={"compiler": "no llvmlite"}))


def small_partition() -> Partition:
    x = ops.input(name="x", dtype="f32", shape=(3,))
    return Partition(Graph.build({"y": ops.add(x, x)}))


def test_memory_is_counted(info: DeviceInfo) -> None:
    found = CPUDevice(info).memory()
    assert found.total is not None
    assert found.free is not None
    assert 0 < found.free <= found.total


def test_a_graph_runs(info: DeviceInfo) -> None:
    device = CPUDevice(info)
    buffers = {name: device.buffers.allocate(12) for name in ("x", "output:y")}
    buffers["x"].write(0, np.array([1, 2, 3], np.float32).data)
    device.compile(small_partition()).run(buffers)
    assert buffers["output:y"].array.view(np.float32).tolist() == [2, 4, 6]


def test_without_kernels_it_says_once_that_numpy_computes(
    without_kernels: CPUDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOTPLUG_FALLBACK", "warn")
    with pytest.warns(FallbackWarning, match="no llvmlite"):
        without_kernels.compile(small_partition())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        without_kernels.compile(small_partition())


def test_without_kernels_the_policy_decides(
    without_kernels: CPUDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOTPLUG_FALLBACK", "allow")
    without_kernels.compile(small_partition())
    monkeypatch.setenv("HOTPLUG_FALLBACK", "error")
    with pytest.raises(KernelCompileError, match="pip install"):
        without_kernels.compile(small_partition())


def test_a_refused_kernel_is_told_with_its_cause(
    info: DeviceInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise KernelCompileError("Numba refused the kernel add: it is wrong", log="all of it")

    monkeypatch.setattr(device_module, "PlanExecutable", refuse)
    if info.kernels != "compiled":
        pytest.skip("nothing can be compiled")
    with pytest.warns(FallbackWarning, match="refused the kernel add: it is wrong$"):
        CPUDevice(info).compile(small_partition())
    monkeypatch.setenv("HOTPLUG_FALLBACK", "error")
    with pytest.raises(KernelCompileError, match="it is wrong") as caught:
        CPUDevice(info).compile(small_partition())
    assert (caught.value.log, caught.value.remedy) == ("all of it", None)
