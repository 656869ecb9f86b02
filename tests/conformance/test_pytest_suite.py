"""What a backend author sees: failures by case, skips with the device's reason."""

from __future__ import annotations

import subprocess
import sys

import pytest

AUTHORS_TESTS = """
from hotplug.backend import no
from hotplug.testing.conformance.pytest_suite import BackendTests
from hotplug.testing.reference import ReferenceBackend, ReferenceDevice, ReferenceExecutable


class Executable(ReferenceExecutable):
    def compute(self, leaves):
        negated = any(node.op == "neg" for node in self.graph.nodes)
        return {name: v + 1 if negated else v for name, v in super().compute(leaves).items()}


class Device(ReferenceDevice):
    def supports(self, node):
        return no("it has no exponentials") if node.op == "exp" else super().supports(node)

    def compile(self, partition):
        return Executable(self, partition)


class MyBackend(ReferenceBackend):
    def open(self, info):
        return Device(info)


class TestMyBackend(BackendTests):
    backend = MyBackend()
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("author")
    (folder / "test_mine.py").write_text(AUTHORS_TESTS)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = slow: exhaustive\n")
    chosen = "test_op and (exp or neg or abs) and not exhaustively"
    command = [sys.executable, "-m", "pytest", "-rsf", "-p", "no:cacheprovider", "-k", chosen]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


def test_failures_name_their_cases(report):
    assert "FAILED test_mine.py::TestMyBackend::test_op[neg]" in report
    assert "failed neg/f32/(33,): output 'y' f32[33]: 33 of 33 elements are wrong" in report


def test_skips_give_the_devices_reason(report):
    assert "it has no exponentials" in report


def test_what_works_passes(report):
    assert "FAILED test_mine.py::TestMyBackend::test_op[abs]" not in report
    assert "1 failed" in report
    assert "1 skipped" in report
