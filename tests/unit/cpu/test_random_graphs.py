"""Random graphs of integers, where everything is exact: views, values in place, states, copies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import hotplug_cpu
from hotplug import ops
from hotplug.backend import Executable, Partition
from hotplug.errors import GraphError
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.testing.oracle import evaluate
from hotplug.verify import verify
from hotplug_cpu.buffers import HostBufferType
from hotplug_cpu.interpreter import NumpyExecutable
from hotplug_cpu.tensor_view import AnyArray

SHAPE = (4, 6)
RUNS = 3


class Maker:
    """Grows a graph from one generator of random numbers."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[Node] = [
            ops.input(name="x", dtype="i32", shape=SHAPE),
            ops.weight(name="w", dtype="i32", shape=SHAPE),
        ]
        self.states = [ops.state(name=f"s{i}", dtype="i32", shape=SHAPE) for i in range(2)]
        self.nodes += self.states

    def pick(self) -> Node:
        # Late nodes more often, so that chains grow; early ones now and then, so that values live.
        place = self.random.beta(4, 1) * len(self.nodes)
        return self.nodes[int(place)]

    def view(self) -> Node:
        x = self.pick()
        return self.choose(
            lambda: ops.transpose(ops.reshape(x, shape=(6, 4))),
            lambda: ops.reshape(ops.transpose(x), shape=SHAPE),
            lambda: ops.permute(ops.reshape(x, shape=(2, 2, 6)), axes=(1, 0, 2)),
            lambda: ops.transpose(ops.transpose(x)),
        )

    def value(self) -> Node:
        x, y = self.pick(), self.pick()
        return self.choose(
            lambda: ops.add(x, y),
            lambda: ops.sub(x, y),
            lambda: ops.mul(x, x),
            lambda: ops.cumsum(x, axis=int(self.random.integers(2))),
            lambda: ops.roll(x, shifts=(1, -2)),
            lambda: ops.add(x, ops.sum(y, axis=1, keepdims=True)),
            lambda: ops.contiguous(ops.reshape(ops.transpose(x), shape=SHAPE)),
        )

    def update(self, table: Node | None = None) -> Node:
        """Two rows of a value, or of a state, replaced."""
        rows = ops.slice(self.pick(), starts=(1, 0), stops=(3, 6))
        index = ops.cast(ops.slice(self.nodes[0], starts=(0, 0), stops=(1, 2)), dtype="i32")
        return ops.scatter_rows(table or self.pick(), ops.reshape(index, shape=(2,)), rows)

    def next_of(self, state: Node) -> Node:
        """A state's next value: made where it lies, or elsewhere."""
        return self.choose(
            self.pick,
            lambda: ops.contiguous(self.pick()),
            lambda: self.update(state),
            lambda: self.update(self.update(state)),
        )

    def choose(self, *makers: Callable[[], Node]) -> Node:
        node = makers[int(self.random.integers(len(makers)))]()
        return node if node.shape == SHAPE else ops.reshape(node, shape=SHAPE)

    def graph(self) -> Graph:
        for _ in range(int(self.random.integers(5, 25))):
            self.nodes.append(self.choose(self.view, self.value, self.value, self.update))
        updates = {state.name: self.next_of(state) for state in self.states}
        outputs = {f"y{i}": self.pick() for i in range(int(self.random.integers(1, 4)))}
        return Graph.build(outputs, updates)


def graphs(count: int) -> list[Graph]:
    """Random graphs that keep the rules: no value of a state is read after it was overwritten."""
    found: list[Graph] = []
    seed = 0
    while len(found) < count:
        seed += 1
        try:
            graph = Maker(seed).graph()
            verify(graph)
        except GraphError:
            continue
        found.append(graph)
    return found


def interpreted(graph: Graph) -> Executable:
    return NumpyExecutable(Partition(graph), HostBufferType())


def compiled(graph: Graph) -> Executable:
    """By the device: a plan, if there is a compiler, whose steps are NumPy's for integers."""
    device = hotplug_cpu.backend.open(hotplug_cpu.backend.probe()[0])
    return device.compile(Partition(graph))


@pytest.mark.parametrize("make", [interpreted, compiled])
@pytest.mark.parametrize("graph", graphs(60), ids=lambda graph: str(graph.key[:8]))
def test_random_graphs_give_what_the_oracle_gives(
    graph: Graph, make: Callable[[Graph], Executable]
) -> None:
    memory = HostBufferType()
    executable = make(graph)
    nbytes = graph.nodes[0].type.nbytes
    names = [node.name for node in graph.nodes if node.is_leaf]
    names += [f"output:{name}" for name, _ in graph.outputs]
    buffers = {name: memory.allocate(max(nbytes, 96)) for name in names}
    held = {name: array_of(buffer.array) for name, buffer in buffers.items()}
    random = np.random.default_rng(7)
    for name in (*graph.inputs, *graph.weights):
        held[name][...] = random.integers(-3, 6, SHAPE)
    for _ in range(RUNS):
        if "x" in held:
            held["x"][...] = random.integers(-3, 6, SHAPE)
        leaves = {node.name: held[node.name].copy() for node in graph.nodes if node.is_leaf}
        expected = evaluate(graph, leaves)
        executable.run(buffers)
        for name, _ in graph.outputs:
            np.testing.assert_array_equal(held[f"output:{name}"], expected[name])
        for name, _ in graph.updates:
            np.testing.assert_array_equal(held[name], expected[f"state:{name}"])
        for name in (*graph.inputs, *graph.weights):
            np.testing.assert_array_equal(held[name], leaves[name])


def array_of(data: AnyArray) -> AnyArray:
    return data.view(np.int32).reshape(SHAPE)
