"""The CPU device passes the suite: compiled kernels with several threads and one, and NumPy."""

from __future__ import annotations

import dataclasses

import pytest

from hotplug.testing.conformance.pytest_suite import BackendTests
from hotplug_cpu.registration import CPUBackend


class NumpyBackend(CPUBackend):
    """The processor as it is where nothing can be compiled."""

    def probe(self):
        return [dataclasses.replace(info, kernels="numpy") for info in super().probe()]


class CompiledTests(BackendTests):
    backend = CPUBackend()
    threads = 1

    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch, device):
        if device.info.kernels != "compiled":
            pytest.skip(f"nothing can be compiled: {device.info.properties}")
        monkeypatch.setenv("HOTPLUG_THREADS", str(self.threads))
        monkeypatch.setenv("HOTPLUG_FALLBACK", "error")  # NumPy must not stand in unnoticed


class TestCompiledWithOneThread(CompiledTests):
    threads = 1


class TestCompiledWithThreeThreads(CompiledTests):
    """More than this machine may have cores, and no power of two."""

    threads = 3


class TestNumpy(BackendTests):
    backend = NumpyBackend()

    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch):
        monkeypatch.setenv("HOTPLUG_FALLBACK", "allow")
