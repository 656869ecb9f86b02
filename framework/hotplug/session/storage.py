"""Buffers of weights and states, by device. What is stored once serves every graph of a session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hotplug import progress
from hotplug.backend import Buffer, Device
from hotplug.errors import GraphError, UsageError
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.session.values import Slot, Value
from hotplug.tensor import HostTensor, TensorType

__all__ = ["Storage"]

_PIECE = 16 << 20  # bytes between two reports of progress


@dataclass(frozen=True, slots=True)
class _State:
    type: TensorType
    device: str
    buffer: Buffer


class Storage:
    """Weights and states of one session."""

    def __init__(self, weights: Mapping[str, HostTensor]) -> None:
        self._weights = weights
        self._uploaded: dict[tuple[str, str], Buffer] = {}  # (device, weight)
        self._states: dict[str, _State] = {}
        self._carried: dict[str, Value] = {}  # states between two devices

    def homes(self) -> dict[str, str]:
        """Leaf name -> id of the device it lives on; of weights used on several, the first."""
        found: dict[str, str] = {name: state.device for name, state in self._states.items()}
        for device, name in self._uploaded:
            found.setdefault(name, device)
        return found

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
            state = self._states.get(name)
            if state is not None and state.type != node.type:
                raise GraphError(
                    f"state {name!r} is {state.type}, and another graph calls it {node.type}"
                )

    def load(self, graph: Graph, device: Device) -> None:
        """Bring a graph's weights to a device, telling how far it is while bytes are copied.

        Raises:
            OutOfDeviceMemoryError: there is no room.
        """
        missing = [name for name in graph.weights if (device.id, name) not in self._uploaded]
        copied = []
        for name in missing:
            wrapped = device.buffers.wrap(self._weights[name].data.data)
            if wrapped is None:
                copied.append(name)
            else:
                self._uploaded[device.id, name] = wrapped
        if not copied:
            return
        total = sum(self._weights[name].nbytes for name in copied)
        with progress.task(f"load weights to {device.id}", total) as advance:
            done = 0
            for name in copied:
                tensor = self._weights[name]
                self._uploaded[device.id, name] = _upload(tensor, device, done, advance)
                done += tensor.nbytes

    def leaf(self, node: Node, device: Device) -> Buffer:
        """The buffer of a weight that was loaded, or of a state, made if it is not there yet.

        Raises:
            OutOfDeviceMemoryError: there is no room.
        """
        if node.op == "weight":
            return self._uploaded[device.id, node.name]
        return self._state(node, device)

    def _state(self, node: Node, device: Device) -> Buffer:
        state = self._states.get(node.name)
        if state is None:
            state = _State(node.type, device.id, device.buffers.allocate(node.type.nbytes))
            self._states[node.name] = state
            if node.name in self._carried:
                self.state(node.name).write(self._carried.pop(node.name))
        return state.buffer

    def state(self, name: str) -> Slot:
        """A state's value.

        Raises:
            UsageError: no graph has used a state of that name.
        """
        state = self._states.get(name)
        if state is None:
            known = ", ".join(sorted(self._states)) or "none yet"
            raise UsageError(f"there is no state {name!r}; known: {known}")
        return Slot(name, state.type, state.buffer)

    def memory(self) -> dict[str, dict[str, float]]:
        """Bytes by device: of weights, mapped files among them, and of states."""
        found: dict[str, dict[str, float]] = {}
        for (device, _), buffer in self._uploaded.items():
            use = found.setdefault(device, {"weights": 0, "states": 0})
            use["weights"] += buffer.nbytes
        for state in self._states.values():
            use = found.setdefault(state.device, {"weights": 0, "states": 0})
            use["states"] += state.buffer.nbytes
        return found

    def has_states_on(self, device: str) -> bool:
        """Whether any state lives on a device."""
        return any(state.device == device for state in self._states.values())

    def reset(self) -> None:
        """Make every state zero. New memory is cheaper than writing to all of the old."""
        for state in self._states.values():
            state.buffer.free()
        self._states.clear()
        self._carried.clear()

    def carry_from(self, device: str) -> None:
        """Read the states of a device that is to be left; they go where their next graph wants.

        Raises:
            HotplugError: the device does not give them any more.
        """
        leaving = [name for name, state in self._states.items() if state.device == device]
        for name in leaving:
            self._carried[name] = self.state(name).read()
        for name in leaving:
            self._states.pop(name).buffer.free()

    def leave(self, device: str) -> None:
        """Give back all that is on a device; states there are forgotten."""
        for key in [key for key in self._uploaded if key[0] == device]:
            self._uploaded.pop(key).free()
        for name in [name for name, state in self._states.items() if state.device == device]:
            self._states.pop(name).buffer.free()

    def free(self) -> None:
        """Give everything back."""
        for buffer in self._uploaded.values():
            buffer.free()
        self._uploaded.clear()
        self.reset()


def _upload(
    tensor: HostTensor, device: Device, done: int, advance: Callable[[int], None]
) -> Buffer:
    """A copy of a weight; `done` bytes of others were copied before."""
    buffer = device.buffers.allocate(tensor.nbytes)
    try:
        for at in range(0, tensor.nbytes, _PIECE):
            piece = tensor.data[at : at + _PIECE]
            buffer.write(at, piece.data)
            advance(done + at + piece.nbytes)
    except BaseException:
        buffer.free()
        raise
    return buffer
