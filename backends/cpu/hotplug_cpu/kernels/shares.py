"""Work that threads share as they come to it, so that a slower core gets less of it.

The counter is a word of the plan's row. Every run adds as many to it as there are units and
threads, one more per thread than there is work, so that nothing has to set it back.
"""

from __future__ import annotations

from typing import Any

from hotplug_cpu.jit import shared, simd

__all__ = ["next_unit"]


@simd.inline
def next_unit(counter: int, units: int, threads: int) -> Any:
    """Number of a unit that nobody has taken; `units` or more when all are taken.

    Each thread must call this until it is told so, exactly once.
    """
    return shared.atomic_add(counter, 1) % (units + threads)
