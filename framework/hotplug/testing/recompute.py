"""Checking a session while it runs: every node again, by the oracle, from the operands it had.

    with session.observed(Verifier(fail=True)):
        session.run(graph, inputs)          # VerificationError names the first node that differs

Operands are the values that the devices themselves made, so that an error does not spread: the node
that is named is the one that was computed wrong. How far a value may be from the oracle's is what
the conformance suite allows too, `hotplug.testing.conformance.bounds`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hotplug import ops
from hotplug.errors import VerificationError
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.session import Observation
from hotplug.tensor import HostTensor
from hotplug.testing.conformance import bounds
from hotplug.testing.oracle import Array, evaluate_node
from hotplug.testing.oracle.values import leaf_value

__all__ = ["Difference", "Verifier"]


@dataclass(frozen=True, slots=True)
class Difference:
    """A node whose value is not what the oracle computes from the same operands.

    Attributes:
        node: the node.
        name: its op, key and weights.
        device: who computed it.
        error: distance of the element that is off by most.
        allowed: what rounding explains there.
    """

    node: Node
    name: str
    device: str
    error: float
    allowed: float

    def __str__(self) -> str:
        return (
            f"{self.name} ({self.node.type}) on {self.device} is off by {self.error:.3g}, "
            f"where rounding explains {self.allowed:.3g}"
        )


class Verifier:
    """An observer that recomputes each node; see the module's text.

    Args:
        fail: whether the first difference raises VerificationError, which ends the run.
        runs: how many runs are checked; later ones go unchecked. None for all.

    Attributes:
        checked: how many nodes were recomputed.
        differences: what was found wrong, in the order in which it was computed.
    """

    def __init__(self, *, fail: bool = False, runs: int | None = None) -> None:
        self.checked = 0
        self.differences: list[Difference] = []
        self._leaf: Callable[[str], Array | HostTensor] | None = None
        self._fail = fail
        self._left = runs
        self._values: dict[Node, Array] = {}
        self._uses: dict[Node, int] = {}

    def wants(self, node: Node) -> bool:
        """All nodes but views, which move nothing."""
        return not ops.get(node.op).view

    def begin(self, graph: Graph, leaf: Callable[[str], Array | HostTensor]) -> None:
        """Take down inputs and states as they are before the run."""
        self._values.clear()
        self._leaf = leaf
        self._uses = {node: len(users) for node, users in graph.consumers.items()}
        if self._left is not None:
            self._left -= 1
        if self._active:
            for node in graph.nodes:
                if node.op in {"input", "state"}:
                    self._values[node] = leaf_value(leaf(node.name), node.type)

    def see(self, seen: Observation) -> None:
        """Recompute a node.

        Raises:
            VerificationError: it differs, and `fail` was asked for.
        """
        if not self._active:
            return
        node = seen.node
        got = leaf_value(seen.value(), node.type)
        operands = [None if item is None else self._value(item) for item in node.inputs]
        found = _difference(seen, got, operands)
        self.checked += 1
        self._values[node] = got
        self._release(node)
        if found is not None:
            self.differences.append(found)
            if self._fail:
                raise VerificationError(
                    f"{found}; it is the first node that differs",
                    device=found.device,
                    op=node.op,
                    node=found.name,
                    error=found.error,
                    allowed=found.allowed,
                )

    @property
    def _active(self) -> bool:
        return self._left is None or self._left >= 0

    def _value(self, node: Node) -> Array:
        held = self._values.get(node)
        if held is not None:
            return held
        if node.op == "weight":  # not kept: all of them decoded would take much memory
            assert self._leaf is not None
            return leaf_value(self._leaf(node.name), node.type)
        operands = [None if item is None else self._value(item) for item in node.inputs]
        self._values[node] = evaluate_node(node, operands)
        return self._values[node]

    def _release(self, node: Node) -> None:
        """Forget operands that no node needs any more, through views too."""
        for operand in dict.fromkeys(node.operands):
            self._uses[operand] -= 1
            if not self._uses[operand]:
                self._values.pop(operand, None)
                if not operand.is_leaf and ops.get(operand.op).view:
                    self._release(operand)


def _difference(
    seen: Observation, got: Array, operands: Sequence[Array | None]
) -> Difference | None:
    """What is wrong with a value; None if nothing is."""
    node = seen.node
    wanted = evaluate_node(node, operands)
    allowed = bounds.allowed(node, operands, wanted)
    with np.errstate(all="ignore"):
        error = np.abs(got.astype(np.float64) - wanted.astype(np.float64))
        same = (got == wanted) | (np.isnan(got) & np.isnan(wanted)) | (error <= allowed)
    if same.all():
        return None
    excess = np.where(same, -np.inf, np.nan_to_num(error - allowed, nan=np.inf))
    at = np.unravel_index(int(excess.argmax()), excess.shape)
    return Difference(node, seen.name, seen.device, float(error[at]), float(allowed[at]))
