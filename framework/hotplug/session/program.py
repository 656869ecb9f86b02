"""One graph, compiled for the devices of a session."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hotplug.backend import Buffer, Device, Executable, Partition
from hotplug.errors import ExecutionError, HotplugError
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.placement import Copy, Part, Plan
from hotplug.session.observe import OBSERVED
from hotplug.session.storage import Storage
from hotplug.session.trace import StepTime, Trace
from hotplug.session.values import Slot, Value, check_names
from hotplug.session.watch import Watch

if TYPE_CHECKING:
    from hotplug.session.session import Session

__all__ = ["Compiled", "DeviceFault", "Program", "at_device"]


_log = logging.getLogger("hotplug.session")


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

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Compute.

        Args:
            inputs: a value for every input by name: an array of the input's shape, or a
                `HostTensor` where NumPy lacks the dtype.

        Returns:
            Output name -> array, or host tensor where NumPy lacks the dtype; copies.

        Raises:
            UsageError: an input is missing, unknown, or of another shape or kind.
            StatesLostError: a device failed; others go on, but with states that are all zero.
            HotplugError: a device failed, and no other may take over.
        """
        return self._session.run(self.graph, inputs)

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


class DeviceFault(Exception):  # noqa: N818 - control flow within a session, never seen outside
    """Something went wrong on a device.

    Attributes:
        device: its id.
        error: what it raised, or an ExecutionError around what is no error of ours.
    """

    def __init__(self, device: str, error: Exception) -> None:
        super().__init__(device)
        self.device = device
        self.error = error if isinstance(error, HotplugError) else _foreign(device, error)


def _foreign(device: str, error: Exception) -> ExecutionError:
    wrapped = ExecutionError(f"{device} failed: {error!r}", device=device)
    wrapped.__cause__ = error
    return wrapped


@contextlib.contextmanager
def at_device(device: str) -> Iterator[None]:
    """Whatever is raised inside is the fault of a device."""
    try:
        yield
    except Exception as error:
        raise DeviceFault(device, error) from error


@dataclass(slots=True)
class _Step:
    """One part of a plan, ready to run: copies in, then one call."""

    name: str
    device: str
    executable: Executable
    bindings: dict[str, Buffer]
    copies: list[tuple[str, str, Buffer, Buffer]]  # name, device it comes from, from, to
    results: dict[str, Slot]

    def run(self) -> None:
        for _, source, made, received in self.copies:
            self._copy(source, made, received)
        with at_device(self.device):
            self.executable.run(self.bindings)

    def traced(self, trace: Trace) -> None:
        """Run, and note how long each copy took, and the part or its steps."""
        for name, source, made, received in self.copies:
            began = trace.now()
            self._copy(source, made, received)
            lane = f"copies {source} -> {self.device}"
            trace.span(lane, name, began, bytes=made.nbytes)
        began = trace.now()
        times = self._timed() if trace.steps else []
        if not times:
            with at_device(self.device):
                self.executable.run(self.bindings)
        trace.span(self.device, self.name, began)
        trace.lay_out(began, times)

    def profile(self) -> list[StepTime]:
        for _, source, made, received in self.copies:
            self._copy(source, made, received)
        times = self._timed()
        if not times:
            with at_device(self.device):
                self.executable.run(self.bindings)
        return times

    def _timed(self) -> list[StepTime]:
        """Run with clocks beside each step; empty where the device cannot, and has not run."""
        with at_device(self.device):
            seconds = self.executable.profile(self.bindings)
            lines = self.executable.explain() if seconds else []
            return [StepTime(self.device, *pair) for pair in zip(lines, seconds, strict=True)]

    def _copy(self, source: str, made: Buffer, received: Buffer) -> None:
        with at_device(source if made.host() is None else self.device):
            received.copy_from(made)


