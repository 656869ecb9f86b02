"""Which values that cross may lie where others lay before, so that memory does not grow with depth.

A value takes the room of another one of the same size on its device whose users have all run before
the part that writes it may begin, because that part waits for them anyway. So no part waits longer
for it, whatever devices do at once, and parts that run one after the other need nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from hotplug.verify import CROSSING

if TYPE_CHECKING:
    from hotplug.placement.plan import Part

__all__ = ["Held", "rooms", "uses"]

Held: TypeAlias = "tuple[str, str]"
"""(device id, name) of a value that a device holds between parts."""


def uses(parts: Sequence[Part]) -> dict[Held, list[int]]:
    """For each input and value that crosses, where it lies, the parts that use it.

    Args:
        parts: of a plan, in an order in which they can run.

    Returns:
        Numbers of parts, first that of the one which writes the value: it makes or brings it.
    """
    found: dict[Held, list[int]] = {}
    makers: dict[str, str] = {}
    for number, part in enumerate(parts):
        for name in part.graph.inputs:
            found.setdefault((part.device, name), []).append(number)
            maker = makers.get(name, part.device)
            if maker != part.device:
                found[maker, name].append(number)
        for name, _ in part.graph.outputs:
            if name.startswith(CROSSING):
                makers[name] = part.device
                found[part.device, name] = [number]
    return found


@dataclass(slots=True)
class _Room:
    """Memory of one size.

    Attributes:
        name: of the value that was there first.
        users: the parts that use what is there, a bit for each.
    """

    name: str
    users: int


def rooms(parts: Sequence[Part], waits: Sequence[Iterable[int]]) -> dict[Held, str]:
    """For each value that crosses, where it lies, the first one of those that share its memory.

    Args:
        parts: of a plan, in an order in which they can run.
        waits: for each part earlier ones that must have run before it begins.
    """
    users = uses(parts)
    before = _ancestors(waits)
    found: dict[Held, str] = {}
    rings: dict[tuple[str, int], deque[_Room]] = {}
    for number, part in enumerate(parts):
        for name, nbytes in _crossing(part).items():
            held = part.device, name
            if held in found:
                continue
            ring = rings.setdefault((part.device, nbytes), deque())
            room = next((one for one in ring if not one.users & ~before[number]), None)
            if room is None:
                room = _Room(name, 0)
            else:
                ring.remove(room)
            room.users = sum(1 << user for user in set(users[held]))
            ring.append(room)
            found[held] = room.name
    return found


def _crossing(part: Part) -> Mapping[str, int]:
    """Bytes of the values that a part takes from others or gives to them."""
    named = [*part.graph.inputs.items(), *part.graph.outputs]
    return {name: node.type.nbytes for name, node in named if name.startswith(CROSSING)}


def _ancestors(waits: Sequence[Iterable[int]]) -> list[int]:
    """For each part all that have run before it begins, a bit for each."""
    found: list[int] = []
    for needed in waits:
        bits = 0
        for other in needed:
            bits |= found[other] | 1 << other
        found.append(bits)
    return found
