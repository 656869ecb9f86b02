"""Attention and rows over random shapes, with 1, 2, 3 and 8 threads, against the oracle.

Every plan runs twice and must give the same bits. Operands lie alone or within larger ones.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hotplug import ops
from hotplug.backend import Partition
from hotplug.graph import Graph
from hotplug.testing.oracle import evaluate, evaluate_node
from hotplug_cpu.buffers import HostBufferType
from hotplug_cpu.plan import PlanExecutable

MEMORY = HostBufferType()
THREADS = st.sampled_from([1, 2, 3, 8])
TINY = 1e-40
"""A number that float32 holds only as a subnormal one."""


def run_twice(graph, leaves, threads, *kernels):
    """The output y, which is the same twice, by a plan that has these kernels; leaves are bytes."""
    executable = PlanExecutable(Partition(graph, threads=threads), MEMORY, 1)
    used = {line.partition(":")[0] for line in executable.explain()}
    assert used >= {*kernels}, used
    node = dict(graph.outputs)["y"]
    buffers = {"output:y": MEMORY.allocate(node.type.nbytes)}
    for name, data in leaves.items():
        buffers[name] = MEMORY.allocate(data.nbytes)
        buffers[name].write(0, memoryview(data))
    found = []
    for _ in range(2):
        buffers["output:y"].write(0, memoryview(bytes(node.type.nbytes)))
        executable.run(buffers)
        found.append(buffers["output:y"].as_array(node.type).copy())
    np.testing.assert_array_equal(*found)
    return found[0]


def as_bytes(values):
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)


LIES = ("alone", "columns", "every other row", "behind others", "turned")
"""How values may lie in a leaf; kernels read all but the last as they lie."""


def lying(name, values, how, random):
    """Values along axis 0 in a larger leaf: its contents, and the node that the values are."""
    rows, gap = values.reshape(len(values), -1), int(random.integers(1, 10))
    count, width = rows.shape
    starts, stops, steps = (0, 0), (count, width), (1, 1)
    if how == "columns":
        held = np.pad(rows, ((0, 0), (gap, 3)))
        starts, stops = (0, gap), (count, gap + width)
    elif how == "every other row":
        held = np.repeat(rows, 2, axis=0)
        held[::2] = 7
        starts, stops, steps = (1, 0), (2 * count, width), (2, 1)
    elif how == "behind others":
        held = np.pad(rows.reshape(-1), (gap, 0))
        starts, stops, steps = (gap,), (gap + rows.size,), (1,)
    else:
        held = np.swapaxes(values, 0, 1) if how == "turned" else values
    dtype = {"float16": "f16", "float32": "f32"}[values.dtype.name]
    leaf = ops.input(name=name, dtype=dtype, shape=held.shape)
    if how == "turned":
        return held, ops.transpose(leaf, axis0=0, axis1=1)
    if how != "alone":
        leaf = ops.slice(leaf, starts=starts, stops=stops, steps=steps)
    return held, ops.reshape(leaf, shape=values.shape)


@st.composite
def attentions(draw):
    kv_heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 7))
    width, value_width = (8 * draw(st.integers(1, 9)) for _ in range(2))
    tokens = draw(st.integers(1, 6) | st.integers(7, 40))
    rows = draw(st.integers(tokens, 200))
    start = draw(st.integers(0, rows - tokens))
    options = {
        "window": draw(st.just(0) | st.integers(1, rows)),
        "softcap": draw(st.sampled_from([0.0, 2.5])),
    }
    dtype, lies = (
        draw(st.sampled_from(["f16", "f32"])),
        [draw(st.sampled_from(LIES)) for _ in "qkv"],
    )
    sizes = (tokens, rows, start, kv_heads, group, width, value_width)
    return sizes, dtype, options, lies, draw(THREADS), draw(st.integers(0, 999))


@settings(max_examples=150)
@given(attentions())
def test_attention(case):
    """A number that is not finite gives what it gives in the oracle."""
    (tokens, rows, start, kv_heads, group, width, value_width), dtype, options, lies, *rest = case
    threads, random, compiled = rest[0], np.random.default_rng(rest[1]), "turned" not in lies
    element = {"f16": np.float16, "f32": np.float32}[dtype]
    q = random.standard_normal((tokens, kv_heads * group, width)).astype(np.float32)
    k = random.standard_normal((rows, kv_heads, width)).astype(element)
    v = random.standard_normal((rows, kv_heads, value_width)).astype(element)
    positions = np.arange(start, start + tokens, dtype=np.int32)
    # A row of values that only some tokens see may spoil those that are computed with them.
    seen_by_all = max(0, start + tokens - options["window"]) if options["window"] else 0, start + 1
    places = [q[random.integers(tokens)], k[random.integers(start + tokens)]]
    if seen_by_all[0] < seen_by_all[1]:
        places.append(v[random.integers(*seen_by_all)])
    row = places[random.integers(len(places))][random.integers(kv_heads)]
    row[random.integers(len(row))] = random.choice([np.nan, np.inf, -np.inf, TINY])
    if compiled:  # nobody sees what lies behind the last position
        k[start + tokens :] = v[start + tokens :] = np.nan
    leaves, nodes = {"p": positions}, []
    for name, values, how in zip("qkv", (q, k, v), lies, strict=True):
        leaves[name], node = lying(name, values, how, random)
        nodes.append(node)
    places = ops.input(name="p", dtype="i32", shape=positions.shape)
    y = ops.scaled_dot_product_attention(*nodes, positions=places, causal=True, **options)
    graph = Graph.build({"y": y})
    kernels = [f"attention{'' if tokens > 5 else '_split'}_{dtype}"] if compiled else []
    given = {name: as_bytes(data) for name, data in leaves.items()}
    found = run_twice(graph, given, threads, *kernels)
    k[start + tokens :] = v[start + tokens :] = 0
    expected = evaluate_node(y, [q, k, v, None, positions, None])
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-5)


ROWS = {
    "add": lambda x, y, _: ops.add(x, y),
    "rms_norm": lambda x, _, w: ops.rms_norm(x, w),
    "swiglu": lambda x, y, _: ops.swiglu(x, y),
}
"""What kernels do row by row: with x and y of one shape and a weight for each column."""


@settings(max_examples=60)
@given(st.data())
def test_rows(data):
    """Numbers that are not finite give what they give in the oracle, and nothing else changes."""
    random = np.random.default_rng(data.draw(st.integers(0, 999)))
    rows, width = 8 * data.draw(st.integers(1, 2)), data.draw(st.integers(1, 80))
    leaves = {name: random.standard_normal((rows, width)).astype(np.float32) for name in "xy"}
    leaves["w"] = random.standard_normal(width).astype(np.float32)
    strange = [np.nan, np.inf, -np.inf, TINY, 0.0]
    leaves["x"][random.integers(rows), random.integers(width)] = random.choice(strange)
    leaves["x"][random.integers(rows)] *= np.float32(TINY)
    inputs = [ops.input(name=k, dtype="f32", shape=v.shape) for k, v in leaves.items()]
    op = data.draw(st.sampled_from(sorted(ROWS)))
    graph = Graph.build({"y": ROWS[op](*inputs)})
    given = {name: as_bytes(leaves[name]) for name in graph.inputs}
    found = run_twice(graph, given, data.draw(THREADS))
    with np.errstate(all="ignore"):
        expected = evaluate(graph, leaves)["y"]
    np.testing.assert_allclose(found, expected, rtol=3e-6, atol=1e-6)
