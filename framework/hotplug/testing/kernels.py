"""Every kernel variant that the GPU catalog asks for, as far as the conformance cases show."""

from __future__ import annotations

import functools

from hotplug.gpu import catalog
from hotplug.gpu.catalog.table import Launch
from hotplug.gpu.driver import Capabilities
from hotplug.gpu.lowering import lower_graph
from hotplug.gpu.sources import Variant
from hotplug.graph import Graph
from hotplug.testing.conformance.suite import case_groups

__all__ = ["launches", "variants"]


def launches(graph: Graph, capabilities: Capabilities) -> list[Launch]:
    """What a graph becomes on a device; nothing if that has no kernel for one of its nodes."""
    if not all(catalog.supports(node, capabilities) for node in graph.nodes):
        return []
    lowering = catalog.Lowering(capabilities)
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
