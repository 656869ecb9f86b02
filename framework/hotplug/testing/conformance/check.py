"""Run a case on a device and compare it with the oracle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np

from hotplug.backend import Buffer, Device, Executable, Partition
from hotplug.graph import Graph
from hotplug.memory import plan
from hotplug.node import Node
from hotplug.ops import OPS
from hotplug.tensor import HostTensor, TensorType
from hotplug.testing.conformance.bounds import allowed, exact
from hotplug.testing.conformance.case import Case
from hotplug.testing.oracle import Array, evaluate_node, evaluate_nodes, from_bytes

__all__ = [
    "Mismatch", "Outcome", "Result", "Unsupported", "check", "compile_graph", "download",
    "unsupported",
]  # fmt: skip

_POISON = 0xA5


class Outcome(Enum):
    """How a case or a behaviour ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one case.

    Attributes:
        case: its name.
        outcome: passed, failed or skipped.
        reason: what is wrong, or why the device does not run it.
    """

    case: str
    outcome: Outcome
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.outcome.value} {self.case}" + (f": {self.reason}" if self.reason else "")


class Mismatch(AssertionError):  # noqa: N818  (it is no error of the suite's)
    """A device did not do what the contract says."""


class Unsupported(Exception):  # noqa: N818  (it is no error at all)
    """A device declares not to run what would be checked."""


def check(device: Device, case: Case) -> Result:
    """Run a case and compare every result of every run with the oracle's.

    Whatever the device raises is its failure and is reported as one.
    """
    reason = unsupported(device, case.graph)
    if reason:
        return Result(case.name, Outcome.SKIPPED, reason)
    try:
        _run_case(device, case)
    except Mismatch as mismatch:
        return Result(case.name, Outcome.FAILED, str(mismatch))
    except Exception as error:  # noqa: BLE001  (a device may raise anything; it is in the report)
        return Result(case.name, Outcome.FAILED, f"raised {type(error).__name__}: {error}")
    return Result(case.name, Outcome.PASSED)


def unsupported(device: Device, graph: Graph) -> str:
    """Why the device does not run some node of a graph; empty if it runs them all."""
    for node, answer in zip(graph.nodes, device.supports_graph(graph), strict=True):
        if not answer:
            return f"{node.name} {node.type}: {answer.reason}"
    return ""


def compile_graph(device: Device, graph: Graph) -> Executable:
    """A whole graph as one partition, with the core's memory plan."""
    return device.compile(Partition(graph, plan(graph).arena_bytes))


def download(buffer: Buffer, kind: TensorType) -> HostTensor:
    """A tensor's bytes from a buffer."""
    data = np.empty(kind.nbytes, np.uint8)
    buffer.read(0, data.data)
    return HostTensor(kind, data)


def _run_case(device: Device, case: Case) -> None:
    bindings = _bindings(device, case)
    executable = compile_graph(device, case.graph)
    try:
        for run in range(case.runs):
            _run_once(case, run, executable, bindings)
    finally:
        executable.free()
        for buffer in bindings.values():
            buffer.free()


def _bindings(device: Device, case: Case) -> dict[str, Buffer]:
    graph = case.graph
    leaves = [node for node in graph.nodes if node.is_leaf]
    bindings = {node.name: device.buffers.allocate(node.type.nbytes) for node in leaves}
    for node in leaves:
        if node.op == "weight" or (node.op == "state" and node.name in case.data):
            bindings[node.name].write(0, case.leaf(node).data.data)
    for name, node in graph.outputs:
        bindings[f"output:{name}"] = device.buffers.allocate(node.type.nbytes)
    return bindings


def _run_once(case: Case, run: int, executable: Executable, bindings: Mapping[str, Buffer]) -> None:
    graph = case.graph
    for name, node in graph.inputs.items():
        bindings[name].write(0, case.leaf(node, run).data.data)
    for name, _ in graph.outputs:  # what was there before must not pass for a result
        poison = np.full(bindings[f"output:{name}"].nbytes, _POISON, np.uint8)
        bindings[f"output:{name}"].write(0, poison.data)
    # The oracle goes on from the states that the device has, so that errors do not add up.
    before = {n.name: download(bindings[n.name], n.type) for n in graph.nodes if n.is_leaf}
    executable.run(bindings)
    values = evaluate_nodes(graph, before)
    bounds = _bounds(case, values)
    for label, buffer, node in _results(graph, bindings):
        where = f"run {run + 1} of {case.runs}, {label}" if case.runs > 1 else label
        _compare(where, download(buffer, node.type), values[node], bounds[node])
    _check_untouched(graph, before, bindings)


def _results(graph: Graph, bindings: Mapping[str, Buffer]) -> Iterator[tuple[str, Buffer, Node]]:
    for name, node in graph.outputs:
        yield f"output {name!r}", bindings[f"output:{name}"], node
    for name, node in graph.updates:
        yield f"state {name!r}", bindings[name], node


def _bounds(case: Case, values: Mapping[Node, Array]) -> dict[Node, Array]:
    """Allowed errors of the results."""
    if case.tolerance is not None:
        return {node: _relative_bound(case, node, values) for node in case.graph.results}
    bounds: dict[Node, Array] = {}
    for node in case.graph.nodes:
        bounds[node] = _bound(node, bounds, values)
    return bounds


def _relative_bound(case: Case, node: Node, values: Mapping[Node, Array]) -> Array:
    value = values[node]
    if value.dtype.kind != "f":
        return np.zeros(value.shape)
    largest = np.abs(value[np.isfinite(value)]).max(initial=0.0)
    return np.full(value.shape, (case.tolerance or 0.0) * float(largest))


def _bound(node: Node, bounds: Mapping[Node, Array], values: Mapping[Node, Array]) -> Array:
    if node.is_leaf:
        return np.zeros(node.shape)
    if not any(bounds[operand].any() for operand in node.operands):
        operands = [None if item is None else values[item] for item in node.inputs]
        return allowed(node, operands, values[node])
    if OPS[node.op].view or node.op == "contiguous":  # errors move as their elements do
        return evaluate_node(node, [bounds[operand] for operand in node.operands])
    if exact(node) or values[node].size == 0:
        raise AssertionError(f"{node.name} uses inexact values: the case needs a tolerance")
    raise AssertionError(f"{node.name} rounds a second time: the case needs a tolerance")


def _compare(label: str, got: HostTensor, want: Array, bound: Array) -> None:
    values = from_bytes(got.data, got.type)
    with np.errstate(all="ignore"):
        same = (values == want) | (_is_nan(values) & _is_nan(want))
        if values.dtype.kind == "f":
            error = np.abs(values.astype(np.float64) - want.astype(np.float64))
            same |= np.isfinite(want) & np.isfinite(values) & (error <= bound)
    if same.all():
        return
    at = tuple(int(index) for index in np.argwhere(~same)[0])
    raise Mismatch(
        f"{label} {got.type}: {np.count_nonzero(~same)} of {same.size} elements are wrong, first "
        f"at {list(at)}: {values[at]!s} instead of {want[at]!s}, allowed error {bound[at]:.3g}"
    )


def _is_nan(values: Array) -> Array:
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)


def _check_untouched(
    graph: Graph, before: Mapping[str, HostTensor], bindings: Mapping[str, Buffer]
) -> None:
    updated = {name for name, _ in graph.updates}
    for name, tensor in before.items():
        after = download(bindings[name], tensor.type)
        if name not in updated and not np.array_equal(after.data, tensor.data):
            raise Mismatch(f"leaf {name!r} was written to")
