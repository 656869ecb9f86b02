"""The CPU device passes the suite."""

from __future__ import annotations

from hotplug.testing.conformance.pytest_suite import BackendTests
from hotplug_cpu.registration import CPUBackend


class TestCPU(BackendTests):
    backend = CPUBackend()
