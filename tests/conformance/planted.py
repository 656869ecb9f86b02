"""Devices with one planted fault each, and what the conformance suite says of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hotplug.backend import DeviceInfo, DeviceType
from hotplug.testing.conformance import Outcome, case_groups, check
from hotplug.testing.oracle import evaluate_node
from hotplug.testing.reference import ReferenceDevice, ReferenceExecutable

INFO = DeviceInfo("faulty", 0, "Faulty", DeviceType.CPU)
LEAVES = {"input", "weight", "state"}

Fault = Callable[..., object]


class FaultyExecutable(ReferenceExecutable):
    """Computes with the oracle, and passes each node's value through a fault."""

    fault: Fault = staticmethod(lambda node, operands, value: value)

    def compute(self, leaves):
        values = {}
        for node in self.graph.nodes:
            if node.is_leaf:
                value = evaluate_leaf(node, leaves)
                operands = ()
            else:
                operands = [None if item is None else values[item] for item in node.inputs]
                value = evaluate_node(node, operands)
            with np.errstate(all="ignore"):
                values[node] = self.fault(node, operands, value)
        results = {name: values[node] for name, node in self.graph.outputs}
        return results | {f"state:{name}": values[node] for name, node in self.graph.updates}


def evaluate_leaf(node, leaves):
    from hotplug.testing.oracle.values import leaf_value

    return leaf_value(leaves[node.name], node.type)


class FaultyDevice(ReferenceDevice):
    def __init__(self, fault=None, executable=FaultyExecutable, memory=None):
        super().__init__(INFO)
        self.fault = fault
        self.executable = executable
        self._buffers = memory or self._buffers

    def compile(self, partition):
        executable = self.executable(self, partition)
        if self.fault is not None:
            executable.fault = self.fault
        return executable


def failures(device, *groups):
    """What is wrong by case, of some groups' quick cases."""
    cases = [case for group in groups for case in case_groups(slow=False)[group]]
    results = [check(device, case) for case in cases]
    return [result.reason for result in results if result.outcome is Outcome.FAILED]


def mismatches(device, *groups):
    """Wrong values; a fault that itself is broken would raise."""
    found = failures(device, *groups)
    assert not [reason for reason in found if reason.startswith("raised")]
    return found
