"""One graph, compiled for the devices of a session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hotplug.graph import Graph
from hotplug.placement import Plan
from hotplug.session.control import CancelToken, control_of
from hotplug.session.trace import StepTime

if TYPE_CHECKING:
    from hotplug.session.session import Session

__all__ = ["Program"]


class Program:
    """A graph that can be run. Made by `Session.compile`.

    Attributes:
        graph: what it computes.
    """

    def __init__(self, session: Session, graph: Graph) -> None:
        self.graph = graph
        self._session = session

    @property
    def plan(self) -> Plan:
        """Where each node runs, and why."""
        return self._session.compiled(self.graph).plan

    def run(
        self,
        inputs: Mapping[str, Any],
        *,
        rows: tuple[int, int] | None = None,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        spill: bool = True,
    ) -> dict[str, Any]:
        """Compute.

        Args:
            inputs: a value for every input by name: an array of the input's shape, or a
                `HostTensor` where NumPy lacks the dtype.
            rows: where all states are caches of rows: the first that this run writes, and the one
                behind the last. It reads none behind them, so that after a failure it can be
                repeated, and rows are copied to the host before there is one.
            timeout: seconds after which the run is ended.
            cancel: lets another thread end it.
            spill: see `Session.compile`.

        Returns:
            Output name -> array, or host tensor where NumPy lacks the dtype; copies.

        Raises:
            UsageError: an input is missing, unknown, or of another shape or kind.
            StatesLostError: a device failed; others go on, but with states that are zero from some
                row on.
            DeadlineExceededError: it was not done in time. As below, states may be updated in part,
                and a device that did not end its work when asked to is set aside.
            RunCancelledError: it was ended.
            OutOfDeviceMemoryError: see `Session.compile`.
            HotplugError: a device failed, and no other may take over.
        """
        control = control_of(timeout, cancel)
        return self._session.run(self.graph, inputs, rows=rows, control=control, spill=spill)

    def profile(self, inputs: Mapping[str, Any]) -> list[StepTime]:
        """Compute once with clocks beside every step; what came out is left on the devices.

        Returns:
            The steps of all devices that tell their times, in the order in which they ran.

        Raises:
            UsageError: as for `run`.
            HotplugError: a device failed.
        """
        return self._session.profile(self.graph, inputs)

    def explain(self) -> str:
        """The placement in short, then what each device will do, step by step."""
        compiled = self._session.compiled(self.graph)
        return "\n".join([compiled.plan.explain(), *compiled.explain()])

    def __repr__(self) -> str:
        return f"<Program {self.graph!r}>"
