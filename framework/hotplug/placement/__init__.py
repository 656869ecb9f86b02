"""Which device runs which node, decided before anything runs and explained afterwards.

    support     which device runs which node, and why not
    outline     the graph as numbered steps
    rules       pins, and weights that live somewhere already
    cost        what a node, a part and a copy take, by a device's rates
    calibrate   rates and links, measured,
    measured    and kept from process to process
    build       all of it as a problem in seconds and bytes
    residence   where speeds do not decide: devices filled in order, or by given shares
    search      the assignment that takes least, by dynamic programming over
    segments    pieces between cuts of the graph,
    expand      ways through a piece,
    relax       bounds from below, and
    contiguous  assignments of one run for each device
    assign      a device for every node, with the reason
    split       runs of nodes on one device become graphs of their own, with what crosses between
    plan        the result: parts, copies, memory, times, reasons
    told        the result in words and as JSON
    picture     the plan drawn

Each is a function from values to values. `place` calls them in order.
"""

from __future__ import annotations

from hotplug.placement.calibrate import calibrate, calibrate_link
from hotplug.placement.cost import Link, Rates
from hotplug.placement.measured import known_link, known_rates, store_link, store_rates
from hotplug.placement.picture import dot, svg
from hotplug.placement.place import Wishes, checked_shares, place
from hotplug.placement.plan import Choice, Copy, MemoryUse, Part, Plan
from hotplug.placement.rules import pins_for

__all__ = [
    "Choice",
    "Copy",
    "Link",
    "MemoryUse",
    "Part",
    "Plan",
    "Rates",
    "Wishes",
    "calibrate",
    "calibrate_link",
    "checked_shares",
    "dot",
    "known_link",
    "known_rates",
    "pins_for",
    "place",
    "store_link",
    "store_rates",
    "svg",
]
