"""Third pass: where steps have to run, whatever it costs: pins, and weights that live somewhere.

A *pin* says where weights and states live, and thereby where the steps run that read them; or where
all nodes of an op run. It is honoured or refused, with the reason; nothing that is pinned runs
elsewhere. A weight or state that lives somewhere already, since another graph of the session has
been placed before, stays there, and its steps go to it unless the device does not run them. Where
a device was lost meanwhile and has come back, weights pinned to it return to it, states do not.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from hotplug.backend import Device
from hotplug.errors import DeviceNotFoundError, PinError
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.placement.outline import Outline, alike
from hotplug.placement.plan import Plan
from hotplug.placement.support import PIECE

__all__ = ["Rule", "Rules", "find_rules", "pinned_leaves", "pins_for", "refuse_pins"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A device that something has to be on.

    Attributes:
        device: its id.
        reason: why.
        firm: whether it is refused rather than broken.
    """

    device: str
    reason: str
    firm: bool = False


@dataclass(slots=True)
class Rules:
    """What has to be where.

    Attributes:
        leaves: weights and states by name.
        steps: by number of step.
    """

    leaves: dict[str, Rule] = field(default_factory=dict)
    steps: dict[int, Rule] = field(default_factory=dict)


def find_rules(
    outline: Outline,
    devices: Sequence[Device],
    pins: Mapping[str, str],
    settled: Mapping[str, str],
    like: Plan | None = None,
) -> Rules:
    """Rules for leaves and steps of a graph.

    Args:
        outline: the graph.
        devices: those in use.
        pins: regular expression, found anywhere in the name of a weight or state, or else the whole
            name of an op -> id of a device. The first one that fits counts.
        settled: name of a weight or state -> id of the device that it lives on.
        like: where weights and states that are not there yet are to be; and where steps run that
            read weights which are to be on several devices, if its graph is like this one.

    Raises:
        DeviceNotFoundError: a pin names a device that is not in use.
        PinError: a pin fits nothing, cannot be honoured, or is no regular expression.
    """
    rules = Rules()
    ids = [device.id for device in devices]
    chosen = {} if like is None else _homes(like)
    # Settled first: a pin then finds what is there.
    for name in outline.leaves:
        if settled.get(name) in ids:
            rules.leaves[name] = Rule(settled[name], "it lives there already")
        elif chosen.get(name) in ids:
            rules.leaves[name] = Rule(chosen[name], _CHOSEN)
    for pattern, device in pins.items():
        if device not in ids:
            raise _not_in_use(pattern, device, ids)
        _pin(rules, outline, compiled_pin(pattern), device)
    if like is not None and alike(outline.graph, like.graph):
        _run_as(like, rules, outline, ids)
    _follow_leaves(rules, outline)
    return rules


_CHOSEN = "chosen for the workload"


def _homes(plan: Plan) -> dict[str, str]:
    return {
        node.name: choice.device
        for node, choice in plan.choices.items()
        if node.op in {"weight", "state"}
    }


def _run_as(like: Plan, rules: Rules, outline: Outline, ids: Sequence[str]) -> None:
    """Steps that read a weight of several devices run where they do in another plan."""
    used: dict[str, set[str]] = {}
    for part in like.parts:
        for name in part.graph.weights:
            used.setdefault(name, set()).add(part.device)
    several = {name for name, at in used.items() if len(at) > 1}
    twins = [node for node in like.graph.nodes if not node.is_leaf] if several else []
    for number, twin in enumerate(twins):
        leaves = outline.weights[number]
        pinned = any(rules.leaves[leaf.name].firm for leaf in leaves if leaf.name in rules.leaves)
        device = like.choices[twin].device
        if device in ids and not pinned and several & {leaf.name for leaf in leaves}:
            rules.steps.setdefault(number, Rule(device, _CHOSEN))


