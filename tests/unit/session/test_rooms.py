"""Values that cross share memory, and nobody ever finds another value in it."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from hotplug import ops
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.placement import Copy, Part, Plan, parallel
from hotplug.placement.rooms import rooms
from hotplug.placement.schedule import Task, tasks, within_a_run
from hotplug.quants import encode
from hotplug.session import Session
from hotplug.tensor import HostTensor
from hotplug.testing.fakes import FakeDevice
from hotplug.testing.graphs import DecoderShape, decoder

SHAPE = DecoderShape(
    layers=3, width=32, hidden=64, heads=4, kv_heads=2, head=8, vocabulary=40, context=8, tokens=4,
    weights="f32",
)  # fmt: skip
INPUTS = {name: np.arange(4, dtype=np.int32) for name in ("tokens", "positions", "rows")}


@pytest.fixture(autouse=True)
def cut_small_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_LEAST", 0)


def session(graph: Graph, count: int = 2) -> Session:
    rng = np.random.default_rng(2)
    weights = {
        name: HostTensor(node.type, encode(rng.standard_normal(node.shape, np.float32), node.dtype))
        for name, node in graph.weights.items()
    }
    return Session([FakeDevice(f"gpu:{n}") for n in range(count)], weights, mode="tensor")


@pytest.mark.parametrize("count", [2, 3])
def test_memory_of_values_does_not_grow_with_layers(count: int) -> None:
    taken = []
    for layers in (3, 6):
        graph = decoder(replace(SHAPE, layers=layers))
        with session(graph, count) as used:
            used.run(graph, INPUTS)
            held = {device: int(uses["values"]) for device, uses in used.memory().items()}
            planned = {device: use.values for device, use in used.plan(graph).memory.items()}
        assert held == planned
        taken.append(held)
    assert taken[0] == taken[1]


@pytest.mark.parametrize("count", [2, 3])
def test_results_are_the_same_to_the_last_bit(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = decoder(SHAPE)
    with session(graph, count) as used:
        shared = used.run(graph, INPUTS)["logits"]
        less = used.memory()["gpu:0"]["values"]
    monkeypatch.setattr(Plan, "rooms", {})
    with session(graph, count) as used:
        np.testing.assert_array_equal(shared, used.run(graph, INPUTS)["logits"])
        assert used.memory()["gpu:0"]["values"] > less


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_in_any_order_that_waits_allow_each_finds_what_it_needs(count: int, depth: int) -> None:
    graph = decoder(replace(SHAPE, heads=8, kv_heads=4))
    with session(graph, count) as used:
        parts = used.plan(graph).parts
    waits = tasks(parts, 4, depth)
    for seed in range(20):
        _play(parts, waits, depth, random.Random(seed))


def _play(
    parts: tuple[Part, ...], waits: dict[Task, set[Task]], depth: int, rng: random.Random
) -> None:
    """Do tasks in a random order; memory holds whose value it is, of which run."""
    shared = rooms(parts, within_a_run(parts))
    memory: dict[tuple[int, str, str], tuple[str, int]] = {}
    brings = {(part.device, name) for part in parts for name in part.graph.inputs}
    bringers = {
        held: next(
            n for n, p in enumerate(parts) if p.device == held[0] and held[1] in p.graph.inputs
        )
        for held in brings
    }
    makers = {name: part.device for part in parts for name, _ in part.graph.outputs}
    missing = {task: set(needed) for task, needed in waits.items()}
    while missing:
        task = rng.choice([one for one, needed in missing.items() if not needed])
        part = parts[task.part]

        def at(device: str, name: str, run: int = task.run) -> tuple[int, str, str]:
            return run % depth, device, shared.get((device, name), name)

        for name in part.graph.inputs:
            maker = makers.get(name, part.device)
            brought = name not in makers or maker != part.device
            if brought and bringers[part.device, name] == task.part:
                if name in makers:
                    assert memory[at(maker, name)] == (name, task.run)
                memory[at(part.device, name)] = name, task.run
        made = {name for name, _ in part.graph.outputs}
        memory.update({at(part.device, name): (name, task.run) for name in made})
        for name in part.graph.inputs:  # what it makes must not have been put over what it reads
            assert memory[at(part.device, name)] == (name, task.run)
        del missing[task]
        for needed in missing.values():
            needed.discard(task)


def test_who_finds_a_value_waits_for_who_brings_it() -> None:
    """The first that needs it on its device, though that may wait for something else, too."""
    here, there, other = (_input(name) for name in ("x", "@a", "@b"))
    made = ops.tanh(here)
    late = ops.exp(ops.input(name="z", dtype="f32", shape=(4,)))
    parts = (
        Part("a:0", Graph.build({"@a": made})),
        Part("c:0", Graph.build({"@b": late})),
        Part(
            "b:0",
            Graph.build({"sum": ops.add(there, other)}),
            (Copy("@a", made, "a:0", "b:0"), Copy("@b", late, "c:0", "b:0")),
        ),
        Part("b:0", Graph.build({"y": ops.tanh(there)}), (Copy("@a", made, "a:0", "b:0"),)),
    )
    assert tasks(parts, 1, 1)[Task(0, 2)] == {Task(0, 0), Task(0, 1)}
    assert Task(0, 2) in tasks(parts, 1, 1)[Task(0, 3)]


def _input(name: str) -> Node:
    return ops.input(name=name, dtype="f32", shape=(4,))
