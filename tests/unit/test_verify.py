"""Each rule of the verifier is broken once; good graphs keep them all."""

from __future__ import annotations

import re

import pytest

from hotplug import ops
from hotplug.dtypes import get
from hotplug.errors import GraphError
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.tensor import TensorType
from hotplug.testing.graphs import DecoderShape, decoder
from hotplug.verify import (
    RULES,
    state_chains,
    state_reads,
    updated_operand,
    verify,
    verify_hazards,
    verify_leaves,
    verify_order,
    verify_parts,
    verify_quantised,
    verify_results,
    verify_types,
)

SMALL = DecoderShape(layers=2, width=64, hidden=64, heads=2, kv_heads=1, head=32, vocabulary=40)


def x(name="x", shape=(4,), dtype="f32"):
    return ops.input(name=name, dtype=dtype, shape=shape)


def state(name="s", shape=(6, 4), dtype="f32"):
    return ops.state(name=name, dtype=dtype, shape=shape)


def write(target, index=0):
    at = ops.fill(value=index, dtype="i32", shape=(1,))
    return ops.scatter_rows(target, at, x("row", (1, *target.shape[1:])))


def by_hand(op, inputs, params, dtype, shape):
    return Node(op, tuple(inputs), tuple(params), TensorType(get(dtype), shape))


def graph_by_hand(nodes, outputs=(), updates=()):
    """A graph that nothing has checked."""
    return Graph(tuple(outputs), tuple(updates), tuple(nodes), key="0" * 32)


def of(node):
    return Graph.build({"y": node})


def ordered(*results):
    """Nodes in the order of the results."""
    nodes = {}
    for result in results:
        nodes.update(dict.fromkeys(of(result).nodes))
    return tuple(nodes)


# Good graphs


@pytest.mark.parametrize("tokens", [1, 7])
def test_a_decoder_keeps_every_rule(tokens):
    graph = decoder(DecoderShape(layers=3, tokens=tokens))

    for rule in RULES:
        rule(graph)


def test_every_op_of_a_mixed_graph_is_known():
    scores = ops.softmax(x(shape=(3, 5)), ops.input(name="m", dtype="bool", shape=(5,)))
    joined = ops.concat(scores, ops.abs(scores), axis=1)

    verify(Graph.build({"a": joined, "b": ops.top_k(joined, k=2)}))


def test_an_update_in_place_read_before_and_after_is_fine():
    old = ops.neg(state())
    new = write(state())
    nodes = ordered(old, new, ops.abs(new))

    verify(Graph.ordered(nodes, {"old": old, "new": ops.abs(new)}, {"s": new}))


# Types


def test_a_type_that_the_rule_does_not_give():
    wrong = by_hand("neg", [x()], (), "f32", (5,))

    with pytest.raises(GraphError, match=r"is said to be f32\[5\], but its rule gives f32\[4\]"):
        verify_types(of(wrong))


def test_a_dtype_that_the_rule_does_not_give():
    wrong = by_hand("equal", [x(), x()], (), "f32", (4,))

    with pytest.raises(GraphError, match=r"its rule gives bool\[4\]") as caught:
        verify_types(of(wrong))

    assert caught.value.op == "equal"
    assert caught.value.operands == ("f32[4]", "f32[4]")


def test_operands_that_the_rule_refuses():
    wrong = by_hand("add", [x(), x("z", (3,))], (), "f32", (4,))

    with pytest.raises(GraphError, match="do not broadcast"):
        verify_types(of(wrong))


def test_an_op_that_does_not_exist():
    with pytest.raises(GraphError, match="there is no op 'mystery'"):
        verify_types(of(by_hand("mystery", [x()], (), "f32", (4,))))


@pytest.mark.parametrize("count", [1, 3])
def test_a_wrong_count_of_operands(count):
    wrong = by_hand("add", [x()] * count, (), "f32", (4,))

    with pytest.raises(GraphError, match=f"has {count} operands instead of 2"):
        verify_types(of(wrong))


def test_a_missing_operand():
    wrong = by_hand("add", [x(), None], (), "f32", (4,))

    with pytest.raises(GraphError, match="lacks its operand 'b'"):
        verify_types(of(wrong))


def test_an_optional_operand_may_be_missing():
    verify_types(of(ops.rms_norm(x())))


