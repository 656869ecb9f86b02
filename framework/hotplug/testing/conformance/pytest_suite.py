"""The suite as pytest tests, for a backend's own repository.

from hotplug.testing.conformance.pytest_suite import BackendTests

class TestMyBackend(BackendTests):
    backend = MyBackend()

Tests of the exhaustive set bear the mark `slow`, which the repository's pytest settings declare.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar, TypeAlias

import pytest

from hotplug.backend import Backend, Device
from hotplug.testing.conformance.behaviour import BEHAVIOURS
from hotplug.testing.conformance.check import Outcome, check
from hotplug.testing.conformance.suite import case_groups, check_behaviour

__all__ = ["BackendTests"]

Recorder: TypeAlias = Callable[[str, object], None]


class BackendTests:
    """Derive from it, set `backend`, and pytest runs the suite on one of its devices.

    A test runs all cases of an op. It fails if one does, and is skipped if the device supports
    none; what it skips in part is in the report's properties.

    Attributes:
        backend: the backend under test.
        index: which of its devices.
    """

    backend: ClassVar[Backend]
    index: ClassVar[int] = 0

    @pytest.fixture(scope="class")
    @classmethod
    def device(cls) -> Iterator[Device]:
        """The device, open while the class's tests run."""
        with cls.backend.open(cls.backend.probe()[cls.index]) as device:
            yield device

    @pytest.mark.parametrize("behaviour", BEHAVIOURS)
    def test_behaviour(self, device: Device, behaviour: str) -> None:
        """One rule of the contract."""
        result = check_behaviour(device, behaviour)
        assert result.outcome is not Outcome.FAILED, result.reason
        if result.outcome is Outcome.SKIPPED:
            pytest.skip(result.reason)

    @pytest.mark.parametrize("group", case_groups(slow=False))
    def test_op(self, device: Device, group: str, record_property: Recorder) -> None:
        """Cases of one op, or of one kind of program."""
        _check_group(device, group, record_property, slow=False)

    @pytest.mark.slow
    @pytest.mark.parametrize("group", case_groups(slow=True))
    def test_op_exhaustively(self, device: Device, group: str, record_property: Recorder) -> None:
        """More shapes, dtypes and layouts."""
        _check_group(device, group, record_property, slow=True)


def _check_group(device: Device, group: str, record_property: Recorder, *, slow: bool) -> None:
    results = [check(device, case) for case in case_groups(slow=slow)[group]]
    skipped = [result for result in results if result.outcome is Outcome.SKIPPED]
    failed = [str(result) for result in results if result.outcome is Outcome.FAILED]
    record_property("skipped", len(skipped))
    assert not failed, f"{len(failed)} of {len(results)} cases failed:\n" + "\n".join(failed[:20])
    if len(skipped) == len(results):
        pytest.skip(skipped[0].reason)
