"""A processor behind a server on loopback passes the suite."""

from __future__ import annotations

import pytest
from tests.rpc.servers import serve

from hotplug.testing.conformance.pytest_suite import BackendTests
from hotplug.testing.conformance.suite import case_groups
from hotplug_rpc.backend import RPCBackend

QUICK = ("add", "decoder", "softmax")


def groups():
    """The ops of the suite; of most of them the local device's own tests are enough as a rule."""
    return [
        group if group in QUICK else pytest.param(group, marks=pytest.mark.slow)
        for group in case_groups(slow=False)
    ]


class TestRemoteProcessor(BackendTests):
    backend = RPCBackend()

    @pytest.fixture(scope="class")
    @classmethod
    def device(cls, tmp_path_factory):
        cache = tmp_path_factory.mktemp("weights")
        with serve("--devices", "cpu", "--cache", str(cache)) as server:
            with cls.backend.open(cls.backend.find(server.address)[0]) as device:
                yield device
            cls.backend.close()

    @pytest.mark.parametrize("group", groups())
    def test_op(self, device, group, record_property):
        super().test_op(device, group, record_property)
