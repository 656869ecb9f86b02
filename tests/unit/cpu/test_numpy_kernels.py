"""NumPy kernels over any strides and in place; what they compute is the conformance suite's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

import hotplug_cpu
from hotplug import ops
from hotplug.dtypes import Kind, get
from hotplug.errors import DTypeError
from hotplug.node import LEAF_OPS, Node
from hotplug.tensor import TensorType
from hotplug.testing.conformance import case_groups
from hotplug_cpu import numpy_kernels
from hotplug_cpu.numpy_kernels import KERNELS, activation
from hotplug_cpu.tensor_view import AnyArray, TensorView, storage_dtype, storage_shape

RELATIVE = {"f64": 1e-13, "f32": 1e-5, "f16": 1e-3, "bf16": 1e-2}
"""How far two orders of the same sums may lie apart."""


def test_every_op_has_a_kernel() -> None:
    assert set(KERNELS) == set(ops.OPS) - LEAF_OPS


def nodes_of(op: str) -> Iterator[tuple[Node, list[TensorView | None]]]:
    """Nodes of an op in the suite that read leaves alone, and values for their operands."""
    for case in case_groups(slow=False).get(op, ()):
        for node in case.graph.nodes:
            if node.op == op and all(operand.is_leaf for operand in node.operands):
                leaves = [None if item is None else case.leaf(item) for item in node.inputs]
                yield node, [None if x is None else as_view(x.data, x.type) for x in leaves]


def as_view(data: AnyArray, kind: TensorType) -> TensorView:
    return TensorView(kind, data.view(storage_dtype(kind.dtype)).reshape(storage_shape(kind)))


def copied(view: TensorView | None) -> TensorView | None:
    return None if view is None else TensorView(view.type, view.array.copy())


def spread(view: TensorView | None) -> TensorView | None:
    """The same elements in memory with gaps, their axes in another order; blocks stay whole."""
    if view is None:
        return None
    array = view.array
    free = array.ndim - view.dtype.quantised
    order = (*range(free)[::-1], *range(free, array.ndim))
    room = np.zeros([array.shape[a] * (2 if a < free else 1) for a in order], array.dtype)
    gaps = tuple(slice(None, None, 2 if a < free else 1) for a in order)
    moved = room[gaps].transpose(np.argsort(order)) if array.ndim else room
    np.copyto(moved, array)
    return TensorView(view.type, moved)


def run(node: Node, inputs: Sequence[TensorView | None], out: TensorView) -> TensorView:
    with np.errstate(all="ignore"):
        numpy_kernels.run(node, inputs, out)
    return out


def assert_same(found: TensorView, expected: TensorView) -> None:
    if expected.dtype.kind is not Kind.FLOAT:
        np.testing.assert_array_equal(found.array, expected.array)
        return
    bound = RELATIVE[expected.dtype.name]
    wanted = expected.numbers().astype(np.float64)
    largest = np.abs(wanted[np.isfinite(wanted)]).max(initial=0)
    np.testing.assert_allclose(
        found.numbers().astype(np.float64), wanted, rtol=bound, atol=bound * largest
    )


@pytest.mark.parametrize("op", sorted(KERNELS))
def test_strides_change_nothing(op: str) -> None:
    for node, inputs in list(nodes_of(op))[::3]:
        plain = run(node, inputs, TensorView.empty(node.type))
        apart = spread(TensorView.zeros(node.type))
        assert apart is not None
        assert_same(run(node, [spread(x) for x in inputs], apart), plain)


@pytest.mark.parametrize("op", sorted(KERNELS))
def test_results_in_an_operand_s_memory_are_the_same(op: str) -> None:
    row = ops.get(op)
    positions = row.inplace if row.updates is None else (row.updates,)
    for node, inputs in list(nodes_of(op))[::3]:
        plain = run(node, inputs, TensorView.empty(node.type))
        for position in positions:
            own = [copied(x) for x in inputs]
            target = own[position]
            if target is not None and target.type == node.type:
                out = TensorView(node.type, target.array[...])
                assert_same(run(node, own, out), plain)


@pytest.mark.parametrize("op", sorted(KERNELS))
def test_operands_are_not_written(op: str) -> None:
    for node, inputs in list(nodes_of(op))[::5]:
        for view in inputs:
            if view is not None:
                view.array.flags.writeable = False
        run(node, inputs, TensorView.empty(node.type))


def test_erfc_is_good_to_a_few_units_in_the_last_place() -> None:
    x = np.concatenate([np.linspace(-7, 7, 1001), [0, np.inf, -np.inf, 30, -30]])
    expected = np.array([math.erfc(value) for value in x])
    np.testing.assert_allclose(activation._erfc(x), expected, rtol=1e-14, atol=1e-17)
    assert np.isnan(activation._erfc(np.array([np.nan]))[0])


def test_large_quantised_weights_are_decoded_by_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    from hotplug_cpu.numpy_kernels import linear

    a = ops.input(name="a", dtype="f32", shape=(3, 64))
    b = ops.weight(name="b", dtype="q4_1", shape=(50, 64))
    node = ops.matmul(a, b, transpose_b=True)
    rng = np.random.default_rng(5)
    views = [
        TensorView.from_array(rng.standard_normal(item.shape).astype(np.float32), item.dtype)
        for item in (a, b)
    ]
    whole = run(node, views, TensorView.empty(node.type))
    monkeypatch.setattr(linear, "_CACHED", 64 * 7)
    assert_same(run(node, views, TensorView.empty(node.type)), whole)


def test_attention_by_blocks_of_queries_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from hotplug_cpu.numpy_kernels import attention

    rng = np.random.default_rng(6)
    shapes = {"q": (9, 4, 8), "k": (12, 2, 8), "v": (12, 2, 5)}
    leaves = [ops.input(name=n, dtype="f32", shape=s) for n, s in shapes.items()]
    node = ops.scaled_dot_product_attention(*leaves, causal=True, window=4)
    views: list[TensorView | None] = [
        TensorView.from_array(rng.standard_normal(s).astype(np.float32), get("f32"))
        for s in shapes.values()
    ]
    views += [None, None, None]
    whole = run(node, views, TensorView.empty(node.type))
    monkeypatch.setattr(attention, "PIECE", 2 * 12 * 2)
    assert_same(run(node, views, TensorView.empty(node.type)), whole)


def test_rows_that_are_dropped_need_not_be_encodable() -> None:
    table = ops.state(name="t", dtype="q8_0", shape=(4, 32))
    index = ops.input(name="i", dtype="i32", shape=(2,))
    rows = ops.input(name="r", dtype="f32", shape=(2, 32))
    node = ops.scatter_rows(table, index, rows)
    values = np.ones((2, 32), np.float32)
    values[1] = np.nan
    views = [
        TensorView.zeros(table.type),
        TensorView.from_array(np.array([2, -1], np.int32), index.dtype),
        TensorView.from_array(values, rows.dtype),
    ]
    out = run(node, views, TensorView.empty(node.type))
    np.testing.assert_allclose(out.numbers()[2], 1, rtol=1e-2)
    assert not out.numbers()[[0, 1, 3]].any()
    views[1].array[1] = 3
    with pytest.raises(DTypeError):
        run(node, views, TensorView.empty(node.type))


def test_support_is_refused_with_a_reason() -> None:
    device = hotplug_cpu.backend.open(hotplug_cpu.backend.probe()[0])
    x = ops.input(name="x", dtype="f32", shape=(2, 256))
    read_only = ops.weight(name="w", dtype="iq1_s", shape=(3, 256))
    assert device.supports(ops.contiguous(read_only))
    assert device.supports(ops.slice(read_only, starts=(1, 0), stops=(2, 256)))
    assert device.supports(ops.matmul(x, read_only, transpose_b=True))
    assert "iq1_s" in device.supports(ops.cast(x, dtype="iq1_s")).reason
    stranger = Node("no_such_op", (x,), (), x.type)
    assert "no_such_op" in device.supports(stranger).reason