def compiled_pin(pattern: str) -> re.Pattern[str]:
    """A pin's pattern.

    Raises:
        PinError: it is no regular expression.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise PinError(f"{pattern!r} is no regular expression: {error}") from error


def _pin(rules: Rules, outline: Outline, pattern: re.Pattern[str], device: str) -> None:
    rule = Rule(device, f"pinned by {pattern.pattern!r}", firm=True)
    names = [name for name in outline.leaves if pattern.search(name)]
    fits = pattern.fullmatch
    numbers = [] if names else [n for n, node in enumerate(outline.steps) if fits(node.op)]
    if not names and not numbers:
        raise PinError(
            f"{pattern.pattern!r} is pinned to {device}, and fits no weight, state or op",
            remedy="`hotplug plan --json` names them all",
        )
    held = [(name, rules.leaves.get(name)) for name in names]
    held += [(outline.steps[number].op, rules.steps.get(number)) for number in numbers]
    _refuse_if_passed_over(pattern.pattern, device, held)
    for name in names:
        before = rules.leaves.get(name)
        moves = before is None or (not before.firm and outline.leaves[name].op == "weight")
        if moves:  # a state would lose what it holds
            rules.leaves[name] = rule
    for number in numbers:
        rules.steps.setdefault(number, rule)


def _refuse_if_passed_over(
    pattern: str, device: str, held: Sequence[tuple[str, Rule | None]]
) -> None:
    """Refuse a pin if earlier ones have all that it fits elsewhere."""
    name, first = held[0]
    if first is not None and all(rule and rule.firm and rule.device != device for _, rule in held):
        raise PinError(
            f"{pattern!r} is pinned to {device}, and all that it fits to {first.device} before: "
            f"{name}, {first.reason}",
            remedy="name the more special pin first",
        )


def pins_for(pins: Mapping[str, str], graph: Graph) -> dict[str, str]:
    """Those of some pins that others before them leave something of a graph to.

    Raises:
        PinError: one is no regular expression.
    """
    ops = {node.op for node in graph.nodes if not node.is_leaf}
    found: dict[str, str] = {}
    taken: set[str] = set()
    for pattern, device in pins.items():
        fits = compiled_pin(pattern).fullmatch
        fitting = pinned_leaves([pattern], graph) or set(filter(fits, ops))
        if fitting - taken:
            found[pattern] = device
        taken |= fitting
    return found


def pinned_leaves(pins: Collection[str], graph: Graph) -> set[str]:
    """Names of the weights and states of a graph that any of some pins' patterns fits.

    Raises:
        PinError: one is no regular expression.
    """
    patterns = [compiled_pin(pattern) for pattern in pins]
    names = (*graph.weights, *graph.states)
    return {name for name in names if any(pattern.search(name) for pattern in patterns)}


def _follow_leaves(rules: Rules, outline: Outline) -> None:
    """Steps go where their states live, else where the largest of their weights does."""
    if not rules.leaves:
        return
    for number, (states, weights) in enumerate(zip(outline.states, outline.weights, strict=True)):
        names = [name for name in states if name in rules.leaves]
        placed = [weight for weight in weights if weight.name in rules.leaves]
        names += [w.name for w in sorted(placed, key=lambda w: w.type.nbytes, reverse=True)]
        found = [(name, rules.leaves[name]) for name in names]
        firm = [(name, rule) for name, rule in found if rule.firm]
        for name, rule in firm or found:
            kind = outline.leaves[name].op
            reason = f"{kind} {name} lives there"
            rules.steps.setdefault(number, Rule(rule.device, reason, rule.firm))
        _refuse_two(outline, number, placed, rules)


def _refuse_two(outline: Outline, number: int, weights: Sequence[Node], rules: Rules) -> None:
    for weight in weights:
        rule, step = rules.leaves[weight.name], rules.steps[number]
        if rule.firm and step.firm and step.device != rule.device:
            raise PinError(
                f"{weight.name} is pinned to {rule.device}, and what reads it to {step.device}: "
                f"{outline.steps[number].name}, {step.reason}",
                reasons={rule.device: rule.reason, step.device: step.reason},
            )


def refuse_pins(rules: Rules, outline: Outline, refused: Sequence[Mapping[str, str]]) -> None:
    """Refuse pins to devices that do not run what is pinned.

    Args:
        rules: of the graph.
        outline: the graph.
        refused: for each step, by device id why it cannot run there.

    Raises:
        PinError: there is such a pin.
    """
    for number, rule in rules.steps.items():
        node, reason = outline.steps[number], refused[number].get(rule.device)
        # A state that is pinned stays where it is, and is copied to where it is read.
        if rule.firm and reason is not None and not rule.reason.startswith("state "):
            piece = reason.startswith(PIECE)
            why = "but mode tensor has cut it" if piece else "which does not run it"
            raise PinError(
                f"{node.name} is to run on {rule.device} ({rule.reason}), {why}: {reason}",
                reasons={rule.device: reason},
                remedy="pin weights by their names, which are then not cut, or use another mode"
                if piece
                else "pin it elsewhere",
            )


def _not_in_use(pattern: str, device: str, ids: Sequence[str]) -> DeviceNotFoundError:
    return DeviceNotFoundError(
        f"{pattern!r} is pinned to {device}, which is not among the devices in use: "
        f"{', '.join(ids)}",
        device=device,
        available=tuple(ids),
    )
