"""What a session offers to those who want to look on, or into its states."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from hotplug.errors import StatesLostError
from hotplug.node import Node
from hotplug.session.faults import DeviceFault
from hotplug.session.fleet import Fleet
from hotplug.session.kept import Kept
from hotplug.session.membership import Membership
from hotplug.session.observe import Observation, Observer, callback_observer, is_observed
from hotplug.session.storage import Storage
from hotplug.session.trace import Trace
from hotplug.session.watch import Watch
from hotplug.settings import Fallback

__all__ = ["Watchable"]

T = TypeVar("T")


class Watchable(Membership):
    """Traces, observers, bytes in use, and values of states."""

    def __init__(self, fleet: Fleet, storage: Storage, kept: Kept, fallback: Fallback) -> None:
        super().__init__(fleet, storage, kept, fallback)
        self._watch = Watch()

    @contextlib.contextmanager
    def traced(self, *, steps: bool = True) -> Iterator[Trace]:
        """Note what runs inside the context, where and when; `Trace.save` makes a file of it.

        Args:
            steps: also how long each step of a device took; see `Trace`.
        """
        trace = Trace(steps=steps)
        with self._lock:
            before, self._watch.trace = self._watch.trace, trace
        try:
            yield trace
        finally:
            with self._lock:
                self._watch.trace = before

    @contextlib.contextmanager
    def observed(
        self,
        by: Observer | Callable[[Observation], object],
        nodes: str | Callable[[Node], bool] | None = None,
    ) -> Iterator[None]:
        """Let somebody look at nodes' values inside the context, as soon as they are there.

        A node that is looked at has to be stored, so that it is not computed together with its
        neighbours: results may differ in rounding from those of runs that nobody looks at.

        Args:
            by: called with each observation; what it raises ends the run and reaches the caller.
                If it returns False, the run is cancelled on all devices, and `RunCancelledError`
                raised. States keep what the run had made of them.
            nodes: which nodes, for a function: a regular expression found in their labels ("matmul
                blk.0"), or a function of a node; None for all but views.

        Raises:
            UsageError: the expression is none.
        """
        observer = callback_observer(by, nodes) if callable(by) else by
        with self._lock:
            self._require_idle()
            self._watch.add(observer)
        try:
            yield
        finally:
            with self._lock:
                self._watch.remove(observer)
                self._kept.drop(is_observed)

    def memory(self) -> dict[str, dict[str, float]]:
        """Bytes that the session holds by device and use; of weights in mapped files too."""
        found = self._storage.memory()
        for compiled in self._kept:
            for device, uses in compiled.memory().items():
                total = found.setdefault(device, {})
                for use, nbytes in uses.items():
                    total[use] = total.get(use, 0) + nbytes
        return found

    def experts(self) -> dict[str, dict[str, int]]:
        """Of devices that experts were sent to, by id: how often one was found there, or was sent.

        Keys are "found", "sent", "sent_bytes", and "pool_bytes" for what is kept there.
        """
        return self._storage.experts()

    def read(self, state: str) -> Any:
        """A copy of a state's value.

        Raises:
            UsageError: no graph has used a state of that name, or the session is closed.
            HotplugError: the device did not give it, and was set aside.
        """
        with self._lock:
            self._attend()
            return self._with_state(state, self._storage.state(state).read)

    def write(self, state: str, value: Any) -> None:
        """Give a state a value.

        Raises:
            UsageError: no graph has used a state of that name, the value does not fit, or the
                session is closed.
            HotplugError: the device did not take it, and was set aside.
        """
        with self._lock:
            self._attend()
            slot = self._storage.state(state)
            self._storage.copies.rewind(0)
            self._with_state(state, partial(slot.store, slot.convert(value)))

    def _with_state(self, state: str, work: Callable[[], T]) -> T:
        try:
            return self._fleet.ask(self._storage.home(state), work)
        except DeviceFault as fault:
            with contextlib.suppress(StatesLostError):  # the next run tells of it
                self._recovery.set_aside(fault, changed=False)
            raise fault.error from fault

    def reset(self) -> None:
        """Make all states zero."""
        with self._lock:
            self._require_idle()
            # Compiled graphs are bound to the states' memory.
            self._fleet.give_back(self._kept.take_all() + self._storage.reset())
