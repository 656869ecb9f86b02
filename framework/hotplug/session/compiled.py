"""A plan's executables with every buffer bound: what a run does, step by step."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy.typing as npt

from hotplug import ops
from hotplug.backend import Buffer, Device, Partition
from hotplug.errors import DeviceHungError, OutOfDeviceMemoryError
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.placement import Copy, Part, Plan
from hotplug.placement.rooms import Held
from hotplug.placement.schedule import Task, tasks
from hotplug.session.control import Control
from hotplug.session.experts import PLACES, Pooled
from hotplug.session.faults import DeviceFault, at_device
from hotplug.session.fleet import Fleet
from hotplug.session.observe import OBSERVED
from hotplug.session.overlap import Lane, new_lane
from hotplug.session.pools import Selection
from hotplug.session.step import Step, Transfer
from hotplug.session.storage import Frees, Shelf, Storage
from hotplug.session.trace import StepTime
from hotplug.session.values import Slot, Value, check_names
from hotplug.session.watch import Watch
from hotplug.session.worker import give_back

__all__ = ["Compiled"]

_CLOCKS = 10
"""How much more time a run has in which every launch is waited for."""

_LONG = 4e9
"""Operations from which a part takes so long that Ctrl-C should not have to wait for it."""


class Compiled:
    """A graph's executables, in the order in which they run.

    Attributes:
        plan: where each node runs.
        steps: one for each of its parts.
        names: of the results.
    """

    def __init__(
        self,
        plan: Plan,
        fleet: Fleet,
        storage: Storage,
        threads: int | None,
        control: Control | None = None,
    ) -> None:
        """Compile and bind.

        Raises:
            DeviceFault: a device failed at it; nothing is left behind but weights and states.
            RunCancelledError: it was ended from outside; likewise.
        """
        self.plan = plan
        self.steps: list[Step] = []
        self._fleet = fleet
        self._storage = storage
        self._threads = threads
        self._inputs: list[tuple[str, Slot]] = []
        self._values: dict[Held, Buffer] = {}  # inputs and made values, by whose memory they have
        self._held: dict[Held, Buffer] = {}  # the same by their own names
        self._staged: dict[Held, memoryview] = {}
        self._made: dict[str, tuple[Step, Slot]] = {}
        self.names: list[str] = []
        self._lanes: list[Lane] = [self.steps]
        self._waits: dict[tuple[int, int], dict[Task, set[Task]]] = {}
        self._pooled = Pooled.of(plan, fleet, storage)
        try:
            for part in plan.parts:
                self._add_part(self._pooled.part(part), control)
        except BaseException:
            fleet.give_back(self.frees())
            raise
        for name, _ in plan.graph.outputs:
            if name.startswith(OBSERVED):
                continue
            step, slot = self._made[name]
            step.outputs.append((name, slot))
            self.names.append(name)
        self._watched = any(step.limit is not None or step.long for step in self.steps)

    def _add_part(self, part: Part, control: Control | None) -> None:
        member = self._fleet.members[part.device]
        shelf = self._storage.shelf(member.device)
        stored = sum(node.type.nbytes for node in part.graph.nodes if node.is_leaf)
        operations = _operations(part.graph)
        limit = None if member.near else self._fleet.patience(operations)
        long = member.near and operations >= _LONG

        def add() -> None:
            arena = 0 if member.device.plans_arena else part.arena_bytes
            partition = Partition(part.graph, arena, self._threads)
            executable = member.device.compile(partition)
            count = sum(not node.is_leaf for node in part.graph.nodes)
            name = f"part {len(self.steps)}: {count} nodes"
            step = Step(name, part.device, executable, member.turn, limit, long)
            self.steps.append(step)
            self._bind(step, part, member.device, shelf)

        with at_device(part.device, clean=True):
            self._fleet.call(
                part.device,
                add,
                limit=self._fleet.patience(operations, stored, compiling=True),
                control=control,
            )

    def _bind(self, step: Step, part: Part, device: Device, shelf: Shelf) -> None:
        for copy in part.receives:
            if copy.name in self._pooled.rooms:
                self._select(copy, shelf, step)
            else:
                self._receive(copy, device, step)
        self._storage.load(part.graph, shelf)
        for node in part.graph.nodes:
            if node.name in step.bindings:  # a pool
                continue
            if node.op == "input":
                step.bindings[node.name] = self._input(node, device, step)
            elif node.is_leaf:
                step.bindings[node.name] = self._storage.leaf(node, shelf)
        for name, node in part.graph.outputs:
            buffer = self._allocate(name, node, device)
            step.bindings[f"output:{name}"] = buffer
            step.made[name] = Slot(name, node.type, buffer)
            self._made[name] = step, step.made[name]

    def _receive(self, copy: Copy, device: Device, step: Step) -> None:
        """A value from another device: brought by the first part that needs it here."""
        if (device.id, copy.name) in self._held:
            return
        maker, slot = self._made[copy.name]
        received = self._allocate(copy.name, copy.node, device)
        staged = None
        if slot.buffer.host() is None and not self.plan.is_direct(copy):
            room = self._room(copy.source, copy.name)
            staged = self._staged.setdefault(room, memoryview(bytearray(copy.nbytes)))
            maker.handed[copy.name] = staged
        transfer = Transfer(copy.name, copy.source, slot.buffer, received, staged)
        step.transfers.append(transfer)

    def _select(self, copy: Copy, shelf: Shelf, step: Step) -> None:
        """Experts in a pool, to which those that are missing are brought."""
        weight = copy.node.operands[0].name
        tensor = self._storage.weight(weight)
        assert tensor is not None
        pool = shelf.pool(weight, tensor, self._pooled.rooms[copy.name])
        ids = self._made[copy.name][1]
        places = shelf.device.buffers.allocate(ids.type.nbytes)
        held = shelf.device.id, PLACES + copy.name
        self._values[held] = self._held[held] = places
        step.bindings[copy.name] = pool.buffer
        step.selections.append(Selection(pool, copy.source, ids, places))

    def _input(self, node: Node, device: Device, step: Step) -> Buffer:
        """The buffer of an input of the whole graph, or of a value that an earlier part made."""
        held = self._held.get((device.id, node.name))
        if held is None:
            held = self._allocate(node.name, node, device)
            slot = Slot(node.name, node.type, held)
            step.inputs.append((len(self._inputs), slot))
            self._inputs.append((node.name, slot))
        return held

    def _allocate(self, name: str, node: Node, device: Device) -> Buffer:
        room = self._room(device.id, name)
        if room not in self._values:
            self._values[room] = device.buffers.allocate(node.type.nbytes)
        buffer = self._held[device.id, name] = self._values[room]
        return buffer

    def _room(self, device: str, name: str) -> Held:
        """Whose memory a value has; one that a pool takes the place of has its own, and less."""
        if name in self._pooled.rooms:
            return device, f"names of {name}"
        return device, self.plan.rooms.get((device, name), name)

    def run(
        self,
        inputs: Mapping[str, Any],
        control: Control | None = None,
        watch: Watch | None = None,
    ) -> dict[str, Any]:
        """Compute once.

        Args:
            inputs: a value for every input.
            control: what ends the run from outside.
            watch: who looks on, if anybody does.

        Raises:
            UsageError: the inputs are not those of the graph; nothing has been done.
            DeviceFault: a device failed on the way.
            RunCancelledError: the run was ended from outside, or by somebody who looked on.
        """
        arrays = self.arrays(inputs)
        results: dict[str, Any] = {}
        aside = self._watched or control is not None or watch is not None
        began = watch.begin_run(self.plan.graph, partial(self._leaf, arrays)) if watch else 0.0
        done = 0
        try:
            for step in self.steps:
                if aside or step.turn.users > 1:
                    self.in_turn(step, arrays, results, control, watch)
                else:
                    step.run(arrays, results)
                done += 1
        except DeviceFault as fault:
            fault.clean = fault.clean and not done
            raise
        if watch is not None:
            watch.end_run(self.plan.graph, began)
        return {name: results[name] for name in self.names}

    def _leaf(self, arrays: list[npt.NDArray[Any]], name: str) -> Value:
        """The present value of an input, weight or state."""
        for array, (held, slot) in zip(arrays, self._inputs, strict=True):
            if held == name:
                return slot.value_of(array)
        weight = self._storage.weight(name)
        return self._storage.state(name).read() if weight is None else weight

    def memory(self) -> dict[str, dict[str, float]]:
        """Bytes held by device: of values that cross, inputs and outputs, and of arenas."""
        found: dict[str, dict[str, float]] = {}
        for (device, _), buffer in self._values.items():
            use = found.setdefault(device, {"values": 0, "arenas": 0})
            use["values"] += buffer.nbytes
        for step in self.steps:
            use = found.setdefault(step.device, {"values": 0, "arenas": 0})
            use["arenas"] += step.executable.arena_bytes
        return found

    def profile(self, inputs: Mapping[str, Any]) -> list[StepTime]:
        """Compute once, and tell how long each step took, where a device knows.

        Raises:
            UsageError, DeviceFault: as for `run`.
        """
        arrays = self.arrays(inputs)
        times: list[StepTime] = []
        for step in self.steps:
            limit = step.limit and _CLOCKS * step.limit
            with at_device(step.device):
                work = partial(step.profile, arrays)
                times += self._fleet.call(step.device, work, limit=limit)
        return times

    def lanes(self, count: int) -> list[Lane]:
        """The steps over so many sets of buffers, or as many as there is room for.

        Raises:
            DeviceFault: a device failed at making room.
        """
        own = {id(buffer) for buffer in self._values.values()}
        bound = [buffer for step in self.steps for buffer in step.bindings.values()]
        kept = [buffer for buffer in bound if id(buffer) not in own]
        while len(self._lanes) < count:
            before = set(self._values)
            try:
                self._lanes.append(new_lane(self.steps, self._like, kept))
            except DeviceFault as fault:
                new = [self._values.pop(key) for key in self._values.keys() - before]
                give_back([buffer.free for buffer in new])
                if not isinstance(fault.error, OutOfDeviceMemoryError):
                    raise
                break
        return self._lanes[:count]

    def waits(self, runs: int, depth: int) -> Mapping[Task, set[Task]]:
        """What tasks of so many runs wait for; see `hotplug.placement.schedule.tasks`."""
        key = runs, depth
        if key not in self._waits:
            self._waits = {key: tasks(self.plan.parts, runs, depth)}  # as a rule it is always one
        return self._waits[key]

    def _like(self, device: str, buffer: Buffer) -> Buffer:
        """A buffer of the same size, freed with the others."""
        memory = self._fleet.members[device].device.buffers
        made = self._fleet.ask(device, partial(memory.allocate, buffer.nbytes))
        self._values[device, f"#{len(self._values)}"] = made
        return made

    def arrays(self, inputs: Mapping[str, Any]) -> list[npt.NDArray[Any]]:
        """A run's inputs as they are stored, in the order in which steps number them.

        Raises:
            UsageError: they are not those of the graph.
        """
        check_names(self.plan.graph.inputs, inputs)
        return [slot.convert(inputs[name]) for name, slot in self._inputs]

    def in_turn(
        self,
        step: Step,
        arrays: list[npt.NDArray[Any]],
        results: dict[str, Any],
        control: Control | None,
        watch: Watch | None,
    ) -> None:
        """Do a step when no other session uses its device.

        Raises:
            DeviceFault, RunCancelledError: as for `run`.
        """
        if control is not None:
            control.check()
        step.turn.acquire(control)
        try:
            self._call(step, arrays, results, control, watch)
        finally:
            step.turn.release()
        if watch is not None and watch.observers:
            watch.show(step.device, [(name, slot.read) for name, slot in step.made.items()])

    def _call(
        self,
        step: Step,
        arrays: list[npt.NDArray[Any]],
        results: dict[str, Any],
        control: Control | None,
        watch: Watch | None,
    ) -> None:
        # Only the main thread is interrupted by Ctrl-C.
        aside = step.long and threading.current_thread() is threading.main_thread()
        found: dict[str, Any] = {}  # its own, lest a step that was given up write to the next run's
        try:
            self._fleet.call(
                step.device,
                partial(step.run, arrays, found, watch.trace if watch is not None else None),
                limit=step.limit,
                control=control,
                stop=step.stop,
                aside=aside,
            )
        except DeviceHungError as error:
            self._fleet.blame(step.device, step.at)
            raise DeviceFault(step.at, error) from error
        results.update(found)

    def explain(self) -> list[str]:
        """What each device will do, step by step."""
        lines = []
        for number, step in enumerate(self.steps):
            lines.append(f"part {number} on {step.device}:")
            lines += [f"  {line}" for line in step.executable.explain()]
        return lines

    def frees(self) -> Frees:
        """What gives executables and buffers back that belong to no one else."""
        return [(device, partial(self._free_on, device)) for device in self.plan.devices]

    def _free_on(self, device: str) -> None:
        # Looked up when it happens: a device that hung may have added something until then.
        values = [self._values.pop(key) for key in list(self._values) if key[0] == device]
        mine = [step for step in self.steps if step.device == device]
        self.steps = [step for step in self.steps if step.device != device]
        give_back([step.executable.free for step in mine])
        give_back([buffer.free for buffer in values])


def _operations(graph: Graph) -> float:
    return sum(ops.get(node.op).flops(node) for node in graph.nodes if not node.is_leaf)