@pytest.mark.parametrize("params", [(), (("low", 0.0),), (("high", 1.0), ("low", 0.0))])
def test_missing_or_disordered_parameters(params):
    with pytest.raises(GraphError, match="has parameters"):
        verify_types(of(by_hand("clamp", [x()], params, "f32", (4,))))


def test_variadic_ops_take_any_number_of_operands():
    verify_types(of(ops.concat(x(), x("z"), x("w"))))


# Order


def test_a_node_that_is_there_twice():
    node = x()

    with pytest.raises(GraphError, match="is in the graph twice"):
        verify_order(graph_by_hand([node, node], [("y", node)]))


def test_a_node_before_its_operand():
    node = ops.neg(x())

    with pytest.raises(GraphError, match="comes before its operand x"):
        verify_order(graph_by_hand([node, x()], [("y", node)]))


def test_a_missing_operand_node():
    node = ops.neg(x())

    with pytest.raises(GraphError, match="comes before its operand x"):
        verify_order(graph_by_hand([node], [("y", node)]))


@pytest.mark.parametrize("kind", ["outputs", "updates"])
def test_a_result_that_is_no_node(kind):
    stranger = ops.neg(x())

    with pytest.raises(GraphError, match="is the result 'y', but not a node of the graph"):
        verify_order(graph_by_hand([x()], **{kind: [("y", stranger)]}))


# Leaves


def test_two_leaves_of_one_name():
    a, b = x("same"), x("same", (5,))

    with pytest.raises(GraphError, match=r"shares its name 'same' with f32\[4\]"):
        verify_leaves(graph_by_hand([a, b], [("y", a)]))


def test_an_update_of_no_state():
    node = ops.neg(x())

    with pytest.raises(GraphError, match="updates 'x', which is no state"):
        verify_leaves(graph_by_hand([x(), node], updates=[("x", node)]))


def test_an_update_of_another_type():
    node = ops.neg(x())

    with pytest.raises(GraphError, match=r"cannot become state 's', which is f32\[6, 4\]"):
        verify_leaves(graph_by_hand([state(), x(), node], updates=[("s", node)]))


# Results


@pytest.mark.parametrize("kind", ["outputs", "updates"])
def test_a_result_that_is_there_twice(kind):
    node = x()

    with pytest.raises(GraphError, match=f"would be a second {kind[:-1]} 'y'"):
        verify_results(graph_by_hand([node], **{kind: [("y", node), ("y", node)]}))


def test_a_result_without_a_name():
    with pytest.raises(GraphError, match="would be an output without a name"):
        verify_results(graph_by_hand([x()], [("", x())]))


# Quantised values


def test_arithmetic_of_quantised_values():
    weight = ops.weight(name="w", dtype="q4_0", shape=(2, 32))
    wrong = by_hand("neg", [weight], (), "q4_0", (2, 32))

    with pytest.raises(GraphError, match="cannot make q4_0 values"):
        verify_quantised(of(wrong))


def test_quantised_values_may_be_stored_moved_and_encoded():
    weight = ops.weight(name="w", dtype="q4_0", shape=(2, 3, 32))
    moved = ops.contiguous(ops.transpose(weight, axis0=0, axis1=1))
    encoded = ops.cast(x(shape=(2, 32)), dtype="q8_0")
    cache = write(state(dtype="q8_0", shape=(4, 32)))

    verify(Graph.build({"a": moved, "b": encoded, "c": cache}, {"s": cache}))


# Hazards


def test_reading_a_state_after_its_update():
    new = write(state())
    late = ops.neg(state())
    nodes = ordered(new, late)

    with pytest.raises(GraphError, match="reads state 's' after") as caught:
        verify_hazards(Graph.ordered(nodes, {"late": late}, {"s": new}))

    assert caught.value.op == "scatter_rows"
    assert "contiguous" in (caught.value.remedy or "")


def test_reading_a_state_through_a_view_after_its_update():
    new = write(state())
    late = ops.neg(ops.transpose(state()))

    with pytest.raises(GraphError, match="reads state 's' after"):
        verify_hazards(Graph.ordered(ordered(new, late), {"late": late}, {"s": new}))


