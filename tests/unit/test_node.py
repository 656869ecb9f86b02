"""Nodes: identity by key, operands, names."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from hotplug import ops

KEY_PROGRAM = """
from hotplug import ops
from hotplug.graph import Graph
x = ops.input(name="x", dtype="f16", shape=(2, 3))
w = ops.weight(name="w", dtype="q4_0", shape=(5, 32))
y = ops.clamp(ops.cast(x, dtype="f32"), low=-1.0, high=float("inf"))
z = ops.take(w, ops.input(name="i", dtype="i32", shape=()))
s = ops.state(name="s", dtype="f32", shape=(2, 3))
graph = Graph.build({"y": ops.slice(y, starts=(0, 1), stops=(2, 3)), "z": z}, {"s": ops.add(y, s)})
print(y.key, graph.key, ops.fingerprint())
"""


def x(name="x", shape=(2, 3)):
    return ops.input(name=name, dtype="f32", shape=shape)


def test_equal_computations_are_one_node():
    assert ops.add(x(), x("y")) == ops.add(x(), x("y"))
    assert len({ops.add(x(), x("y")), ops.add(x(), x("y"))}) == 1


@pytest.mark.parametrize(
    "other",
    [
        ops.add(x("y"), x()),
        ops.sub(x(), x("y")),
        ops.add(x(), x("z")),
        ops.add(x(shape=(1, 3)), x("y")),
    ],
)
def test_other_computations_are_other_nodes(other):
    assert other != ops.add(x(), x("y"))


def test_parameters_are_part_of_the_key():
    keys = {
        ops.clamp(x(), low=low, high=high).key
        for low, high in ((0.0, 1.0), (0.0, 2.0), (-1.0, 1.0), (-0.0, 1.0))
    }

    assert len(keys) == 4


def test_an_absent_operand_is_part_of_the_key():
    weight = ops.weight(name="w", dtype="f32", shape=(3,))

    assert ops.layer_norm(x(), weight).key != ops.layer_norm(x(), None, weight).key


def test_a_node_equals_nothing_else():
    assert x() != "x"
    assert x() is not None


def test_operands_leave_out_what_is_absent():
    bias = ops.weight(name="b", dtype="f32", shape=(3,))
    node = ops.layer_norm(x(), None, bias)

    assert node.inputs == (x(), None, bias)
    assert node.operands == (x(), bias)


def test_names():
    node = ops.neg(x())

    assert x().name == "x"
    assert x().is_leaf
    assert not node.is_leaf
    assert node.name == f"neg#{node.key[:4]}"
    assert repr(node) == f"<Node {node.name} f32[2, 3]>"


def test_parameters_by_name():
    node = ops.clamp(x(), low=-1.0, high=2.0)

    assert node.param("low") == -1.0
    with pytest.raises(KeyError, match="middle"):
        node.param("middle")


def test_nodes_are_immutable():
    with pytest.raises(AttributeError):
        x().op = "other"


def test_nodes_survive_pickling():
    node = ops.neg(x())

    assert pickle.loads(pickle.dumps(node)) == node


def test_keys_are_the_same_in_every_process():
    # Python's own hashes differ by process, as the seeds do; keys must not.
    found = {
        subprocess.run(
            [sys.executable, "-c", KEY_PROGRAM],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }

    assert len(found) == 1
    node_key, graph_key, _ = found.pop().split()
    assert len(node_key) == len(graph_key) == 32
