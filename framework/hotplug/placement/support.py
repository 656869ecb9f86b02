"""First pass: ask every device about every node."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from hotplug.backend import YES, Device, Support, no
from hotplug.errors import UnsupportedOpError
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.settings import settings

__all__ = ["SupportTable", "ask"]

SupportTable = Mapping[Node, Mapping[str, Support]]
"""Node -> device id -> answer, devices in order of preference. Leaves are not in it."""


def ask(graph: Graph, devices: Sequence[Device]) -> SupportTable:
    """Ask every device about every node that computes something.

    Raises:
        UnsupportedOpError: a node that no device runs; holds each device's reason.
    """
    forbidden = settings().forbid
    by_device = {device.id: _answers(device, graph, forbidden) for device in devices}
    table: dict[Node, dict[str, Support]] = {}
    for position, node in enumerate(graph.nodes):
        if not node.is_leaf:
            table[node] = {device: answers[position] for device, answers in by_device.items()}
    for node, answers in table.items():
        if not any(answers.values()):
            raise _nobody_runs(node, answers)
    return table


def _answers(device: Device, graph: Graph, forbidden: Collection[tuple[str, str]]) -> list[Support]:
    try:
        answers: list[object] = list(device.supports_graph(graph))
    except Exception:  # noqa: BLE001 - a plug-in's fault costs that plug-in the nodes that it is about
        answers = []
    if len(answers) != len(graph.nodes):
        answers = [_ask(device, node) for node in graph.nodes]
    return [_checked(*pair, device, forbidden) for pair in zip(graph.nodes, answers, strict=True)]


def _ask(device: Device, node: Node) -> object:
    try:
        return device.supports(node)
    except Exception as error:  # noqa: BLE001 - as above
        return no(f"its supports() failed: {error!r}")


def _checked(
    node: Node, answer: object, device: Device, forbidden: Collection[tuple[str, str]]
) -> Support:
    if any((node.op, where) in forbidden for where in (device.info.backend, device.id)):
        return no("HOTPLUG_FORBID names it")
    if isinstance(answer, Support):
        return answer
    return YES if answer is True else no(f"its supports() answered {answer!r}")


def _nobody_runs(node: Node, answers: Mapping[str, Support]) -> UnsupportedOpError:
    reasons = {device: answer.reason or "it does not say why" for device, answer in answers.items()}
    operands = ", ".join(str(operand.type) for operand in node.operands)
    tried = "; ".join(f"{device}: {reason}" for device, reason in reasons.items())
    return UnsupportedOpError(
        f"no device runs {node.op}({operands}): {tried or 'there is no device'}",
        op=node.op,
        reasons=reasons,
        remedy=None if "cpu:0" in reasons else "let the CPU take over: add cpu to the devices",
    )
