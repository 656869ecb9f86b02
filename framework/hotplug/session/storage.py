"""Buffers of weights and states, by device. What is stored once serves every graph of a session."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hotplug import progress
from hotplug.backend import Buffer, Device
from hotplug.errors import GraphError, UsageError
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.placement.shards import Cut
from hotplug.session.copies import StateCopies
from hotplug.session.pools import Pool
from hotplug.session.values import Slot
from hotplug.session.weights import Weight, claim, is_shared
from hotplug.session.worker import give_back
from hotplug.tensor import HostTensor, TensorType

__all__ = ["Frees", "Shelf", "Storage"]

Frees: TypeAlias = list[tuple[str, Callable[[], object]]]
"""Device id -> what gives something back there."""


@dataclass(frozen=True, slots=True)
class _State:
    type: TensorType
    buffer: Buffer


@dataclass(slots=True)
class Shelf:
    """What a session keeps on one device.

    A device that hangs may go on filling its shelf after the session has left it: what it puts
    there is freed with the shelf.
    """

    device: Device
    wrapped: dict[str, Buffer] = field(default_factory=dict)
    weights: dict[str, Weight] = field(default_factory=dict)
    states: dict[str, _State] = field(default_factory=dict)
    pools: dict[str, Pool] = field(default_factory=dict)

    def pool(self, weight: str, tensor: HostTensor, room: int) -> Pool:
        """The pool of a weight's experts, made if it is not there yet.

        Raises:
            OutOfDeviceMemoryError: there is no room.
        """
        held = self.pools.get(weight)
        if held is None:
            size = tensor.nbytes // tensor.shape[0]
            held = Pool(tensor, self.device.buffers.allocate(room * size), room)
            self.pools[weight] = held
        return held

    def load(self, tensors: Mapping[str, HostTensor]) -> None:
        """Bring weights here, telling how far it is while bytes are copied.

        Raises:
            OutOfDeviceMemoryError: there is no room.
        """
        missing = [
            name for name in tensors if name not in self.wrapped and name not in self.weights
        ]
        buffers = self.device.buffers.wrap_all([tensors[name].data.data for name in missing])
        found = dict(zip(missing, buffers, strict=True))
        self.wrapped.update({name: buffer for name, buffer in found.items() if buffer is not None})
        copied = {name: tensors[name] for name, buffer in found.items() if buffer is None}
        if copied:
            self._upload(copied)

    def _upload(self, tensors: Mapping[str, HostTensor]) -> None:
        total = sum(tensor.nbytes for tensor in tensors.values())
        with progress.task(f"load weights to {self.device.id}", total) as advance:
            done = 0
            for name, tensor in tensors.items():
                weight = claim(self.device, tensor)
                try:
                    weight.upload(lambda part, done=done: advance(done + part))  # type: ignore[misc]
                except BaseException:
                    weight.free()
                    raise
                self.weights[name] = weight
                done += tensor.nbytes

    def weight(self, name: str) -> Buffer:
        """The buffer of a weight that was loaded."""
        return self.wrapped[name] if name in self.wrapped else self.weights[name].buffer

    def memory(self) -> dict[str, float]:
        """Bytes of weights, mapped files among them, and of states."""
        wrapped = sum(buffer.nbytes for buffer in self.wrapped.values())
        weights = wrapped + sum(weight.buffer.nbytes for weight in self.weights.values())
        weights += sum(pool.buffer.nbytes for pool in self.pools.values())
        states = sum(state.buffer.nbytes for state in self.states.values())
        return {"weights": weights, "states": states}

    def free_weights(self) -> None:
        """Give the weights back."""
        wrapped, self.wrapped = self.wrapped, {}
        weights, self.weights = self.weights, {}
        pools, self.pools = self.pools, {}
        give_back(buffer.free for buffer in wrapped.values())
        give_back(pool.buffer.free for pool in pools.values())
        give_back(weight.free for weight in weights.values())

    def free_states(self) -> None:
        """Give the states back."""
        states, self.states = self.states, {}
        give_back(state.buffer.free for state in states.values())

    def free(self) -> None:
        """Give everything back."""
        self.free_weights()
        self.free_states()


class Storage:
    """Weights and states of one session.

    Attributes:
        copies: of states that live on devices whose memory may be lost.
    """

    def __init__(self, weights: Mapping[str, HostTensor], copies: StateCopies) -> None:
        self.copies = copies
        self._weights = dict(weights)
        self._cuts: dict[str, Cut] = {}
        self._shelves: dict[str, Shelf] = {}
        self._carried: dict[str, npt.NDArray[np.uint8]] = {}  # first bytes of states without a home

    def homes(self) -> dict[str, str]:
        """Leaf name -> id of the device it lives on; of weights used on several, the first."""
        found: dict[str, str] = {}
        for device, shelf in self._shelves.items():
            for name in (*shelf.states, *shelf.wrapped, *shelf.weights):
                found.setdefault(name, device)
        return found

    def shared_bytes(self, device: Device) -> int:
        """Bytes of weights that another session has put on a device, so that none are needed."""
        held = self._shelves.get(device.id)
        return sum(
            tensor.nbytes
            for name, tensor in self._weights.items()
            if (held is None or name not in held.weights) and is_shared(device, tensor)
        )

    def cut(self, cuts: Mapping[str, Cut]) -> None:
        """Make pieces of weights, and know which states are pieces."""
        for name, cut in cuts.items():
            origin = self._weights.get(cut.origin)
            if origin is not None and name not in self._weights:
                self._weights[name] = origin.part(cut.axis, cut.start, cut.stop)
        self._cuts |= cuts

    def is_divided_otherwise(self, graph: Graph) -> bool:
        """Whether states of a graph are here in other pieces than the graph has them in."""
        wanted = {self._origin(name) for name in graph.states}
        held = {name for shelf in self._shelves.values() for name in shelf.states}
        held |= self._carried.keys()
        return any(name not in graph.states and self._origin(name) in wanted for name in held)

    def _origin(self, name: str) -> str:
        return self._cuts[name].origin if name in self._cuts else name

    def weight(self, name: str) -> HostTensor | None:
        """A weight, or a piece of one, as it was given; None if there is none of that name."""
        return self._weights.get(name)

    def check(self, graph: Graph) -> None:
        """Compare a graph's weights and states with what is here.

        Raises:
            UsageError: a weight is missing or of another type.
            GraphError: a state is of another type than in an earlier graph.
        """
        for name, node in graph.weights.items():
            held = self._weights.get(name)
            if held is None:
                raise UsageError(f"the graph needs a weight {name!r}, which was not given")
            if held.type != node.type:
                raise UsageError(f"weight {name!r} is {held.type}, the graph takes {node.type}")
        for name, node in graph.states.items():
            state = self._find(name)
            if state is not None and state.type != node.type:
                raise GraphError(
                    f"state {name!r} is {state.type}, and another graph calls it {node.type}"
                )

    def shelf(self, device: Device) -> Shelf:
        """What is kept on a device."""
        held = self._shelves.get(device.id)
        if held is None:
            held = self._shelves[device.id] = Shelf(device)
        return held

    def load(self, graph: Graph, shelf: Shelf) -> None:
        """Bring a graph's weights to a device.

        Raises:
            OutOfDeviceMemoryError: there is no room.
        """
        shelf.load({name: self._weights[name] for name in graph.weights})

    def leaf(self, node: Node, shelf: Shelf) -> Buffer:
        """The buffer of a weight that was loaded, or of a state, made if it is not there yet.

        Raises:
            OutOfDeviceMemoryError: there is no room.
        """
        if node.op == "weight":
            return shelf.weight(node.name)
        state = self._find(node.name)
        if state is None:
            state = shelf.states[node.name] = _State(node.type, self._new_state(node, shelf.device))
        return state.buffer

    def _new_state(self, node: Node, device: Device) -> Buffer:
        """Memory with what the state held elsewhere, or zero."""
        buffer = device.buffers.allocate(node.type.nbytes)
        carried = self._carried.get(node.name)
        if carried is not None and carried.size:
            try:
                buffer.write(0, carried.data)
            except BaseException:
                give_back([buffer.free])
                raise
        self._carried.pop(node.name, None)
        return buffer

    def _find(self, name: str) -> _State | None:
        for shelf in self._shelves.values():
            if name in shelf.states:
                return shelf.states[name]
        return None

    def state(self, name: str) -> Slot:
        """A state's value.

        Raises:
            UsageError: no graph has used a state of that name.
        """
        state = self._find(name)
        if state is None:
            names = sorted(name for shelf in self._shelves.values() for name in shelf.states)
            raise UsageError(f"there is no state {name!r}; known: {', '.join(names) or 'none yet'}")
        return Slot(name, state.type, state.buffer)

    def home(self, state: str) -> str:
        """Id of the device that a state lives on."""
        return next(device for device, shelf in self._shelves.items() if state in shelf.states)

    def memory(self) -> dict[str, dict[str, float]]:
        """Bytes by device: of weights, mapped files among them, and of states."""
        return {device: shelf.memory() for device, shelf in self._shelves.items()}

    def experts(self) -> dict[str, dict[str, int]]:
        """Of devices that experts were sent to: how often one was there already, or was sent."""
        found = {}
        for device, shelf in self._shelves.items():
            pools = shelf.pools.values()
            if pools:
                found[device] = {
                    "found": sum(pool.found for pool in pools),
                    "sent": sum(pool.sent for pool in pools),
                    "sent_bytes": sum(pool.sent * pool.expert_bytes for pool in pools),
                    "pool_bytes": sum(pool.buffer.nbytes for pool in pools),
                }
        return found

    def bytes_on(self, device: str) -> int:
        """Bytes of weights and states on a device."""
        shelf = self._shelves.get(device)
        return 0 if shelf is None else int(sum(shelf.memory().values()))

    def states_on(self, device: str) -> tuple[str, ...]:
        """Names of the states that live on a device."""
        shelf = self._shelves.get(device)
        return () if shelf is None else tuple(shelf.states)

    def to_copy(self) -> tuple[str, ...]:
        """Ids of devices whose states should be copied now; host memory outlives its devices."""
        far = {
            device: shelf.states
            for device, shelf in self._shelves.items()
            if shelf.states and not shelf.device.buffers.is_host
        }
        types = {name: state.type for states in far.values() for name, state in states.items()}
        return tuple(far) if self.copies.due(types) else ()

    def copy_states(self, device: str) -> None:
        """Bring the host's copies of a device's states up to date.

        Raises:
            HotplugError: the device does not give them.
        """
        for name, state in self._shelves[device].states.items():
            self.copies.take(name, state.type, state.buffer)

    def carry_from(self, device: str) -> None:
        """Read the states of a device that is to be left; they go where their next graph wants.

        Raises:
            HotplugError: the device does not give them any more.
        """
        shelf = self._shelves[device]
        read = {name: _bytes_of(state) for name, state in shelf.states.items()}
        self._carried.update(read)
        shelf.free_states()

    def carry_copies(self, device: str, rows: int) -> None:
        """Let the host's copies of the first rows take the place of a device's states."""
        for name in self.states_on(device):
            self._carried[name] = self.copies.first(name, rows)

    def reset(self) -> Frees:
        """Make every state zero. New memory is cheaper than writing to all of the old."""
        self._carried.clear()
        self.copies.rewind(0)
        return [(device, shelf.free_states) for device, shelf in self._shelves.items()]

    def unload(self, devices: Iterable[str]) -> Frees:
        """Let go of weights, so that they may come to lie elsewhere."""
        return [
            (device, self._shelves[device].free_weights)
            for device in devices
            if device in self._shelves
        ]

    def leave(self, device: str) -> Frees:
        """Let go of all that is on a device; states there are forgotten."""
        shelf = self._shelves.pop(device, None)
        return [] if shelf is None else [(device, shelf.free)]

    def leave_all(self) -> Frees:
        """Let go of everything."""
        self._carried.clear()
        return [free for device in tuple(self._shelves) for free in self.leave(device)]


def _bytes_of(state: _State) -> npt.NDArray[np.uint8]:
    data = np.empty(state.type.nbytes, np.uint8)
    state.buffer.read(0, data.data)
    return data
