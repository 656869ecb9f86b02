"""How partial results of several devices are added up: of two ways the one that takes least.

*In turn*, one device takes all the others' and adds them: that is fewest parts, but its link
carries all. *In pairs*, half of the devices add the other half's, and so on (a binomial tree;
Thakur et al., doi:10.1177/1094342005051521, section 4.5). That each device adds a run of the
elements, as that paper has it for long messages, was tried in simulated time, and was slower
throughout: so many more parts begin for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from hotplug import ops
from hotplug.node import Node
from hotplug.placement.cost import Link

__all__ = ["add_up", "pairs_pay"]

Place: TypeAlias = Callable[[Node, str], Node]
"""Says on which device a node runs; gives the node back."""


def pairs_pay(nbytes: int, count: int, link: Link, launch: float) -> bool:
    """Whether adding in pairs takes less time than one after the other.

    Args:
        nbytes: of each partial result.
        count: devices that have one.
        link: between two of them.
        launch: seconds of one more part.
    """
    rounds, copy = (count - 1).bit_length(), link.seconds(nbytes)
    return rounds * (copy + launch) < (count - 1) * copy + launch


def add_up(pieces: Sequence[Node], devices: Sequence[str], place: Place, *, pairs: bool) -> Node:
    """The sum, on the first of the devices.

    Args:
        pieces: partial results of one type.
        devices: of each the device that has it; the first may be another, which is to have the sum.
        place: is told where each new node runs.
        pairs: whether they are added in pairs.
    """
    held = list(pieces)
    while len(held) > 1:
        half = (len(held) + 1) // 2 if pairs else len(held) - 1
        moved = zip(held, held[half:], devices, strict=False)
        held[: len(held) - half] = [place(ops.add(a, b), at) for a, b, at in moved]
        del held[half:]
    return held[0]
