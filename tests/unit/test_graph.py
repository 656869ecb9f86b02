"""Graphs: collection, order, leaves, keys, and what `build` and `ordered` refuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotplug import ops
from hotplug.errors import GraphError
from hotplug.graph import Graph
from hotplug.verify import verify_order


def x(name="x", shape=(4,)):
    return ops.input(name=name, dtype="f32", shape=shape)


def state(name="s"):
    return ops.state(name=name, dtype="f32", shape=(4,))


def test_nodes_come_after_their_operands_each_once():
    a = ops.neg(x())
    graph = Graph.build({"y": ops.add(a, ops.mul(a, x()))})

    assert [node.op for node in graph.nodes] == ["input", "neg", "mul", "add"]


def test_a_value_built_twice_is_one_node():
    graph = Graph.build({"y": ops.add(ops.neg(x()), ops.neg(x()))})

    assert len(graph.nodes) == 3


def test_a_chain_longer_than_the_stack():
    node = x()
    for _ in range(20_000):
        node = ops.neg(node)

    assert len(Graph.build({"y": node}).nodes) == 20_001


def test_leaves_by_kind():
    w = ops.weight(name="w", dtype="q4_0", shape=(4, 32))
    total = ops.add(x(), state())
    graph = Graph.build({"y": total, "w": w}, {"s": total})

    assert graph.inputs == {"x": x()}
    assert graph.weights == {"w": w}
    assert graph.states == {"s": state()}


def test_consumers_and_results():
    a = ops.neg(x())
    square = ops.mul(a, a)
    graph = Graph.build({"y": square, "a": a})

    assert graph.consumers == {x(): (a,), a: (square,), square: ()}
    assert graph.results == {square, a}


def test_a_graph_without_results():
    with pytest.raises(GraphError, match="at least one output or update"):
        Graph.build({})
    with pytest.raises(GraphError, match="at least one output or update"):
        Graph.ordered((), {})


def test_two_leaves_of_one_name():
    with pytest.raises(GraphError, match="two different leaves are named 'x'"):
        Graph.build({"a": x(), "b": x(shape=(5,))})


@pytest.mark.parametrize("name", ["x", "nothing"])
def test_an_update_of_no_state(name):
    with pytest.raises(GraphError, match=f"update of '{name}', which is no state"):
        Graph.build({}, {name: ops.neg(x())})


def test_an_update_of_another_type():
    longer = ops.concat(state(), x())

    with pytest.raises(GraphError, match=r"state 's' is f32\[4\] and cannot become f32\[8\]"):
        Graph.build({}, {"s": longer})


def test_a_state_that_is_only_written_is_still_given_by_ordered():
    # Its new value does not depend on the old one, so nothing reaches the leaf.
    new = ops.neg(x())
    graph = Graph.ordered((state(), x(), new), {}, {"s": new})

    assert graph.states == {"s": state()}


def test_ordered_keeps_the_order_and_drops_what_nobody_needs():
    a, b, c = ops.neg(x()), ops.abs(x()), ops.exp(x())
    graph = Graph.ordered((x(), c, b, a), {"y": ops.neg(x()), "z": b})

    assert graph.nodes == (x(), b, a)


def test_ordered_refuses_an_operand_after_its_user():
    node = ops.neg(x())

    with pytest.raises(GraphError, match="comes before its operand x") as caught:
        Graph.ordered((node, x()), {"y": node})

    assert caught.value.op == "neg"


def test_ordered_refuses_a_missing_result():
    with pytest.raises(GraphError, match=r"'y' is neg#\w+, which is not among the nodes"):
        Graph.ordered((x(),), {"y": ops.neg(x())})


def test_keys_tell_graphs_apart():
    a, b = ops.neg(x()), ops.abs(x())
    graphs = [
        Graph.build({"y": a}),
        Graph.build({"z": a}),
        Graph.build({"y": b}),
        Graph.build({"y": a, "z": b}),
        Graph.build({"z": b, "y": a}),
        Graph.build({"y": a}, {"s": ops.add(state(), a)}),
    ]

    assert len({graph.key for graph in graphs}) == len(graphs)


def test_equal_graphs_are_equal():
    graph = Graph.build({"y": ops.neg(x())})

    assert graph == Graph.build({"y": ops.neg(x())})
    assert len({graph, Graph.build({"y": ops.neg(x())})}) == 1
    assert graph != "graph"
    assert repr(graph) == f"<Graph {graph.key[:8]}: 2 nodes>"


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=30))
def test_any_graph_is_in_order(links):
    nodes = [x("a"), x("b")]
    for left, right in links:
        nodes.append(ops.add(nodes[left % len(nodes)], nodes[right % len(nodes)]))

    graph = Graph.build({"y": nodes[-1], "z": nodes[len(nodes) // 2]})

    verify_order(graph)
    assert Graph.ordered(graph.nodes, dict(graph.outputs)).key == graph.key
