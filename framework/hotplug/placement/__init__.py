"""Which device runs which node, decided before anything runs and explained afterwards.

    support    which device runs which node, and why not
    residence  where weights and states live: as pinned, else in order until a device is full
    cost       what a node and a copy take on each device
    assign     a device for every node, with the reason
    split      runs of nodes on one device become graphs of their own, with what crosses between
    plan       the result: parts, copies, memory, reasons; as table, JSON, text

Each is a pass: a function from values to values. `place` calls them in order.
"""

from __future__ import annotations

from hotplug.placement.place import place
from hotplug.placement.plan import Choice, Copy, MemoryUse, Part, Plan

__all__ = ["Choice", "Copy", "MemoryUse", "Part", "Plan", "place"]
