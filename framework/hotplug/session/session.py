"""Devices, the graphs compiled for them, and what happens when one of them fails.

Recovery: a device that fails while compiling or running is set aside for the rest of the session.
The graph is placed anew on the others and, as the policy HOTPLUG_FALLBACK allows, on the CPU. A run
without states is simply repeated. If states were changed by the run or lived on the device, nobody
can tell how far it got: all states are made zero and `StatesLostError` is raised.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from hotplug.backend import Device
from hotplug.devices import wanted
from hotplug.errors import (
    DeviceLostError,
    FallbackWarning,
    HotplugError,
    OutOfDeviceMemoryError,
    PlacementError,
    StatesLostError,
    UsageError,
)
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.placement import Plan, place
from hotplug.registry import DeviceHandle, Registry, default
from hotplug.session.observe import Observation, Observer, callback_observer, is_observed
from hotplug.session.program import Compiled, DeviceFault, Program, at_device
from hotplug.session.storage import Storage
from hotplug.session.trace import StepTime, Trace
from hotplug.session.watch import Watch
from hotplug.settings import Fallback, settings
from hotplug.tensor import HostTensor

__all__ = ["Session"]

_log = logging.getLogger("hotplug.session")

_KEPT = 16
"""Compiled graphs kept at once: each holds an arena, and a session may meet many widths."""

_SHARE = 0.9
"""Share of a device's free memory for weights and states; the rest is for arenas and the driver."""

_LESS, _LEAST = 0.75, 0.25
"""Where that was too much, the share is cut by a quarter, but not below a quarter."""

MOST_THREADS = 256
"""More than that would stop a small machine, and wait for each other on a large one."""

_RESERVE = "cpu"
"""Selector of the devices that take over where others cannot."""


