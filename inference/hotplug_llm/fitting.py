"""Making a model fit: fewer tokens at once, then a shorter context, until its plans have room."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from hotplug.errors import PlacementError
from hotplug.graph import Graph
from hotplug.placement import Plan
from hotplug.session import Session
from hotplug_llm.decoder import Decoder
from hotplug_llm.evaluation import BATCH, LEAST_BATCH, width_for

__all__ = ["Fit", "fit", "workload"]

_log = logging.getLogger("hotplug.llm")

_SHARE = 0.95
"""Of free memory that a plan may take; drivers need some."""

_STEP = 256
"""Contexts are multiples of it, if they have to be shorter; no shorter than one."""

ANSWER = 128
"""Tokens of an answer, for each batch of a prompt that is read: how often each graph is run."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What fits.

    Attributes:
        decoder: of the context that fits.
        batch: tokens that can be read at once.
        told: what was made smaller; empty for nothing.
    """

    decoder: Decoder
    batch: int
    told: str


def workload(decoder: Decoder, batch: int = BATCH) -> dict[Graph, float]:
    """The decoder's graphs of one token and of a batch, with how often each is run."""
    wide = width_for(min(batch, decoder.context))
    return {decoder.graph(1): float(ANSWER), decoder.graph(wide): 1.0}


def fit(session: Session, make: Callable[[int], Decoder], context: int) -> Fit:
    """The largest batch, or with the smallest one the longest context, that there is room for.

    Args:
        session: where it is to run; nothing is allocated.
        make: makes the decoder of a context.
        context: the longest that is wanted.

    Raises:
        PlacementError: not even the shortest context fits; says what it takes and what there is.
    """
    decoder = make(context)
    problem = ""
    for batch in _batches(context):
        problem = _problem(session, decoder, batch)
        if not problem:
            return _told(decoder, context, batch)
    longest, shortest = context, 0
    found: Decoder | None = None
    while longest - shortest > _STEP:
        middle = max(_STEP, (longest + shortest) // 2 // _STEP * _STEP)
        if middle in {longest, shortest}:
            break
        tried = make(middle)
        problem = _problem(session, tried, min(LEAST_BATCH, middle))
        if problem:
            longest = middle
        else:
            shortest, found = middle, tried
    if found is None:
        raise PlacementError(
            f"the model does not fit, even with a context of {longest} tokens: {problem}",
            remedy="use more devices, or a smaller model",
        )
    return _told(found, context, min(LEAST_BATCH, found.context))


def _batches(context: int) -> list[int]:
    sizes = [BATCH]
    while sizes[-1] > LEAST_BATCH:
        sizes.append(sizes[-1] // 2)
    return list(dict.fromkeys(min(size, context) for size in sizes))


def _problem(session: Session, decoder: Decoder, batch: int) -> str:
    """Why something does not fit; empty if all does."""
    try:
        widths = 1, width_for(batch)
        plans = [session.plan(decoder.graph(width), reserve=False) for width in widths]
    except PlacementError as error:
        return str(error.args[0])  # its remedy is that of the error to come
    hosts = {device.id for device in session.devices if device.buffers.is_host}
    return "; ".join(over for plan in plans for over in _over(plan, hosts))


def _over(plan: Plan, hosts: set[str]) -> list[str]:
    found = []
    for device, use in plan.memory.items():
        free = plan.free.get(device)
        # Weights of a mapped file take memory of the host's that others may have back.
        needed = use.total - (use.weights if device in hosts else 0)
        if free is not None and needed > free * _SHARE:
            found.append(f"{device} needs {needed} bytes and has {free} free")
    return found


def _told(decoder: Decoder, wanted: int, batch: int) -> Fit:
    changes = []
    if batch < min(BATCH, decoder.context):
        changes.append(f"{batch} tokens instead of {min(BATCH, wanted)} are read at once")
    if decoder.context < wanted:
        changes.append(f"the context is {decoder.context} tokens instead of {wanted}")
    told = "to fit, " + " and ".join(changes) if changes else ""
    if told:
        _log.info("%s", told)
    return Fit(decoder, batch, told)
