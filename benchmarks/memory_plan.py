"""How close the memory plan of a model's graph comes to the least possible; prints JSON.

Compared are the plan's peak, the bytes in use at the fullest step (no plan can need less), and what
the values would take if none shared memory.
"""

from __future__ import annotations

import json
import time

from hotplug import memory
from hotplug.testing.graphs import DecoderShape, decoder


def measure(tokens: int) -> dict[str, float]:
    graph = decoder(DecoderShape(tokens=tokens))
    began = time.perf_counter()
    plan = memory.plan(graph)
    seconds = time.perf_counter() - began
    separate = sum(node.type.nbytes for node in graph.nodes if not node.is_leaf)
    return {
        "tokens": tokens,
        "nodes": len(graph.nodes),
        "arena_bytes": plan.arena_bytes,
        "lower_bound_bytes": plan.lower_bound,
        "over_lower_bound": round(plan.arena_bytes / plan.lower_bound, 4),
        "share_of_separate": round(plan.arena_bytes / separate, 4),
        "plan_ms": round(1e3 * seconds, 1),
    }


if __name__ == "__main__":
    print(json.dumps([measure(tokens) for tokens in (1, 8, 64, 512)], indent=2))
