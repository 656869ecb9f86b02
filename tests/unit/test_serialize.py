"""Graphs to bytes and back: nothing lost, nothing accepted that is wrong."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import struct
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotplug import ops, serialize
from hotplug.errors import SerializationError
from hotplug.graph import Graph


def small_graph() -> Graph:
    x = ops.input(name="x", dtype="f32", shape=(4, 32))
    w = ops.weight(name="w", dtype="q4_0", shape=(8, 32))
    cache = ops.state(name="k", dtype="f16", shape=(16, 8))
    rows = ops.input(name="rows", dtype="i32", shape=(4,))
    y = ops.matmul(x, w, transpose_b=True)
    held = ops.scatter_rows(cache, rows, y)
    return Graph.build({"y": ops.clamp(y, low=-math.inf, high=3.0)}, {"k": held})


def seal(body: object) -> bytes:
    text = json.dumps(body).encode()
    checksum = hashlib.blake2b(text, digest_size=16).digest()
    return struct.pack("<8sHH16s", b"hotplug\0", *serialize.VERSION, checksum) + text


def opened(data: bytes) -> dict[str, object]:
    return dict(json.loads(data[28:]))


def test_round_trip_keeps_key_order_and_names() -> None:
    graph = small_graph()
    again = serialize.load(serialize.dump(graph))
    assert again == graph
    assert again.nodes == graph.nodes
    assert [n for n, _ in again.outputs] == ["y"]
    assert again.states["k"].type == graph.states["k"].type


def test_bytes_are_the_same_in_another_process() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_serialize as t;"
        "from hotplug import serialize; sys.stdout.buffer.write(serialize.dump(t.small_graph()))"
    )
    here = __file__.rpartition("/")[0] or "."
    out = subprocess.run([sys.executable, "-c", code, here], capture_output=True, check=True)
    assert out.stdout == serialize.dump(small_graph())


def test_negative_infinity_survives() -> None:
    again = serialize.load(serialize.dump(small_graph()))
    clamp = next(node for node in again.nodes if node.op == "clamp")
    assert clamp.param("low") == -math.inf


@pytest.mark.parametrize("size", [0, 1, 7, 27, 28, 40])
def test_truncated(size: int) -> None:
    with pytest.raises(SerializationError):
        serialize.load(serialize.dump(small_graph())[:size])


def test_every_flipped_byte_is_noticed() -> None:
    data = serialize.dump(small_graph())
    for position in range(0, len(data), 7):
        broken = bytearray(data)
        broken[position] ^= 0x11
        if position in (10, 11):  # the minor version, which readers of the same major ignore
            continue
        with pytest.raises(SerializationError):
            serialize.load(broken)


def test_another_major_version_is_named() -> None:
    data = bytearray(serialize.dump(small_graph()))
    data[8] = 9
    with pytest.raises(SerializationError, match=r"format 9\.0"):
        serialize.load(data)


def test_another_op_table_is_refused_with_a_remedy() -> None:
    body = opened(serialize.dump(small_graph())) | {"ops": "0" * 16}
    with pytest.raises(SerializationError, match="op table") as caught:
        serialize.load(seal(body))
    assert caught.value.remedy


@pytest.mark.parametrize(
    "nodes",
    [
        None,
        [["relu", [0], []]],
        [["input", [], ["x", "f32", [4]]], ["relu", [1], []]],
        [["input", [], ["x", "f32", [4]]], ["relu", [True], []]],
        [["input", [], ["x", "f32", [4]]], ["relu", [], []]],
        [["input", [], ["x", "f32", [4]]], ["relu", [None], []]],
        [["input", [], ["x", "f32", [-1]]]],
        [["input", [], ["x", "f32", [1 << 70]]]],
        [["input", [], ["x", "nonsense", [4]]]],
        [["input", [], ["x", "f32", "4"]]],
        [["no_such_op", [], []]],
        [[["list"], [], []]],
        ["input"],
    ],
)
def test_wrong_nodes(nodes: object) -> None:
    body = opened(serialize.dump(small_graph())) | {"nodes": nodes, "outputs": [["y", 0]]}
    body["updates"] = []
    with pytest.raises(SerializationError):
        serialize.load(seal(body))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(SerializationError):
        serialize.load(data)


@given(st.data())
def test_any_parameter_or_operand(data: st.DataObject) -> None:
    """A sealed body with one value replaced is either refused or a valid graph."""
    body = opened(serialize.dump(small_graph()))
    nodes = body["nodes"]
    assert isinstance(nodes, list)
    row = data.draw(st.sampled_from(nodes))
    part = data.draw(st.sampled_from([1, 2]))
    if row[part]:
        row[part][data.draw(st.integers(0, len(row[part]) - 1))] = data.draw(JSON)
    try:
        graph = serialize.load(seal(body))
    except SerializationError:
        return
    assert serialize.load(serialize.dump(graph)) == graph


@given(st.sampled_from(sorted(ops.OPS)), st.data())
def test_any_op_with_any_parameters(name: str, data: st.DataObject) -> None:
    """No rule lets another exception out, whatever it is given."""
    row = ops.get(name)
    leaves = [
        ["input", [], ["a", "f32", [2, 3]]],
        ["input", [], ["i", "i32", [2]]],
        ["weight", [], ["w", "q8_0", [2, 32]]],
    ]
    values = st.integers() | st.floats() | st.booleans() | st.text(max_size=4) | st.none()
    wanted = values | st.lists(st.integers(-4, 40), max_size=4) | st.sampled_from(["f32", "q4_0"])
    operands = data.draw(st.lists(st.integers(0, 2), max_size=4))
    params = [data.draw(wanted) for _ in row.params]
    body = {"ops": ops.fingerprint(), "nodes": [*leaves, [name, operands, params]], "updates": []}
    body["outputs"] = [["y", 3]]
    with contextlib.suppress(SerializationError):
        serialize.load(seal(body))
