"""Compiled kernels over random shapes, with 1, 2, 3 and 8 threads, against the oracle.

Every plan runs twice and must give the same bits. Non-finite numbers stay in their rows.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hotplug import dtypes, ops, quants
from hotplug.backend import Partition
from hotplug.graph import Graph
from hotplug.testing.oracle import evaluate
from hotplug_cpu.buffers import HostBufferType
from hotplug_cpu.plan import PlanExecutable
from hotplug_cpu.tensor_view import convert

MEMORY = HostBufferType()
THREADS = st.sampled_from([1, 2, 3, 8])
LEGACY = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl")
SUPER = ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_xs")
PLAIN = ("f32", "f16", "bf16")
TINY, HUGE = 1e-40, 1e30
"""A number that float32 holds only as a subnormal one, and one whose square it does not hold."""


def random_weights(dtype, shape, random):
    """Their bytes."""
    values = random.standard_normal(shape).astype(np.float32) / np.sqrt(shape[-1])
    return as_bytes(convert(values, dtype))


def run_twice(graph, leaves, threads):
    """The output y, which is the same twice; leaves are bytes."""
    executable = PlanExecutable(Partition(graph, threads=threads), MEMORY, 1)
    assert not any(line.startswith("numpy:") for line in executable.explain())
    node = dict(graph.outputs)["y"]
    buffers = {"output:y": MEMORY.allocate(node.type.nbytes)}
    for name, data in leaves.items():
        buffers[name] = MEMORY.allocate(data.nbytes)
        buffers[name].write(0, memoryview(data))
    found = []
    for _ in range(2):
        executable.run(buffers)
        found.append(buffers["output:y"].as_array(node.type).copy())
    np.testing.assert_array_equal(*found)
    return found[0]


def as_bytes(values):
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)


def rounding(x, largest):
    """By how much numbers may differ once blocks of 32 are integers up to the largest."""
    blocks = np.abs(x).reshape(len(x), x.shape[1] // 32, 32).max(-1).astype(np.float64)
    return np.repeat(blocks * 0.501 / largest, 32, axis=1)


@st.composite
def products(draw):
    name = draw(st.sampled_from([*LEGACY, *SUPER, *PLAIN]))
    step = dtypes.get(name).block if name not in PLAIN else 1
    widths = st.integers(1, 5) if step > 1 else st.integers(1, 90) | st.sampled_from([32, 64, 576])
    width = step * draw(widths)
    tokens = draw(st.integers(1, 8) | st.integers(9, 40))
    precision = draw(st.sampled_from(["exact", "default"]))
    sizes = tokens, draw(st.integers(1, 75)), width
    return name, precision, sizes, draw(THREADS), draw(st.integers(0, 999))


@settings(max_examples=180)
@given(products())
def test_products(case):
    name, precision, (tokens, rows, width), threads, seed = case
    random, dtype = np.random.default_rng(seed), dtypes.get(name)
    data = random_weights(dtype, (rows, width), random)
    x = random.standard_normal((tokens, width)).astype(np.float32)
    x[random.random(x.shape) < 0.1] = TINY
    x[random.integers(tokens), : min(32, width)] = TINY
    strange = int(random.integers(tokens))
    x[strange, random.integers(width)] = random.choice([np.nan, np.inf, -np.inf, HUGE])
    graph = Graph.build(
        {
            "y": ops.matmul(
                ops.input(name="x", dtype="f32", shape=x.shape),
                ops.weight(name="w", dtype=name, shape=(rows, width)),
                transpose_b=True,
                precision=precision,
            )
        }
    )
    found = run_twice(graph, {"x": as_bytes(x), "w": data}, threads)
    weights = quants.decode(data, dtype, (rows, width)).astype(np.float64)
    with np.errstate(all="ignore"):
        expected = x.astype(np.float64) @ weights.T
    ordinary = np.arange(tokens) != strange
    scale = np.abs(x[ordinary]).astype(np.float64) @ np.abs(weights).T
    bound = 3e-6 * scale + 1e-30
    if precision == "default" and name not in PLAIN:
        bound += rounding(x[ordinary], 127) @ np.abs(weights).T
    elif precision == "default" and name != "f32" and width % 32 == 0:
        largest = np.abs(weights) + rounding(weights, 8191)
        bound += rounding(x[ordinary], 8191) @ largest.T
        bound += np.abs(x[ordinary]) @ rounding(weights, 8191).T
    assert (np.abs(found[ordinary] - expected[ordinary]) <= bound).all()
    if not np.isfinite(x[strange]).all():
        # Weights of 0 make NaN of infinity, as rounding does; others keep it.
        assert not np.isfinite(found[strange]).any()


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
    dtype = draw(st.sampled_from(["f16", "f32"]))
    sizes = (tokens, rows, start, kv_heads, group, width, value_width)
    return sizes, dtype, options, draw(THREADS), draw(st.integers(0, 999))


@settings(max_examples=120)
@given(attentions())
def test_attention(case):
    (tokens, rows, start, kv_heads, group, width, value_width), dtype, options, threads, seed = case
    random = np.random.default_rng(seed)
    heads, element = kv_heads * group, {"f16": np.float16, "f32": np.float32}[dtype]
    q = random.standard_normal((tokens, heads, width)).astype(np.float32)
    k = random.standard_normal((rows, kv_heads, width)).astype(element)
    v = random.standard_normal((rows, kv_heads, value_width)).astype(element)
    positions = np.arange(start, start + tokens, dtype=np.int32)
    strange = q[random.integers(tokens)], k[random.integers(start + tokens)]
    strange[random.integers(2)][0, random.integers(width)] = random.choice([np.nan, np.inf, TINY])
    # Nobody sees what lies behind the last position.
    k[start + tokens :] = v[start + tokens :] = np.nan
    graph = Graph.build(
        {
            "y": ops.scaled_dot_product_attention(
                ops.input(name="q", dtype="f32", shape=q.shape),
                ops.input(name="k", dtype=dtype, shape=k.shape),
                ops.input(name="v", dtype=dtype, shape=v.shape),
                positions=ops.input(name="p", dtype="i32", shape=positions.shape),
                causal=True,
                **options,
            )
        }
    )
    leaves = {"q": q, "k": k, "v": v, "p": positions}
    found = run_twice(graph, {name: as_bytes(data) for name, data in leaves.items()}, threads)
    k[start + tokens :] = v[start + tokens :] = 0
    with np.errstate(invalid="ignore"):
        expected = evaluate(graph, leaves)["y"]
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
