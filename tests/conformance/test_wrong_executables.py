"""The suite finds executables that break the contract."""

from __future__ import annotations

import numpy as np
import pytest
from tests.conformance.planted import FaultyDevice, failures

from hotplug.errors import ExecutionError
from hotplug.testing.conformance import Outcome, check_behaviour
from hotplug.testing.oracle import evaluate_blocks
from hotplug.testing.reference import ReferenceExecutable


class ForgetsStates(ReferenceExecutable):
    def run(self, bindings, stream=None):
        kept = {name: bytes(bindings[name].host()) for name, _ in self.graph.updates}
        super().run(bindings)
        for name, data in kept.items():
            bindings[name].write(0, memoryview(data))


class OverwritesInputs(ReferenceExecutable):
    def run(self, bindings, stream=None):
        super().run(bindings)
        for name, node in self.graph.inputs.items():
            bindings[name].write(0, memoryview(bytes(node.type.nbytes)))


class RunsOnce(ReferenceExecutable):
    done = False

    def run(self, bindings, stream=None):
        if not self.done:
            super().run(bindings)
        self.done = True


class KeepsFirstBindings(ReferenceExecutable):
    first = None

    def run(self, bindings, stream=None):
        self.first = self.first or dict(bindings)
        super().run(self.first)


class IgnoresMissing(ReferenceExecutable):
    def run(self, bindings, stream=None):
        try:
            super().run(bindings)
        except ExecutionError:
            return


class WritesFirstOutputOnly(ReferenceExecutable):
    def run(self, bindings, stream=None):
        names = [f"output:{name}" for name, _ in self.graph.outputs][1:]
        kept = {name: bytes(bindings[name].host()) for name in names}
        super().run(bindings)
        for name, data in kept.items():
            bindings[name].write(0, memoryview(data))


class ReencodesBlocks(ReferenceExecutable):
    def run(self, bindings, stream=None):
        from hotplug.testing.oracle import to_bytes

        super().run(bindings)
        leaves = {n.name: self._load(n, bindings) for n in self.graph.nodes if n.is_leaf}
        blocks = evaluate_blocks(self.graph, leaves)
        values = self.compute(leaves)
        for name, node in self.graph.outputs:
            if node in blocks and node.dtype.name.startswith("iq4"):
                bindings[f"output:{name}"].write(0, to_bytes(values[name], node.dtype).data)


class RaisesAtRandom(ReferenceExecutable):
    def run(self, bindings, stream=None):
        raise ZeroDivisionError("no error of ours")


class Drifts(ReferenceExecutable):
    count = 0

    def compute(self, leaves):
        self.count += 1
        values = super().compute(leaves)
        return {name: v * np.float32(1 + self.count * 1e-7) for name, v in values.items()}


@pytest.mark.parametrize(
    ("executable", "groups", "behaviours"),
    [
        (ForgetsStates, ("state", "cache", "decoder"), ("executables_share_states",)),
        (OverwritesInputs, ("add", "matmul", "state"), ("runs_again_with_other_bindings",)),
        (RunsOnce, ("state", "cache"), ("runs_again_with_the_same_bindings",)),
        (KeepsFirstBindings, (), ("runs_again_with_other_bindings",)),
        (IgnoresMissing, (), ("missing_bindings_are_refused", "small_buffers_are_refused")),
        (WritesFirstOutputOnly, ("program",), ()),
        (ReencodesBlocks, ("permute", "contiguous"), ()),
        (RaisesAtRandom, ("add",), ("missing_bindings_are_refused", "stream_synchronises")),
        (Drifts, (), ("results_are_the_same_every_time",)),
    ],
)
def test_faulty_executables_are_found(executable, groups, behaviours):
    for group in groups:
        assert failures(FaultyDevice(executable=executable), group), group
    for behaviour in behaviours:
        result = check_behaviour(FaultyDevice(executable=executable), behaviour)

        assert result.outcome is Outcome.FAILED, behaviour


class SharedScratch(ReferenceExecutable):
    """Executables of one device use one scratch memory without a lock."""

    scratch: dict[int, object] = {}  # noqa: RUF012

    def compute(self, leaves):
        import time

        SharedScratch.scratch = dict(leaves)
        time.sleep(0.01)
        return super().compute(SharedScratch.scratch)


def test_shared_scratch_memory_is_found():
    device = FaultyDevice(executable=SharedScratch)

    result = check_behaviour(device, "threads_run_at_the_same_time")

    assert result.outcome is Outcome.FAILED
