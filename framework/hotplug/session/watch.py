"""What looks on while a session runs: a trace of times, and observers of values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from hotplug.errors import RunCancelledError
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.session.observe import OBSERVED, Observation, Observer, with_observed
from hotplug.session.trace import Trace
from hotplug.session.values import Value

__all__ = ["Watch"]

_KEPT = 16  # graphs whose observed form is remembered


class Watch:
    """Who looks on in a session.

    Attributes:
        trace: takes down times; None for nobody.
        observers: look at values.
    """

    def __init__(self) -> None:
        self.trace: Trace | None = None
        self.observers: tuple[Observer, ...] = ()
        self._observed: dict[str, Graph] = {}
        self._bases: dict[str, Graph] = {}  # key of a form -> what it is the form of
        self._nodes: dict[str, Node] = {}  # name of an output -> node of the graph

    def __bool__(self) -> bool:
        return self.trace is not None or bool(self.observers)

    def add(self, observer: Observer) -> None:
        """Let somebody look at values from the next run on."""
        self._change((*self.observers, observer))

    def remove(self, observer: Observer) -> None:
        """Let somebody look no more."""
        self._change(tuple(other for other in self.observers if other is not observer))

    def _change(self, observers: tuple[Observer, ...]) -> None:
        self.observers = observers
        self._observed.clear()
        self._bases.clear()
        self._nodes.clear()

    def form(self, graph: Graph) -> Graph:
        """The graph as it must run for all to see what they want; itself if nobody wants any."""
        if not self.observers:
            return graph
        found = self._observed.get(graph.key)
        if found is None:
            while len(self._observed) >= _KEPT:
                old = self._observed.pop(next(iter(self._observed)))
                self._bases.pop(old.key, None)
            found = self._observed[graph.key] = with_observed(graph, self.observers)
            self._bases[found.key] = graph
            self._nodes |= {name: node for name, node in found.outputs if name.startswith(OBSERVED)}
        return found

    def base(self, form: Graph) -> Graph:
        """What a graph is the observed form of; itself if it is none."""
        return self._bases.get(form.key, form)

    def begin_run(self, graph: Graph, leaf: Callable[[str], Value]) -> float:
        """A run of a graph begins; returns when, for `end_run`."""
        began = self.trace.now() if self.trace else 0.0
        for observer in self.observers:
            observer.begin(graph, leaf)
        return began

    def end_run(self, graph: Graph, began: float) -> None:
        """It has come to its end."""
        if self.trace:
            self.trace.span("run", f"run of {len(graph.nodes)} nodes", began)

    def show(self, device: str, made: Iterable[tuple[str, Callable[[], Value]]]) -> None:
        """Show what a part of the graph has made: names of outputs, and how each is read.

        Raises:
            RunCancelledError: somebody wants the run to end.
        """
        for name, read in made:
            node = self._nodes.get(name)
            if node is not None:
                self._show(Observation(node, device, read))

    def _show(self, seen: Observation) -> None:
        for observer in self.observers:
            if observer.wants(seen.node) and observer.see(seen) is False:
                raise RunCancelledError(
                    f"the run was cancelled after {seen.name} on {seen.device}",
                    device=seen.device,
                    op=seen.op,
                )

    def count(self, memory: Mapping[str, Mapping[str, float]]) -> None:
        """Note how much memory is in use: device -> what for -> bytes."""
        if self.trace is not None:
            for device, values in memory.items():
                self.trace.count(f"memory of {device}", values)
