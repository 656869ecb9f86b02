"""How a plan is told: as plain values, as a table, in short."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hotplug.amounts import size_text, time_text

if TYPE_CHECKING:
    from hotplug.placement.plan import MemoryUse, Plan

__all__ = ["doubt", "explain", "table", "to_json"]


def to_json(plan: Plan) -> dict[str, Any]:
    """All of it as plain values."""
    return {
        "graph": plan.graph.key,
        "seconds": plan.seconds,
        "parts": [
            {
                "device": part.device,
                "nodes": sum(not node.is_leaf for node in part.graph.nodes),
                "receives": [copy.name for copy in part.receives],
                "compute_seconds": time.compute,
                "copy_seconds": time.copies,
            }
            for part, time in zip(plan.parts, plan.times, strict=True)
        ],
        "nodes": [
            {
                "name": node.name,
                "weights": [n.name for n in node.operands if n.op == "weight"],
                "type": str(node.type),
                "device": plan.choices[node].device,
                "reason": plan.choices[node].reason,
            }
            for node in plan.graph.nodes
        ],
        "copies": [
            {
                "name": copy.name,
                "value": copy.node.name,
                "from": copy.source,
                "to": copy.target,
                "bytes": copy.nbytes,
                "direct": plan.is_direct(copy),
                "seconds": plan.copy_seconds(copy),
            }
            for copy in plan.copies
        ],
        "memory": {
            device: {
                "weights": use.weights,
                "states": use.states,
                "values": use.values,
                "arena": use.arena,
                "total": use.total,
                "budget": use.budget,
                "free": plan.free.get(device),
            }
            for device, use in plan.memory.items()
        },
        "speeds": {device: rates.source for device, rates in plan.rates.items()},
        "stats": {
            "planning_seconds": plan.stats.seconds,
            "speeds_decided": plan.stats.known,
            "exact": plan.stats.exact,
            "gap": plan.stats.gap,
            "labels": plan.stats.labels,
            "shares": plan.stats.shares,
            "parts": len(plan.parts),
            "copies": len(plan.copies),
            "copied_bytes": sum(copy.nbytes for copy in plan.copies),
            "refused": _counts(plan.stats.refused),
            "fallbacks": _counts(plan.stats.fallbacks),
        },
    }


def table(plan: Plan) -> str:
    """A line per node that computes something: label, type, device, reason."""
    rows = [
        (node.label, str(node.type), plan.choices[node].device, plan.choices[node].reason)
        for node in plan.graph.nodes
        if not node.is_leaf
    ]
    return _columns(("node", "result", "device", "because"), rows)


def explain(plan: Plan) -> str:
    """The decisions in short: parts, what crosses, memory, and how often each reason held."""
    lines = [f"{len(plan.parts)} part(s) on {', '.join(plan.devices)}; {_basis(plan)}"]
    for number, part in enumerate(plan.parts):
        count = sum(not node.is_leaf for node in part.graph.nodes)
        crossing = sum(copy.nbytes for copy in part.receives)
        brought = f", {size_text(crossing)} brought" if part.receives else ""
        lines.append(f"  part {number}: {count} nodes on {part.device}{brought}")
    lines += [f"  memory of {device}: {_told(use)}" for device, use in plan.memory.items()]
    lines += _reasons(plan)
    return "\n".join(lines)


def doubt(plan: Plan) -> str:
    """What comes of speeds that are guesses, and what helps; empty if there are none."""
    guessed = [device for device, rates in plan.rates.items() if rates.source == "usual"]
    if not guessed:
        return ""
    names = ", ".join(guessed) if len(guessed) <= _NAMED else f"{len(guessed)} devices"
    ordered = len(plan.budgets) > 1 and not plan.stats.shares
    effect = "the order of the devices decided" if ordered else "a guess"
    return f"{effect}, since `hotplug calibrate` has not measured {names}"


def _basis(plan: Plan) -> str:
    """What decided, and how good it is."""
    expected = f"{time_text(plan.seconds)} expected"
    if plan.stats.shares:
        return "; ".join(filter(None, [f"{expected}, in given shares", doubt(plan)]))
    if not plan.stats.known:
        return f"{expected}; {doubt(plan)}"
    sources = Counter(plan.rates[device].source for device in plan.budgets)
    speeds = ", ".join(f"{count} {source}" for source, count in sources.items())
    best = f"within {plan.stats.gap:.1%} of the best"
    if plan.stats.exact:
        best = "the best there is"
    elif plan.stats.gap < _NEGLIGIBLE:
        best = "the best that keeps pieces of the graph together"
    return f"{expected}, {best} by speeds {speeds}"


def _reasons(plan: Plan) -> list[str]:
    counts = Counter(
        (choice.device, _general(choice.reason))
        for node, choice in plan.choices.items()
        if not node.is_leaf
    )
    return [f"  {n} node(s) on {device}: {why}" for (device, why), n in counts.most_common()]


_NEGLIGIBLE = 5e-4
_NAMED = 4


def _counts(counts: Mapping[tuple[str, str], int]) -> list[dict[str, Any]]:
    return [{"device": at, "op": op, "nodes": count} for (at, op), count in counts.items()]


def _told(use: MemoryUse) -> str:
    limit = "no limit" if use.budget is None else f"limit {size_text(use.budget)}"
    return (
        f"{size_text(use.total)} (weights {size_text(use.weights)}, "
        f"states {size_text(use.states)}, values {size_text(use.values)}, "
        f"arena {size_text(use.arena)}; {limit})"
    )


def _general(reason: str) -> str:
    """The reason without what is only true of the single node."""
    if reason.startswith(("fastest there:", "near its operands:")):
        return reason.partition(":")[0]
    for kind in ("weight", "state"):
        if reason.startswith(f"{kind} ") and reason.endswith("lives there"):
            return f"its {kind} lives there"
    return reason


def _columns(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in [titles, *rows]) for i in range(len(titles))]
    lines = [titles, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
