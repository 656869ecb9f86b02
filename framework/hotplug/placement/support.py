"""First pass: ask every device about every node."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from hotplug.backend import YES, Device, Support, no
from hotplug.errors import UnsupportedOpError
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.settings import settings

__all__ = ["PIECE", "SupportTable", "ask", "fixed_to"]

SupportTable = Mapping[Node, Mapping[str, Support]]
"""Node -> device id -> answer, devices in order of preference. Leaves are not in it."""


def ask(graph: Graph, devices: Sequence[Device]) -> SupportTable:
    """Ask every device about every node that computes something.

    Nodes of one op with the same parameters and operand types are asked about once: by the contract
    the answer depends on nothing else.

    Raises:
        UnsupportedOpError: a node that no device runs; holds each device's reason.
    """
    kinds: dict[int, list[Node]] = {}
    for node, kind in graph.kinds.items():
        kinds.setdefault(kind, []).append(node)
    samples = [nodes[0] for nodes in kinds.values()]
    forbidden = settings().forbid
    answers = {device.id: _answers(device, graph, samples, forbidden) for device in devices}
    rows: dict[Node, Mapping[str, Support]] = {}
    for number, nodes in enumerate(kinds.values()):
        row = {device: given[number] for device, given in answers.items()}
        if not any(row.values()):
            raise _nobody_runs(nodes[0], row)
        rows.update(dict.fromkeys(nodes, row))
    return rows


PIECE = "it is the piece of "
"""How the answer begins for a node that belongs to another device: that one is no refusal."""


def fixed_to(table: SupportTable, devices: Mapping[Node, str]) -> SupportTable:
    """The table, where nodes that belong to a device and run there run nowhere else."""

    def answers(node: Node, given: Mapping[str, Support]) -> Mapping[str, Support]:
        home = devices.get(node)
        if home is None or not given.get(home):
            return given
        elsewhere = no(PIECE + home)
        return {device: YES if device == home else elsewhere for device in given}

    return {node: answers(node, given) for node, given in table.items()} if devices else table


def _answers(
    device: Device,
    graph: Graph,
    samples: Sequence[Node],
    forbidden: Collection[tuple[str, str]],
) -> list[Support]:
    given = _of_whole(device, graph)
    return [_checked(node, _ask(device, node, given), device, forbidden) for node in samples]


def _of_whole(device: Device, graph: Graph) -> Mapping[Node, object]:
    """Answers of a device that is asked about whole graphs; empty for one that is not."""
    if type(device).supports_graph is Device.supports_graph:
        return {}
    try:
        return dict(zip(graph.nodes, device.supports_graph(graph), strict=True))
    except Exception:  # noqa: BLE001 - a plug-in's fault costs that plug-in the nodes that it is about
        return {}


def _ask(device: Device, node: Node, given: Mapping[Node, object]) -> object:
    try:
        return given[node] if node in given else device.supports(node)
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