class Session:
    """Runs graphs that share weights and states; one run at a time, from any thread.

    Attributes:
        fallback: "error", "warn" or "allow": what happens when something cannot run as asked.
    """

    def __init__(
        self,
        device: str | Sequence[Device] | None = None,
        weights: Mapping[str, HostTensor] | None = None,
        *,
        threads: int | None = None,
        pins: Mapping[str, str] | None = None,
        fallback: Fallback | None = None,
        registry: Registry | None = None,
    ) -> None:
        """Open devices.

        Args:
            device: a selector, such as "cuda:1" or "gpu,cpu"; None takes that of `hotplug.device`,
                then HOTPLUG_DEVICE, or chooses. Or devices that are open already, in order of
                preference.
            weights: name -> value. They are not copied where a device can use them as they lie.
            threads: threads of CPU-like devices; None takes HOTPLUG_THREADS or all cores.
            pins: pattern of the names of weights and states -> id of the device they live on.
            fallback: None takes HOTPLUG_FALLBACK.
            registry: where devices come from; None takes the process' own.

        Raises:
            SelectorError: the selector is not of the grammar.
            DeviceNotFoundError: it names nothing that is here.
            DeviceUnavailableError: the device cannot be opened.
            UsageError: fewer than one thread, or more than MOST_THREADS.
        """
        now = settings()
        self.fallback: Fallback = fallback or now.fallback
        self._threads = _checked(now.threads if threads is None else threads)
        self._pins = dict(pins or {})
        self._storage = Storage(weights or {})
        self._compiled: OrderedDict[Graph, Compiled] = OrderedDict()
        self._watch = Watch()
        self._lock = threading.RLock()
        self._handles: list[DeviceHandle] = []
        self._failed: dict[str, HotplugError] = {}
        self._shares: dict[str, float] = {}
        self._registry = registry
        self._devices: dict[str, Device] = {}
        if device is None or isinstance(device, str):
            self._open(wanted(device))
        else:
            self._devices = {item.id: item for item in device}
        self._holds_reserve = False
        self._closed = False

    @property
    def devices(self) -> list[Device]:
        """The devices in use, in order of preference."""
        return list(self._devices.values())

    @property
    def failed(self) -> dict[str, HotplugError]:
        """Device id -> why it was set aside."""
        return dict(self._failed)

    def plan(self, graph: Graph) -> Plan:
        """Where each node of a graph would run, and why. Nothing is compiled.

        Raises:
            GraphError: the graph breaks a rule.
            UnsupportedOpError: a node runs nowhere.
            PlacementError: there is no device left, or not enough memory.
            UsageError: the session is closed.
        """
        with self._lock:
            self._require_open()
            self._leave_revoked()
            while True:
                try:
                    return self._place(graph)
                except DeviceFault as fault:
                    self._set_aside(fault, states_changed=False)
                except PlacementError as error:
                    if not self._add_reserve(str(error)):
                        raise

    def compile(self, graph: Graph) -> Program:
        """Make a graph ready to run; a second time, it is ready already.

        Raises:
            UsageError: a weight of the graph was not given, or is of another type; or the session
                is closed.
            GraphError: the graph breaks a rule, or a state has another type than before.
            UnsupportedOpError: a node runs nowhere.
            PlacementError: there is no device left, or not enough memory.
            StatesLostError: see `run`.
        """
        self.compiled(graph)
        return Program(self, graph)

    def compiled(self, graph: Graph) -> Compiled:
        """The executables of a graph, with their buffers; made if they are not there."""
        with self._lock:
            self._require_open()
            self._leave_revoked()
            held = self._compiled.get(graph)
            if held is not None:
                self._compiled.move_to_end(graph)
                return held
            self._storage.check(graph)
            made = self._compile(graph)
            self._compiled[graph] = made
            while len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)[1].free()
            return made

    def run(self, graph: Graph, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Compute a graph's outputs and update its states; see `Program.run`."""
        with self._lock:
            watch = self._watch or None
            form = self._watch.form(graph)
            while True:
                compiled = self.compiled(form)
                if watch is not None:
                    watch.count(self.memory())
                try:
                    return compiled.run(inputs, watch)
                except DeviceFault as fault:
                    self._set_aside(fault, states_changed=bool(graph.updates))

    def profile(self, graph: Graph, inputs: Mapping[str, Any]) -> list[StepTime]:
        """Compute once and tell how long each step took; see `Program.profile`."""
        with self._lock:
            compiled = self.compiled(graph)
            try:
                return compiled.profile(inputs)
            except DeviceFault as fault:
                raise fault.error from fault

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
            self._watch.add(observer)
        try:
            yield
        finally:
            with self._lock:
                self._watch.remove(observer)
                for graph in [graph for graph in self._compiled if is_observed(graph)]:
                    self._compiled.pop(graph).free()

    def memory(self) -> dict[str, dict[str, float]]:
        """Bytes that the session holds by device and use; of weights in mapped files too."""
        found = self._storage.memory()
        for compiled in self._compiled.values():
            for device, uses in compiled.memory().items():
                total = found.setdefault(device, {})
                for use, nbytes in uses.items():
                    total[use] = total.get(use, 0) + nbytes
        return found

    def read(self, state: str) -> Any:
        """A copy of a state's value.

        Raises:
            UsageError: no graph has used a state of that name, or the session is closed.
        """
        with self._lock:
            self._require_open()
            return self._storage.state(state).read()

    def write(self, state: str, value: Any) -> None:
        """Give a state a value.

        Raises:
            UsageError: no graph has used a state of that name, the value does not fit, or the
                session is closed.
        """
        with self._lock:
            self._require_open()
            self._storage.state(state).write(value)

    def reset(self) -> None:
        """Make all states zero."""
        with self._lock:
            self._drop_compiled()  # they are bound to the states' memory
            self._storage.reset()

    def close(self) -> None:
        """Give everything back; a second call does nothing."""
        with self._lock:
            self._closed = True
            self._drop_compiled()
            self._storage.free()
            for handle in self._handles:
                handle.close()
            self._handles.clear()
            self._devices.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Session on {', '.join(self._devices) or 'nothing'}>"

    def _require_open(self) -> None:
        # Else the CPU would take over from the devices given back, with states that are gone.
        if self._closed:
            raise UsageError("the session is closed")

    def _open(self, selector: str) -> None:
        registry = self._registry or default()
        selection = registry.select(selector)
        _log.info("%s", selection.explain())
        for info in selection.devices:
            if info.id not in self._devices and info.id not in self._failed:
                handle = registry.open(info, holder=f"session {id(self):#x}")
                self._handles.append(handle)
                self._devices[info.id] = handle.device

    def _add_reserve(self, why: str) -> bool:
        """Let the CPU take over, if that is allowed and not the case yet."""
        if self.fallback == "error" or self._holds_reserve:
            return False
        self._holds_reserve = True
        before = len(self._devices)
        try:
            self._open(_RESERVE)
        except HotplugError as error:
            _log.warning("the CPU cannot take over: %s", error)
        if len(self._devices) == before:
            return False
        self._tell(f"the CPU takes over what others do not do: {why}")
        return True

    def _tell(self, what: str) -> None:
        _log.info("%s", what)
        if self.fallback == "warn":
            warnings.warn(what, FallbackWarning, stacklevel=2)

    def _place(self, graph: Graph) -> Plan:
        if not self._devices:
            raise PlacementError(
                "no device is left",
                reasons={device: str(error) for device, error in self._failed.items()},
            )
        budgets = {device.id: self._budget(device) for device in self.devices}
        return place(
            graph,
            self.devices,
            pins={name: device for name, device in self._pins.items() if device in self._devices},
            budgets=budgets,
            settled=self._storage.homes(),
        )

    def _compile(self, graph: Graph) -> Compiled:
        while True:
            plan = self.plan(graph)
            try:
                return Compiled(plan, self._devices, self._storage, self._threads)
            except DeviceFault as fault:
                if not self._make_room(fault):
                    self._set_aside(fault, states_changed=False)

    def _budget(self, device: Device) -> int | None:
        """Bytes that weights and states may take; None where they lie in the host's own memory."""
        if device.buffers.is_host:
            return None
        with at_device(device.id):
            free = device.memory().free
        return None if free is None else int(free * self._shares.get(device.id, _SHARE))

    def _leave_revoked(self) -> None:
        """Go on without devices whose backend was unloaded by force."""
        for handle in tuple(self._handles):
            if handle.revoked:
                error = DeviceLostError(f"{handle.id} is gone: {handle.revoked}", device=handle.id)
                self._set_aside(DeviceFault(handle.id, error), states_changed=False)

    def _make_room(self, fault: DeviceFault) -> bool:
        """Where a device had no room left for a part's own memory, plan with less of its memory.

        Returns:
            Whether it is worth another try.
        """
        share = _LESS * self._shares.get(fault.device, _SHARE)
        if not isinstance(fault.error, OutOfDeviceMemoryError) or share < _LEAST:
            return False
        if not self._carry_states(fault):
            return False
        self._drop_compiled()
        self._storage.leave(fault.device)
        self._shares[fault.device] = share
        _log.info("%s: weights and states get %.0f%% of its memory", fault.error, 100 * share)
        return True

    def _set_aside(self, fault: DeviceFault, *, states_changed: bool) -> None:
        """Go on without a device, or raise what it raised.

        Raises:
            StatesLostError: states were lost on the way.
            HotplugError: the fault's own error, where no other device may take over.
        """
        error = fault.error
        self._failed[fault.device] = error
        lost = states_changed or not self._carry_states(fault)
        self._drop_compiled()
        self._leave(fault.device)
        if lost:
            self._storage.reset()
        if self.fallback == "error" or not (self._devices or self._add_reserve(str(error))):
            raise error
        self._tell(f"{fault.device} is set aside: {error}; {', '.join(self._devices)} goes on")
        if lost:
            raise StatesLostError(
                f"{fault.device} failed and the states are lost: {error}", device=fault.device
            ) from error

    def _carry_states(self, fault: DeviceFault) -> bool:
        """Save the states of a device that failed while compiling; False if that is impossible."""
        if not self._storage.has_states_on(fault.device):
            return True
        if isinstance(fault.error, DeviceLostError):
            return False
        try:
            self._storage.carry_from(fault.device)
        except Exception as error:  # noqa: BLE001 - the device is faulty; that is why we are here
            _log.warning("the states on %s cannot be read: %r", fault.device, error)
            return False
        return True

    def _leave(self, device: str) -> None:
        try:
            self._storage.leave(device)
        except Exception as error:  # noqa: BLE001 - as above
            _log.debug("freeing on %s failed: %r", device, error)
        self._devices.pop(device, None)
        for handle in [handle for handle in self._handles if handle.info.id == device]:
            self._handles.remove(handle)
            handle.close()

    def _drop_compiled(self) -> None:
        for compiled in self._compiled.values():
            compiled.free()
        self._compiled.clear()


def _checked(threads: int | None) -> int | None:
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise UsageError(f"the number of threads must be from 1 to {MOST_THREADS}, not {threads}")
    return threads
