"""Every kernel variant that the GPU catalog asks for, as far as the conformance cases show."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence

from hotplug.gpu import catalog
from hotplug.gpu.catalog.table import Chooser, Geometry, Launch, first
from hotplug.gpu.driver import Capabilities
from hotplug.gpu.lowering import lower_graph
from hotplug.gpu.sources import Variant
from hotplug.graph import Graph
from hotplug.testing.conformance.suite import case_groups

__all__ = ["alternatives", "launches", "variants"]


def launches(graph: Graph, capabilities: Capabilities, choose: Chooser = first) -> list[Launch]:
    """What a graph becomes on a device; nothing if that has no kernel for one of its nodes."""
    if not all(catalog.supports(node, capabilities) for node in graph.nodes):
        return []
    lowering = catalog.Lowering(capabilities, choose=choose)
    lower_graph(graph, lowering, "test")
    return [launch for launch in lowering.launches if isinstance(launch, Launch)]


@functools.cache
def variants(capabilities: Capabilities) -> tuple[Variant, ...]:
    """What all conformance cases, fast and slow ones, need of kernels."""
    # Parts of an attention are put together only where there are more rows than any case has.
    found = {} if capabilities.is_cpu else {Variant.of("combine", {"ITEMS": 64}): None}
    for slow in (False, True):
        for cases in case_groups(slow=slow).values():
            for case in cases:
                used = (launch.variant for launch in launches(case.graph, capabilities))
                found.update(dict.fromkeys(used))
    return tuple(found)


@functools.cache
def alternatives(capabilities: Capabilities) -> tuple[Variant, ...]:
    """What the cases need besides where a device finds other geometries to be faster."""
    found: dict[Variant, None] = {}
    for cases in (*case_groups(slow=False).values(), *case_groups(slow=True).values()):
        for case in cases:
            found.update(dict.fromkeys(_alternatives(case.graph, capabilities)))
    known = set(variants(capabilities))
    return tuple(variant for variant in found if variant not in known)


def _alternatives(graph: Graph, capabilities: Capabilities) -> Iterator[Variant]:
    for number in itertools.count(1):
        most = 0

        def choose(question: str, candidates: Sequence[Geometry], number: int = number) -> Geometry:
            nonlocal most
            del question
            most = max(most, len(candidates))
            return candidates[min(number, len(candidates) - 1)]

        yield from (launch.variant for launch in launches(graph, capabilities, choose))
        if number + 1 >= most:
            return
