"""The memory planner: what lives at the same time never shares bytes, and little is wasted."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotplug import ops
from hotplug.arena import ALIGNMENT, Interval, allocate, lower_bound
from hotplug.graph import Graph
from hotplug.memory import MemoryPlan, Storage, StorageKind, plan
from hotplug.node import Node
from hotplug.testing.graphs import DecoderShape, decoder

intervals = st.lists(
    st.builds(
        lambda size, start, length: Interval(size, start, start + length),
        st.one_of(st.integers(0, 300), st.integers(0, 1 << 20)),
        st.integers(0, 30),
        st.integers(0, 30),
    ),
    max_size=60,
)


@given(intervals, st.sampled_from([1, 16, ALIGNMENT, 4096]))
def test_what_is_in_use_at_one_step_does_not_overlap(
    blocks: list[Interval], alignment: int
) -> None:
    made = allocate(blocks, alignment)
    assert len(made.offsets) == len(blocks)
    for offset, block in zip(made.offsets, blocks, strict=True):
        assert offset % alignment == 0
        assert offset >= 0
        assert offset + block.size <= made.peak or not block.size
    for (i, a), (j, b) in combinations(enumerate(blocks), 2):
        if a.start <= b.end and b.start <= a.end and a.size and b.size:
            below = made.offsets[i] + a.size <= made.offsets[j]
            assert below or made.offsets[j] + b.size <= made.offsets[i]


@given(intervals)
def test_the_peak_lies_between_the_bound_and_all_blocks_side_by_side(
    blocks: list[Interval],
) -> None:
    peak = allocate(blocks).peak
    assert lower_bound(blocks) <= peak
    assert peak <= sum(-(-block.size // ALIGNMENT) * ALIGNMENT for block in blocks)


@given(intervals)
def test_the_bound_is_the_fullest_step(blocks: list[Interval]) -> None:
    steps = range(max((block.end for block in blocks), default=0) + 1)
    fullest = max(sum(b.size for b in blocks if b.start <= step <= b.end) for step in steps)
    assert lower_bound(blocks, 1) == fullest


def chain() -> st.SearchStrategy[Graph]:
    """Graphs of adds, negations and transposed views, with several outputs."""

    def build(choices: list[tuple[int, int, int]], outputs: list[int]) -> Graph:
        nodes: list[Node] = [ops.input(name="x", dtype="f32", shape=(8, 8))]
        for kind, first, second in choices:
            a, b = nodes[first % len(nodes)], nodes[second % len(nodes)]
            makers = (ops.add, lambda a, _: ops.neg(a), _transposed, _rows)
            nodes.append(makers[kind](a, b))
        return Graph.build({f"y{i}": nodes[n % len(nodes)] for i, n in enumerate(outputs)})

    number = st.integers(0, 1000)
    return st.builds(
        build,
        st.lists(st.tuples(st.integers(0, 3), number, number), min_size=1, max_size=40),
        st.lists(number, min_size=1, max_size=3),
    )


def _transposed(a: Node, _b: Node) -> Node:
    return ops.transpose(a)


def _rows(a: Node, b: Node) -> Node:
    upper = ops.slice(a, starts=(0, 0), stops=(4, 8))
    return ops.concat(upper, ops.slice(b, starts=(2, 0), stops=(6, 8)), axis=0)


def storages(made: MemoryPlan) -> list[Storage]:
    return list({id(place.storage): place.storage for place in made.locations.values()}.values())


def check_plan(graph: Graph, made: MemoryPlan) -> None:
    arena = [item for item in storages(made) if item.kind is StorageKind.ARENA]
    for item in arena:
        assert item.offset % ALIGNMENT == 0
        assert item.offset + item.nbytes <= made.arena_bytes
    for a, b in combinations(arena, 2):
        if a.start <= b.end and b.start <= a.end:
            assert a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset
    last_read = {id(node): step for step, node in enumerate(graph.nodes)}
    for step, node in enumerate(graph.nodes):
        for operand in node.operands:
            last_read[id(operand)] = step
    for step, node in enumerate(graph.nodes):
        place = made.locations[node]
        if not node.is_leaf:
            assert place.storage.start <= step
        assert last_read[id(node)] <= place.storage.end
        elements = place.storage.nbytes * node.dtype.block // node.dtype.block_bytes
        steps = zip(place.layout.shape, place.layout.strides, strict=True)
        assert place.layout.offset + sum((n - 1) * stride for n, stride in steps) < elements


@given(chain())
def test_every_value_lies_in_its_storage_for_as_long_as_it_is_read(graph: Graph) -> None:
    check_plan(graph, plan(graph))


@given(chain())
def test_a_value_made_in_place_ends_what_was_there(graph: Graph) -> None:
    """Nobody reads an operand, or a view of it, after another value took its bytes."""
    made = plan(graph)
    origin = {node: node for node in graph.nodes}
    for node in graph.nodes:
        if ops.get(node.op).view and not made.locations[node].copies:
            origin[node] = origin[node.operands[0]]
    results = {origin[node] for node in graph.results}
    for step, node in enumerate(graph.nodes):
        place = made.locations[node]
        if origin[node] is not node or place.shares is None or place.copies:
            continue
        taken = origin[place.shares]
        assert taken not in results
        later = [operand for other in graph.nodes[step + 1 :] for operand in other.operands]
        assert taken not in {origin[operand] for operand in later}


def test_a_chain_is_made_in_one_place() -> None:
    node = ops.input(name="x", dtype="f32", shape=(8, 8))
    for _ in range(10):
        node = ops.neg(node)
    made = plan(Graph.build({"y": ops.sum(node, axis=0)}))
    arena = [item for item in storages(made) if item.kind is StorageKind.ARENA]
    assert [item.nbytes for item in arena] == [made.arena_bytes] == [8 * 8 * 4]


@pytest.mark.parametrize("tokens", [1, 8, 64, 512])
def test_the_models_graph_needs_a_tenth_more_than_the_bound_at_most(tokens: int) -> None:
    graph = decoder(DecoderShape(tokens=tokens))
    made = plan(graph)
    check_plan(graph, made)
    assert made.lower_bound <= made.arena_bytes <= 1.1 * made.lower_bound
