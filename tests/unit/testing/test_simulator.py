"""Simulated time is what the schedule, the links and the cost model say, and no more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hotplug import ops
from hotplug.graph import Graph
from hotplug.placement import place
from hotplug.placement.cost import Link
from hotplug.placement.schedule import (
    Cost,
    Task,
    best_depth,
    simulate,
    tasks,
)
from hotplug.testing.fakes import FakeDevice
from hotplug.testing.graphs import DecoderShape, decoder
from hotplug.testing.hardware import GPU, GPUS, LINKS
from hotplug.testing.simulator import Cluster

SHAPE = DecoderShape(
    layers=8, width=256, hidden=512, heads=8, kv_heads=4, head=32, vocabulary=512, context=512,
    tokens=32,
)  # fmt: skip
EVEN = [1.0, 1.0, 1.0, 1.0]


def graph(**changes: object) -> Graph:
    return decoder(replace(SHAPE, **changes))  # type: ignore[arg-type]


def test_one_device_does_one_thing_after_the_other() -> None:
    cluster = Cluster.of("L4", 1)
    plan = cluster.plan(graph())
    one = plan.times[0].compute
    done = cluster.run(plan, 5)
    assert done.seconds == pytest.approx(5 * one)
    assert done.busy == pytest.approx({"sim:0": 1.0})
    assert done.copied == 0


def test_a_pipeline_of_equal_stages_takes_as_long_as_the_formula_says() -> None:
    """Runs and stages less one, of which each takes a stage's time, if values take none."""
    costs = [Cost(f"sim:{n}", 0.0, 2.0) for n in range(4)]
    parts = Cluster.of("L4", 4).plan(graph(), shares=EVEN).parts
    assert [part.device for part in parts] == [cost.device for cost in costs]
    for runs in (1, 3, 10):
        events = simulate(tasks(parts, runs, runs), costs)
        assert max(event.ended for event in events) == 2.0 * (runs + 3)
        # With one set of buffers a stage waits until the next one has read what it made.
        events = simulate(tasks(parts, runs, 1), costs)
        assert max(event.ended for event in events) == 8.0 + 4.0 * (runs - 1)


def test_as_many_buffers_as_are_worth_it() -> None:
    costs = [Cost(f"sim:{n}", 0.0, 2.0) for n in range(4)]
    parts = Cluster.of("L4", 4).plan(graph(), shares=EVEN).parts
    assert best_depth(parts, costs, 1) == (1, 8.0)
    assert best_depth(parts, costs, 12) == (2, 2.0 * 15)
    slow = [Cost("sim:0", 0.0, 100.0), *costs[1:]]  # all the others together are faster
    assert best_depth(parts, slow, 12)[0] == 2


def test_a_task_waits_for_what_it_needs_and_for_its_buffers() -> None:
    parts = Cluster.of("L4", 4).plan(graph(), shares=EVEN).parts
    waits = tasks(parts, 3, 2)
    assert waits[Task(0, 0)] == set()
    assert waits[Task(0, 1)] == {Task(0, 0)}
    assert waits[Task(1, 1)] == {Task(1, 0), Task(0, 1)}
    # The third run writes where the first one's next part read.
    assert waits[Task(2, 0)] >= {Task(1, 0), Task(0, 1)}
    assert max(event.ended for event in simulate(waits, [Cost("a", 0, 1.0)] * 4)) == 12.0


def test_who_reads_a_state_waits_for_those_who_wrote_it_in_the_run_before() -> None:
    """Where it is used by two parts: another device makes something of it, which is added to it."""
    total = ops.state(name="total", dtype="f32", shape=(4,))
    near = ops.add(total, ops.input(name="x", dtype="f32", shape=(4,)))
    grown = ops.add(total, ops.tanh(near))
    devices = [FakeDevice("a:0", unsupported={"tanh"}), FakeDevice("b:0", unsupported={"add"})]
    parts = place(Graph.build({"y": grown}, {"total": grown}), devices).parts
    assert [part.device for part in parts] == ["a:0", "b:0", "a:0"]
    waits = tasks(parts, 2, 2)
    assert waits[Task(0, 0)] == set()
    assert waits[Task(0, 2)] == {Task(0, 0), Task(0, 1)}
    assert waits[Task(1, 0)] == {Task(0, 0), Task(0, 2)}


def test_a_link_carries_one_copy_at_a_time() -> None:
    """Twice as slow a link takes twice as long, when copies are all there is."""
    slow = [replace(GPUS["L4"], host=Link(0.0, bandwidth), flops=1e30) for bandwidth in (1e3, 2e3)]
    seconds = []
    for gpu in slow:
        cluster = Cluster([gpu] * 4)
        plan = cluster.plan(graph(), shares=EVEN)
        done = cluster.run(plan, 6)
        assert done.copied == 6 * sum(copy.nbytes for copy in plan.copies)
        seconds.append(done.seconds)
        assert done.waited["sim:1"] > 0.9 * done.seconds * 6 / 8
    assert seconds[0] == pytest.approx(2 * seconds[1], rel=1e-3)


def test_ways_between_devices() -> None:
    cluster = Cluster([GPUS["H100 SXM5"]] * 9 + [GPUS["L4"]])
    assert [link for _, link in cluster.path("sim:0", "sim:7")] == [LINKS["nvlink4"]] * 2
    assert [link for _, link in cluster.path("sim:0", "sim:8")] == [LINKS["ndr"]] * 2
    assert [link for _, link in cluster.path("sim:8", "sim:9")] == [LINKS["pcie5"], LINKS["pcie4"]]


def test_a_pipeline_is_faster_the_more_devices_it_has() -> None:
    whole = graph(width=1024, hidden=2048, heads=8, head=128)
    seconds = []
    for count in (1, 2, 4, 8):
        cluster = Cluster.of("L4", count)
        seconds.append(cluster.run(cluster.plan(whole, "pipeline"), 16).seconds)
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[0] > 4 * seconds[-1]


def test_pieces_are_computed_at_the_same_time() -> None:
    """Where links cost nothing, two devices take little more than half of the time."""
    free = replace(GPUS["L4"], host=Link(0.0, 1e30), bandwidth=1e9)
    seconds = [
        cluster.run(cluster.plan(graph(width=1024, hidden=4096), "tensor")).seconds
        for cluster in (Cluster([free]), Cluster([free] * 2))
    ]
    assert 0.5 * seconds[0] < seconds[1] < 0.65 * seconds[0]


@pytest.mark.parametrize("name", ["RTX 3090", "H100 SXM5"])
def test_devices_of_a_pipeline_are_equally_busy(name: str) -> None:
    """However fast each is, as far as whole layers allow."""
    cluster = Cluster([GPUS[name], GPUS["L4"]])
    whole = graph(layers=16, width=2048, hidden=8192, head=256, tokens=512)
    balanced = cluster.run(cluster.plan(whole, "pipeline"), 8)
    assert balanced.busy["sim:0"] == pytest.approx(balanced.busy["sim:1"], rel=0.25)
    assert (
        balanced.seconds <= cluster.run(cluster.plan(whole, "pipeline", shares=[1, 1]), 8).seconds
    )


def test_a_gpu_that_is_not_listed() -> None:
    mine = GPU("mine", 1e12, 1e11, 1 << 30, Link(1e-5, 1e10))
    assert Cluster([mine]).run(Cluster([mine]).plan(graph())).seconds > 0
