"""Experts that were sent to a device and stay there, the longest unused making room for others."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hotplug.backend import Buffer
from hotplug.session.values import Slot
from hotplug.tensor import HostTensor

__all__ = ["Pool", "Selection"]


@dataclass(slots=True)
class Pool:
    """Some experts of a weight in a device's memory.

    Attributes:
        weight: all experts, in the host's memory.
        buffer: of the device, where some are.
        room: how many can be there.
        found: how often an expert was there already.
        sent: how often one had to be brought.
    """

    weight: HostTensor
    buffer: Buffer
    room: int
    found: int = 0
    sent: int = 0
    _places: OrderedDict[int, int] = field(default_factory=OrderedDict)  # expert -> place
    _free: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._free = list(range(self.room))

    @property
    def expert_bytes(self) -> int:
        """Bytes of one expert."""
        return self.weight.nbytes // self.weight.type.shape[0]

    def places(self, ids: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        """Where the named experts are, once they have been brought; -1 for ids of none.

        There must be room for all of them.
        """
        named = ids.tolist()
        wanted = {expert for expert in named if 0 <= expert < self.weight.type.shape[0]}
        for expert in wanted & self._places.keys():
            self._places.move_to_end(expert)
            self.found += 1
        for expert in sorted(wanted - self._places.keys()):
            self._bring(expert)
        return np.array([self._places.get(expert, -1) for expert in named], ids.dtype)

    def _bring(self, expert: int) -> None:
        if not self._free:
            self._free.append(self._places.popitem(last=False)[1])
        size = self.expert_bytes
        source = self.weight.data.data[expert * size : (expert + 1) * size]
        self.buffer.write(self._free[-1] * size, source)
        self._places[expert] = self._free.pop()
        self.sent += 1


@dataclass(slots=True)
class Selection:
    """Experts that a part needs.

    Attributes:
        pool: where it takes them from.
        source: id of the device that gives their names.
        ids: the names, in host memory.
        places: gets their places in the pool.
    """

    pool: Pool
    source: str
    ids: Slot
    places: Buffer

    def bring(self) -> int:
        """Bring what is missing; returns the bytes."""
        before = self.pool.sent
        ids = self.ids.read()
        assert isinstance(ids, np.ndarray)
        self.places.write(0, self.pool.places(ids).view(np.uint8).data)
        return (self.pool.sent - before) * self.pool.expert_bytes
