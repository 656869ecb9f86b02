"""Graphs that clients sent, by key: read once, named from then on."""

from __future__ import annotations

import threading
from collections import OrderedDict

from hotplug.graph import Graph
from hotplug.serialize import load
from hotplug_rpc.errors import LimitError, ProtocolError, UnknownGraphError

__all__ = ["GraphStore"]

_MOST_LISTS = 8
"""Of a node as it is written: itself, its operands and parameters, and what those hold."""


class GraphStore:
    """The graphs used last.

    Args:
        most_nodes: of one graph.
        most: graphs, and bytes that all of them came as; in memory they are 25 times as many.
    """

    def __init__(self, most_nodes: int, most: tuple[int, int] = (256, 16 << 20)) -> None:
        self._most_nodes = most_nodes
        self._most, self._most_bytes = most
        self._held: OrderedDict[str, tuple[Graph, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, data: memoryview | None) -> Graph:
        """The graph of a key, read from what was sent with it, if that was.

        Raises:
            UnknownGraphError: nothing was sent, and it is not here.
            SerializationError: what was sent is no graph.
            ProtocolError: it is another graph.
            LimitError: it has too many nodes.
        """
        with self._lock:
            held = self._held.get(key)
            if held is not None:
                self._held.move_to_end(key)
                return held[0]
        if data is None:
            raise UnknownGraphError(f"there is no graph {key} here")
        self._check_size(data)
        graph = load(data)
        if graph.key != key:
            raise ProtocolError(f"the graph that was sent is {graph.key}, not {key}")
        if len(graph.nodes) > self._most_nodes:
            raise self._too_large(len(graph.nodes))
        self._keep(graph, data.nbytes)
        return graph

    def _check_size(self, data: memoryview) -> None:
        """Before anything is made of it: millions of empty lists are few bytes and much memory."""
        text = bytes(data)
        if text.count(b"[") + text.count(b"{") > _MOST_LISTS * (self._most_nodes + 1):
            raise self._too_large(text.count(b"[") // 3)

    def _too_large(self, nodes: int) -> LimitError:
        most = self._most_nodes
        return LimitError(f"a graph has at most {most} nodes", limit=most, given=nodes)

    def _keep(self, graph: Graph, nbytes: int) -> None:
        with self._lock:
            self._held[graph.key] = graph, nbytes
            while len(self._held) > self._most or self._nbytes() > self._most_bytes:
                if len(self._held) == 1:
                    return
                self._held.popitem(last=False)

    def _nbytes(self) -> int:
        return sum(nbytes for _, nbytes in self._held.values())
