"""Devices, the graphs compiled for them, and runs that go on when one of them fails."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Self

from hotplug.backend import Device
from hotplug.devices import wanted
from hotplug.errors import (
    HotplugError,
    OutOfDeviceMemoryError,
    PinError,
    PlacementError,
    StatesLostError,
    UsageError,
)
from hotplug.graph import Graph
from hotplug.placement import Plan, Wishes
from hotplug.registry import Registry
from hotplug.session.compiled import Compiled
from hotplug.session.control import Control, held
from hotplug.session.copies import StateCopies
from hotplug.session.faults import DeviceFault
from hotplug.session.fleet import Fleet
from hotplug.session.kept import Kept
from hotplug.session.outlook import Outlook
from hotplug.session.overlap import run_overlapped
from hotplug.session.planning import Planner
from hotplug.session.program import Program
from hotplug.session.sharing import Mode, Sharing
from hotplug.session.storage import Storage
from hotplug.session.trace import StepTime
from hotplug.session.watchable import Watchable
from hotplug.settings import Fallback, settings, wanted_fallback, wanted_threads
from hotplug.tensor import HostTensor

__all__ = ["Session"]

_log = logging.getLogger("hotplug.session")

_KEPT = 16
"""Compiled graphs kept at once: each holds an arena, and a session may meet many widths."""


class Session(Watchable):
    """Runs graphs that share weights and states; one run at a time, from any thread.

    Attributes:
        mode: how several devices share the work.
    """

    def __init__(
        self,
        device: str | Sequence[Device] | None = None,
        weights: Mapping[str, HostTensor] | None = None,
        *,
        threads: int | None = None,
        pins: Mapping[str, str] | None = None,
        split: Sequence[float] | None = None,
        budgets: Mapping[str, int] | None = None,
        fallback: Fallback | None = None,
        registry: Registry | None = None,
        mode: Mode = "layer",
        host_experts: bool = False,
        device_timeout: float | None = None,
        hot_plug: bool = False,
    ) -> None:
        """Open devices.

        Args:
            device: a selector, such as "cuda:1" or "gpu,cpu"; None takes that of `hotplug.device`,
                then HOTPLUG_DEVICE, or chooses. Or devices that are open already, in order of
                preference.
            weights: name -> value. They are not copied where a device can use them as they lie.
            threads: threads of CPU-like devices; None takes HOTPLUG_THREADS or all cores.
            pins: regular expression, found in names of weights and states or being an op's ->
                the device where they live, or where the op runs: its id, or a selector that names
                one device in use. Never broken: what cannot be done is refused.
            split: for each device its share of the weights, such as (3, 1); None for what takes
                least time, or where speeds are not known, as much as fits in order of preference.
            budgets: a device, as above -> bytes that a graph may take there, computing included.
            fallback: None takes HOTPLUG_FALLBACK.
            registry: where devices come from; None takes the process' own.
            mode: how several devices share the work. "layer": one after the other; "pipeline": in
                `run_all`, each at another run; "tensor": all at once, at pieces of each product.
            host_experts: whether weights of experts stay in the host's memory, from which those
                that are used are sent where that is faster than to compute there. Not in mode
                "tensor".
            device_timeout: seconds after which a device that gives no answer is given up; None
                takes HOTPLUG_DEVICE_TIMEOUT.
            hot_plug: whether devices that the selector names and that appear later are taken in
                between two runs.

        Raises:
            SelectorError: the selector is not of the grammar.
            DeviceNotFoundError: it names nothing here, or a pin or budget no one device in use.
            DeviceUnavailableError: the device cannot be opened.
            UsageError: fewer threads than one, or far too many; a policy, mode, time or budget that
                is none; host experts in mode "tensor"; two devices of one id.
        """
        sharing = Sharing(mode, host_experts)
        now, policy = settings(), wanted_fallback(fallback)
        self._threads = wanted_threads(threads)
        timeout = now.device_timeout if device_timeout is None else device_timeout
        fleet = Fleet(registry, f"session {id(self):#x}", timeout)
        # Where nothing may take over, copies would serve nobody.
        copies = StateCopies(0 if policy == "error" else now.state_copy_bytes)
        super().__init__(fleet, Storage(weights or {}, copies), Kept(_KEPT, fleet), policy)
        self.mode: Mode = mode
        wishes = Wishes(dict(pins or {}), dict(budgets or {}), split)
        self._planner = Planner(
            fleet,
            self._storage,
            self._recovery,
            wishes,
            sharing,
            self._watch,
            self._threads,
        )
        if device is None or isinstance(device, str):
            self._open(wanted(device), hot_plug=hot_plug)
        else:
            for item in device:
                if not self._fleet.take(item) and self._fleet.members[item.id].device is not item:
                    raise UsageError(f"two different devices are both called {item.id}")
        self._planner.check()
        if len(self._fleet.devices) == 1 and weights:  # where else they go is not known yet
            self._fleet.devices[0].buffers.expect([tensor.data.data for tensor in weights.values()])

    # Running

    def plan(self, graph: Graph, devices: str | None = None, *, reserve: bool = True) -> Plan:
        """Where each node of a graph would run, and why. Nothing is compiled.

        Args:
            graph: what would run.
            devices: a selector that names some of those in use, in order of preference: where would
                it run if there were no others, and nothing stored yet? None for how it is.
            reserve: whether the CPU may take over what finds no place, if the session lets it.

        Raises:
            GraphError: the graph breaks a rule.
            UnsupportedOpError: a node runs nowhere.
            PlacementError: there is no device left, or not enough memory.
            UsageError: the session is closed.
            SelectorError, DeviceNotFoundError: the selector names none of the devices in use.
        """
        if devices is None:
            return self._planned(partial(self._planner.place, graph), reserve=reserve)
        options = self._planner.options(devices)
        with Session(**options, mode=self.mode, fallback=self.fallback) as other:
            return other.plan(graph, reserve=False)

    def settle(self, workload: Mapping[Graph, float]) -> Plan:
        """Choose where weights and states shall live, so that several graphs together run fastest.

        Without it the first graph to be compiled decides. What lives somewhere already stays.

        Args:
            workload: graphs that differ in nothing but sizes, such as those of one token and of a
                prompt -> how often each is run.

        Returns:
            The plan of the first of them.

        Raises:
            GraphError, UnsupportedOpError, PlacementError: as for `plan`.
            UsageError: the graphs differ, or the session is closed.
        """
        return self._planned(partial(self._planner.settle, workload))

    def _planned(self, make: Callable[[], Plan], *, reserve: bool = True) -> Plan:
        with self._lock:
            self._attend()
            while True:
                try:
                    return make()
                except DeviceFault as fault:
                    with contextlib.suppress(StatesLostError):  # the next run tells of it
                        self._recovery.set_aside(fault, changed=False)
                except PinError:
                    raise
                except PlacementError as error:
                    if not reserve or not self._recovery.add_reserve(str(error)):
                        raise

    def compile(
        self, graph: Graph, *, spill: bool = True, control: Control | None = None
    ) -> Program:
        """Make a graph ready to run; a second time, it is ready already.

        Args:
            graph: what is to run.
            spill: whether weights and states may go to other devices where one has no room left for
                the graph's own values. If not, that raises, and a smaller graph may be tried.
            control: ends it from outside.

        Raises:
            UsageError: a weight of the graph was not given, or is of another type; or the session
                is closed.
            GraphError: the graph breaks a rule, or a state has another type than before.
            UnsupportedOpError: a node runs nowhere.
            PlacementError: there is no device left, or not enough memory.
            OutOfDeviceMemoryError: see `spill`.
            StatesLostError: see `run`.
            RunCancelledError: it was ended.
        """
        with self._telling():
            self.compiled(graph, spill=spill, control=control)
        return Program(self, graph)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Whoever runs graphs learns by any error that states may be lost."""
        try:
            yield
        except HotplugError:
            self._recovery.untold = None
            raise

    def compiled(
        self, graph: Graph, *, spill: bool = True, control: Control | None = None
    ) -> Compiled:
        """The executables of a graph, with their buffers; made if they are not there."""
        with self._lock if control is None else held(self._lock, control):
            self._attend(control)
            compiled = self._kept.get(graph)
            if compiled is None:
                self._storage.check(graph)
                compiled = self._compile(graph, control, spill=spill)
                self._kept.add(graph, compiled)
            if self._recovery.untold is not None:
                raise self._recovery.untold
            return compiled

    def run(
        self,
        graph: Graph,
        inputs: Mapping[str, Any],
        *,
        rows: tuple[int, int] | None = None,
        control: Control | None = None,
        spill: bool = True,
    ) -> dict[str, Any]:
        """Compute a graph's outputs and update its states; see `Program.run`."""
        written = None if rows is None else [rows]
        return self.run_all(graph, [inputs], rows=written, control=control, spill=spill)[0]

    def _ended(self, error: BaseException, graph: Graph, rows: tuple[int, int] | None) -> None:
        """A run has come to an end of another kind than a device's failure."""
        if isinstance(error, HotplugError):
            self._recovery.untold = None  # it is told by that
        if rows is not None:  # how far the run got, nobody can tell
            self._storage.copies.wrote(rows[0], rows[0])
        self._changes.note_hung(changed=bool(graph.updates))

    def run_all(
        self,
        graph: Graph,
        batch: Sequence[Mapping[str, Any]],
        *,
        rows: Sequence[tuple[int, int]] | None = None,
        control: Control | None = None,
        spill: bool = True,
    ) -> list[dict[str, Any]]:
        """As if by `run`, one after the other; in mode "pipeline" with several in flight.

        Args:
            graph: what is to run.
            batch: the inputs of each run.
            rows: of each run, see `Program.run`.
            control: what ends the runs.
            spill: see `compile`.

        Raises:
            Exception: as for `run`; nothing is told of runs that were done before.
        """
        if rows is not None and len(rows) != len(batch):
            raise UsageError(f"{len(batch)} runs write {len(rows)} ranges of rows")
        done: list[dict[str, Any]] = []
        with self._lock if control is None else held(self._lock, control):
            form = self._watch.form(graph)
            while len(done) < len(batch):
                before = len(done)
                try:
                    compiled = self.compiled(form, spill=spill, control=control)
                    self._changes.computing = True
                    try:
                        self._compute(compiled, batch[before:], done, control)
                    finally:
                        self._changes.computing = False
                except DeviceFault as fault:
                    with self._telling():
                        at = None if rows is None else rows[len(done)]
                        self._recover(fault, graph, at, spill=spill)
                except BaseException as error:
                    self._ended(error, graph, None if rows is None else rows[before])
                    raise
                if rows is not None and len(done) > before:
                    self._recovery.copy_states(rows[before][0], rows[len(done) - 1][1])
        return done

    def outlook(self, graph: Graph) -> Outlook:
        """How long runs of a graph should take in this session's mode.

        Raises:
            PlacementError, GraphError, UsageError: as for `plan`.
        """
        return self._outlook(self.plan(graph))

    def _outlook(self, plan: Plan) -> Outlook:
        return Outlook.of(plan, in_flight=self.mode == "pipeline")

    def _compute(
        self,
        compiled: Compiled,
        batch: Sequence[Mapping[str, Any]],
        done: list[dict[str, Any]],
        control: Control | None,
    ) -> None:
        """Run a graph for some inputs; what came of each is added to `done`, even if one fails."""
        watch = self._watch or None
        if watch is not None:
            watch.count(self.memory())
        at_once = self.mode == "tensor" or (self.mode == "pipeline" and len(batch) > 1)
        if at_once and len(compiled.plan.devices) > 1 and not self._watch.observers:
            depth = self._outlook(compiled.plan).depth(len(batch)) if len(batch) > 1 else 1
            run_overlapped(compiled, batch, depth, done, control, watch)
            return
        for inputs in batch:
            done.append(compiled.run(inputs, control, watch))  # noqa: PERF401 - what is done stays

    def profile(self, graph: Graph, inputs: Mapping[str, Any]) -> list[StepTime]:
        """Compute once and tell how long each step took; see `Program.profile`."""
        with self._lock:
            compiled = self.compiled(graph)
            try:
                return compiled.profile(inputs)
            except DeviceFault as fault:
                raise fault.error from fault

    def close(self) -> None:
        """Give everything back; a second call does nothing."""
        with self._lock:
            self._require_idle()
            self._closed = True
            self._changes.close()
            frees = self._kept.take_all() + self._storage.leave_all()
            for device in tuple(self._fleet.members):
                self._fleet.leave(device, [free for free in frees if free[0] == device])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Session on {', '.join(self._fleet.members) or 'nothing'}>"

    # Within

    def _open(self, selector: str, *, hot_plug: bool) -> None:
        selection = self._fleet.registry.select(selector)
        _log.info("%s", selection.explain())
        self._fleet.open(selection.devices)
        self._changes.listen(selector if hot_plug else None)

    def _compile(self, graph: Graph, control: Control | None, *, spill: bool) -> Compiled:
        while True:
            plan = self.plan(graph)
            try:
                return Compiled(plan, self._fleet, self._storage, self._threads, control)
            except DeviceFault as fault:
                full = isinstance(fault.error, OutOfDeviceMemoryError)
                if full and self._kept.drop_oldest():
                    continue
                if full and not spill:
                    raise fault.error from fault
                if not self._recovery.make_room(fault):
                    self._recovery.set_aside(fault, changed=False)
            except BaseException:
                self._changes.note_hung(changed=False)
                raise

    def _recover(
        self, fault: DeviceFault, graph: Graph, rows: tuple[int, int] | None, *, spill: bool
    ) -> None:
        changed = bool(graph.updates) and not fault.clean
        if isinstance(fault.error, OutOfDeviceMemoryError) and (not changed or rows is not None):
            if not spill:
                raise fault.error from fault
            if self._recovery.make_room(fault):
                return
        self._recovery.set_aside(fault, changed=changed, rows=None if rows is None else rows[0])
