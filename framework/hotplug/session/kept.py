"""Compiled graphs that a session keeps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from hotplug.graph import Graph
from hotplug.session.compiled import Compiled
from hotplug.session.fleet import Fleet
from hotplug.session.storage import Frees

__all__ = ["Kept"]


class Kept:
    """Compiled graphs, the one used last at the end.

    Args:
        most: how many are kept.
        fleet: where they are given back.
    """

    def __init__(self, most: int, fleet: Fleet) -> None:
        self._most = most
        self._fleet = fleet
        self._graphs: OrderedDict[Graph, Compiled] = OrderedDict()

    def get(self, graph: Graph) -> Compiled | None:
        """A compiled graph, if it is there."""
        held = self._graphs.get(graph)
        if held is not None:
            self._graphs.move_to_end(graph)
        return held

    def add(self, graph: Graph, compiled: Compiled) -> None:
        """Keep one, at the cost of the one not used for longest."""
        self._graphs[graph] = compiled
        while len(self._graphs) > self._most:
            self.drop_oldest()

    def drop_oldest(self) -> bool:
        """Give back the one not used for longest; False if there is none."""
        if not self._graphs:
            return False
        self._fleet.give_back(self._graphs.popitem(last=False)[1].frees())
        return True

    def drop(self, unwanted: Callable[[Graph], bool]) -> None:
        """Give some back."""
        for graph in [graph for graph in self._graphs if unwanted(graph)]:
            self._fleet.give_back(self._graphs.pop(graph).frees())

    def __iter__(self) -> Iterator[Compiled]:
        return iter(self._graphs.values())

    def take_all(self) -> Frees:
        """Forget all of them; returns what gives them back."""
        frees = [free for compiled in self._graphs.values() for free in compiled.frees()]
        self._graphs.clear()
        return frees