class Compiled:
    """A plan's executables with every buffer bound.

    Attributes:
        plan: where each node runs.
    """

    def __init__(
        self,
        plan: Plan,
        devices: Mapping[str, Device],
        storage: Storage,
        threads: int | None,
    ) -> None:
        """Compile and bind.

        Raises:
            DeviceFault: a device failed at it; nothing is left behind but weights and states.
        """
        self.plan = plan
        self._storage = storage
        self._threads = threads
        self._steps: list[_Step] = []
        self._inputs: list[tuple[str, str, Slot]] = []  # device, name, place
        self._outputs: dict[str, tuple[str, Slot]] = {}  # name -> device, place
        self._values: dict[tuple[str, str], Buffer] = {}  # (device, name) -> input or made value
        try:
            for part in plan.parts:
                with at_device(part.device):
                    self._add(part, devices[part.device])
        except BaseException:
            self.free()
            raise

    def _add(self, part: Part, device: Device) -> None:
        partition = Partition(part.graph, part.arena_bytes, self._threads)
        count = sum(not node.is_leaf for node in part.graph.nodes)
        name = f"part {len(self._steps)}: {count} nodes"
        step = _Step(name, device.id, device.compile(partition), {}, [], {})
        self._steps.append(step)
        for copy in part.receives:
            self._receive(copy, device, step)
        self._storage.load(part.graph, device)
        for node in part.graph.nodes:
            if node.op == "input":
                step.bindings[node.name] = self._input(node, device)
            elif node.is_leaf:
                step.bindings[node.name] = self._storage.leaf(node, device)
        for name, node in part.graph.outputs:
            buffer = self._allocate(name, node, device)
            step.bindings[f"output:{name}"] = buffer
            step.results[name] = Slot(name, node.type, buffer)
            self._outputs[name] = device.id, step.results[name]

    def _receive(self, copy: Copy, device: Device, step: _Step) -> None:
        """A value from another device: brought by the first part that needs it here."""
        if (device.id, copy.name) not in self._values:
            made = self._values[copy.source, copy.name]
            received = self._allocate(copy.name, copy.node, device)
            step.copies.append((copy.name, copy.source, made, received))

    def _input(self, node: Node, device: Device) -> Buffer:
        """The buffer of an input of the whole graph, or of a value that an earlier part made."""
        held = self._values.get((device.id, node.name))
        if held is None:
            held = self._allocate(node.name, node, device)
            self._inputs.append((device.id, node.name, Slot(node.name, node.type, held)))
        return held

    def _allocate(self, name: str, node: Node, device: Device) -> Buffer:
        buffer = self._values[device.id, name] = device.buffers.allocate(node.type.nbytes)
        return buffer

    def run(self, inputs: Mapping[str, Any], watch: Watch | None = None) -> dict[str, Any]:
        """Compute once.

        Args:
            inputs: a value for every input.
            watch: who looks on, if anybody does.

        Raises:
            UsageError: the inputs are not those of the graph; nothing has been done.
            DeviceFault: a device failed on the way.
            RunCancelledError: somebody who looked on wanted the run to end.
        """
        if watch is not None:
            return self._watched(inputs, watch)
        self._write(inputs)
        for step in self._steps:
            step.run()
        return {name: self._read(name) for name, _ in self.plan.graph.outputs}

    def _watched(self, inputs: Mapping[str, Any], watch: Watch) -> dict[str, Any]:
        trace = watch.trace
        began = trace.now() if trace else 0.0
        self._write(inputs)
        watch.begin(self.plan.graph, self._leaf)
        for step in self._steps:
            if trace is None:
                step.run()
            else:
                step.traced(trace)
            if watch.observers:
                watch.show(step.device, [(name, slot.read) for name, slot in step.results.items()])
        names = [name for name, _ in self.plan.graph.outputs if not name.startswith(OBSERVED)]
        results = {name: self._read(name) for name in names}
        if trace:
            trace.span("run", f"run of {len(self.plan.graph.nodes)} nodes", began)
        return results

    def _leaf(self, name: str) -> Value:
        """The present value of an input or state."""
        for _, held, slot in self._inputs:
            if held == name:
                return slot.read()
        return self._storage.state(name).read()

    def memory(self) -> dict[str, dict[str, float]]:
        """Bytes held by device: of values that cross, inputs and outputs, and of arenas."""
        found: dict[str, dict[str, float]] = {}
        for (device, _), buffer in self._values.items():
            use = found.setdefault(device, {"values": 0, "arenas": 0})
            use["values"] += buffer.nbytes
        for step in self._steps:
            use = found.setdefault(step.device, {"values": 0, "arenas": 0})
            use["arenas"] += step.executable.arena_bytes
        return found

    def profile(self, inputs: Mapping[str, Any]) -> list[StepTime]:
        """Compute once, and tell how long each step took, where a device knows.

        Raises:
            UsageError, DeviceFault: as for `run`.
        """
        self._write(inputs)
        return [time for step in self._steps for time in step.profile()]

    def _write(self, inputs: Mapping[str, Any]) -> None:
        check_names(self.plan.graph.inputs, inputs)
        arrays = [slot.convert(inputs[name]) for _, name, slot in self._inputs]
        for (device, _, slot), array in zip(self._inputs, arrays, strict=True):
            with at_device(device):
                slot.store(array)

    def _read(self, name: str) -> Any:
        device, slot = self._outputs[name]
        with at_device(device):
            return slot.read()

    def explain(self) -> list[str]:
        """What each device will do, step by step."""
        lines = []
        for number, step in enumerate(self._steps):
            lines.append(f"part {number} on {step.device}:")
            lines += [f"  {line}" for line in step.executable.explain()]
        return lines

    def free(self) -> None:
        """Let go of executables and of buffers that belong to no one else.

        What a device that failed says to that is logged: there is nothing more to be done.
        """
        frees = [step.executable.free for step in self._steps]
        frees += [buffer.free for buffer in self._values.values()]
        for free in frees:
            try:
                free()
            except Exception as error:  # noqa: BLE001 - see above
                _log.debug("freeing failed: %r", error)
        self._steps.clear()
        self._values.clear()