def test_reading_the_first_of_two_updates_after_the_second():
    first = write(state())
    second = write(first, 1)
    late = ops.neg(first)

    with pytest.raises(GraphError, match="reads state 's' after"):
        verify_hazards(Graph.ordered(ordered(second, late), {"late": late}, {"s": second}))


def test_returning_a_state_as_it_was_before_its_update():
    new = write(state())

    with pytest.raises(GraphError, match="a result reads state 's' after"):
        verify_hazards(Graph.build({"old": state()}, {"s": new}))


def test_an_update_that_reads_what_it_overwrites():
    at = ops.fill(value=0, dtype="i32", shape=(6,))
    new = ops.scatter_rows(state(), at, state())

    with pytest.raises(GraphError, match="reads state 's' after"):
        verify_hazards(Graph.build({}, {"s": new}))


def test_a_copy_taken_before_is_no_hazard():
    old = ops.contiguous(state())
    new = write(state())

    verify_hazards(Graph.ordered(ordered(old, new), {"old": old}, {"s": new}))


def test_states_that_are_replaced_have_no_hazard_until_the_end():
    grown = ops.add(state(), x(shape=(4,)))

    verify_hazards(Graph.build({"old": ops.neg(state()), "new": grown}, {"s": grown}))


def test_states_that_swap_without_a_copy():
    a, b = state("a"), state("b")
    graph = Graph.build({}, {"a": b, "b": a})

    with pytest.raises(GraphError, match="shares memory with state 'b'") as caught:
        verify_hazards(graph)

    assert "contiguous" in (caught.value.remedy or "")


def test_states_that_swap_with_copies():
    a, b = state("a"), state("b")

    verify(Graph.build({}, {"a": ops.contiguous(b), "b": ops.contiguous(a)}))


# Chains


def test_a_chain_goes_through_views_that_keep_the_layout():
    inner = ops.reshape(state(), shape=(3, 2, 4))
    new = ops.reshape(write(inner), shape=(6, 4))

    chains = state_chains(Graph.build({}, {"s": new}))

    assert [node.op for node in chains["s"]] == ["scatter_rows"]


def test_an_update_of_a_part_is_no_chain():
    part = ops.slice(state(), starts=(0, 0), stops=(3, 4))
    new = ops.concat(write(part), part)

    assert state_chains(Graph.build({}, {"s": new})) == {}


def test_a_state_given_back_has_an_empty_chain():
    assert state_chains(Graph.build({}, {"s": state()})) == {"s": ()}


def test_reads_know_their_version():
    old, new = ops.neg(state()), write(state())
    after = ops.abs(new)
    graph = Graph.ordered(ordered(old, new, after), {"old": old, "new": after}, {"s": new})

    reads = [(r.state, r.version, r.reader) for r in state_reads(graph, state_chains(graph))]

    assert reads == [("s", 0, old), ("s", 1, after), ("s", 1, None)]


def test_updated_operand():
    assert updated_operand(write(state())) == state()
    assert updated_operand(ops.neg(x())) is None


# Parts


def crossing(node):
    return ops.input(name="@1", dtype=str(node.dtype), shape=node.shape)


def test_parts_that_hand_over_a_value():
    first = ops.neg(x())
    second = ops.abs(crossing(first))

    verify_parts([Graph.build({"@1": first}), of(second)], {1: ["@1"]})


def test_a_part_that_needs_what_nobody_makes():
    with pytest.raises(GraphError, match="'@1' is needed by part 0 and not made before"):
        verify_parts([of(ops.abs(crossing(x())))], {})


def test_a_part_that_is_sent_what_it_does_not_need():
    with pytest.raises(GraphError, match="part 0 is sent '@9' and has no use for it"):
        verify_parts([of(ops.neg(x()))], {0: ["@9"]})


def test_a_value_made_by_two_parts():
    part = of(ops.neg(x()))

    with pytest.raises(GraphError, match="'y' is made by part 1 and before it"):
        verify_parts([part, part], {})


def test_every_rule_says_which_op_broke_it():
    wrong = by_hand("neg", [x()], (), "f32", (5,))

    with pytest.raises(GraphError) as caught:
        verify(of(wrong))

    assert caught.value.op == "neg"
    assert caught.value.operands == ("f32[4]",)
    assert re.search(r"neg#[0-9a-f]{4}", str(caught.value))
