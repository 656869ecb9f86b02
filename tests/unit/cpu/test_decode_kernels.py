"""Kernels of decoding against NumPy in double precision."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug import dtypes, ops, quants
from hotplug.testing.oracle import evaluate_node
from hotplug_cpu.kernels.sizes import BLOCK, X_BLOCK, X_BYTES, X_SUM, x_row_bytes
from hotplug_cpu.products import LEGACY, QUANTISED, SUPER
from hotplug_cpu.rotation import _frequencies
from hotplug_cpu.tensor_view import convert

# Where the f16 factors of a block lie, so that random bytes make finite weights.
FACTORS = {
    "q2_k": (80, 82),
    "q3_k": (108,),
    "q4_k": (0, 2),
    "q5_k": (0, 2),
    "q6_k": (208,),
}

random = np.random.default_rng(3)


def floats(*shape):
    return random.standard_normal(shape).astype(np.float32)


def bits(value):
    return int(np.float32(value).view(np.uint32))


def k_blocks(dtype, count):
    """Random blocks of a type that is only read."""
    blocks = random.integers(0, 256, (count, dtype.block_bytes), np.uint8)
    for at in FACTORS[dtype.name]:
        factors = random.uniform(-0.1, 0.1, (count, 1)).astype(np.float16)
        blocks[:, at : at + 2] = factors.view(np.uint8)
    return blocks.reshape(-1)


def stored(values, name):
    dtype = dtypes.get(name)
    if name in FACTORS:
        data = k_blocks(dtype, values.size // dtype.block)
        return data, quants.decode(data, dtype, values.shape).astype(np.float64)
    data = np.ascontiguousarray(convert(values, dtype))
    if name in {"f32", "f16"}:
        return data, data.astype(np.float64)
    flat = data.reshape(-1).view(np.uint8)
    return data, quants.decode(flat, dtype, values.shape).astype(np.float64)


def quantised(run_kernel, x, threads=1):
    tokens, width = x.shape
    out = np.zeros((tokens, x_row_bytes(width // BLOCK)), np.uint8)
    words = {"rows": tokens, "blocks": width // BLOCK, "out": out, "copies": 0}
    run_kernel("quantise", threads=threads, x=x, x_stride=4 * width, **words)
    return out


def blocks_of(rows):
    count = rows.shape[1] // x_row_bytes(1)
    return rows[:, : count * X_BLOCK].reshape(len(rows), count, X_BLOCK)


def values_of(rows):
    blocks = blocks_of(rows)
    scale = np.ascontiguousarray(blocks[..., :4]).view(np.float32)
    numbers = np.ascontiguousarray(blocks[..., X_BYTES:]).view(np.int8)
    return (scale * numbers.astype(np.float32)).reshape(len(blocks), -1)


def test_quantise_rounds_to_nearest_and_keeps_sums(run_kernel):
    x = floats(3, 96)
    x[1, 32:64] = 0
    rows = quantised(run_kernel, x, threads=2)
    blocks = blocks_of(rows)
    step = np.abs(x.reshape(3, 3, 32)).max(-1, keepdims=True) / 127
    assert np.all(np.abs(values_of(rows).reshape(3, 3, 32) - x.reshape(3, 3, 32)) <= 0.501 * step)
    numbers = np.ascontiguousarray(blocks[..., X_BYTES:]).view(np.int8)
    total = numbers.sum(-1, dtype=np.int32)
    held = np.ascontiguousarray(blocks[..., X_SUM : X_SUM + 4]).view(np.int32)[..., 0]
    np.testing.assert_array_equal(held, total)
    scaled = np.ascontiguousarray(blocks[..., 4:8]).view(np.float32)[..., 0]
    np.testing.assert_allclose(scaled, step[..., 0] * total, rtol=1e-6, atol=1e-7)
    planes = np.ascontiguousarray(rows[:, 3 * X_BLOCK :]).view(np.float32)
    scales, sums, halves = (
        planes[:, :3],
        planes[:, 3:6],
        np.stack([planes[:, 6:9], planes[:, 9:]], -1),
    )
    np.testing.assert_array_equal(scales, np.ascontiguousarray(blocks[..., :4]).view("f4")[..., 0])
    np.testing.assert_array_equal(sums, scaled)
    half = numbers.reshape(3, 3, 2, 16).sum(-1, dtype=np.int32)
    np.testing.assert_allclose(halves, step * half, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", QUANTISED)
@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 5, 7])
def test_products_of_bytes(run_kernel, name, tokens):
    rows, width = 37, 160 if name in LEGACY else 768
    data, weights = stored(floats(rows, width), name)
    x, add = floats(tokens, width), floats(tokens, rows)
    blocks, out = quantised(run_kernel, x), np.zeros((tokens, rows), np.float32)
    run_kernel(
        f"matvec_{name}",
        threads=2,
        weights=data,
        row_bytes=data.nbytes // rows,
        rows=rows,
        count=width // BLOCK,
        x=blocks,
        x_stride=blocks.shape[1],
        tokens=tokens,
        out=out,
        out_stride=4 * rows,
        add=add,
        add_stride=4 * rows,
        x_copies=0,
        grain=32,
    )
    expected = values_of(blocks).astype(np.float64) @ weights.T + add
    np.testing.assert_allclose(out, expected, atol=2e-5 * np.abs(expected).max())


def test_each_thread_reads_its_own_copy_of_a_token(run_kernel):
    rows, width, grain, threads = 37, 64, 4, 3
    data, weights = stored(floats(rows, width), "q4_1")
    copies, out = quantised(run_kernel, floats(threads, width)), np.zeros(rows, np.float32)
    run_kernel(
        "matvec_q4_1",
        threads=threads,
        weights=data,
        row_bytes=data.nbytes // rows,
        rows=rows,
        count=width // BLOCK,
        x=copies,
        x_stride=copies.shape[1],
        tokens=1,
        out=out,
        out_stride=4 * rows,
        add=0,
        add_stride=0,
        x_copies=copies.shape[1],
        grain=grain,
    )
    of_each = values_of(copies).astype(np.float64) @ weights.T
    ends = [10 * (thread + 1) // threads * grain for thread in range(threads)]
    expected = of_each[np.searchsorted(ends, np.arange(rows), side="right"), np.arange(rows)]
    np.testing.assert_allclose(out, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", [*QUANTISED, "f16", "bf16", "f32"])
@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 5, 6])
def test_products_of_floats(run_kernel, name, tokens):
    rows, width = 19, 768 if name in SUPER else 96
    data, weights = stored(floats(rows, width), name)
    x, bias, out = floats(tokens, width), floats(rows), np.zeros((tokens, rows), np.float32)
    run_kernel(
        f"matvec_{name}_f32",
        threads=3,
        weights=data,
        row_bytes=data.nbytes // rows,
        rows=rows,
        count=width // (BLOCK if dtypes.get(name).quantised else 8),
        x=x,
        x_stride=4 * width,
        tokens=tokens,
        out=out,
        out_stride=4 * rows,
        add=bias,
        add_stride=0,
        x_copies=0,
        grain=4,
    )
    expected = x.astype(np.float64) @ weights.T + bias
    np.testing.assert_allclose(out, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("width", [64, 75])
def test_rms_norm(run_kernel, width):
    x, weight, out = floats(3, width), floats(width), np.zeros((3, width), np.float32)
    words = {"weight": weight, "eps": bits(1e-5), "rows": 3, "count": width}
    run_kernel(
        "rms_norm", threads=2, x=x, x_stride=4 * width, **words, out=out, out_stride=4 * width
    )
    wide = x.astype(np.float64)
    expected = wide / np.sqrt(np.mean(wide**2, -1, keepdims=True) + 1e-5) * weight
    np.testing.assert_allclose(out, expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("layout", ["interleaved", "half"])
@pytest.mark.parametrize("narrow", [False, True])
def test_rope_into_a_cache(run_kernel, layout, narrow):
    tokens, heads, length, rows = 4, 3, 32, 10
    positions = np.array([7, 100_003, -1, 2], np.int32)
    x = ops.input(name="x", dtype="f32", shape=(tokens, heads, length))
    p = ops.input(name="p", dtype="i32", shape=(tokens,))
    extra = {"original_context": 4096, "extrapolation": 1.0, "frequency_scale": 0.25}
    node = ops.rope(x, p, layout=layout, dims=16, **extra)
    values = floats(tokens, heads, length)
    frequencies, magnitude = _frequencies(node)
    table = np.zeros((tokens, 2, 16), np.float32)
    half = layout == "half"
    run_kernel(
        "rope_table",
        threads=2,
        positions=positions,
        wide=0,
        tokens=tokens,
        frequencies=frequencies,
        factors=0,
        pairs=8,
        magnitude=bits(magnitude),
        half=half,
        out=table,
    )
    cache = np.zeros((rows, heads, length), np.float16 if narrow else np.float32)
    indices = np.array([3, 9, -1, 3], np.int64)
    step = cache.itemsize * length
    run_kernel(
        "rope",
        threads=2,
        x=values,
        x_token=4 * heads * length,
        x_head=4 * length,
        tokens=tokens,
        heads=heads,
        length=length,
        table=table,
        turned=16,
        half=half,
        out=cache,
        out_token=heads * step,
        out_head=step,
        indices=indices,
        wide=1,
        out_rows=rows,
        narrow=narrow,
    )
    turned = evaluate_node(node, [values, positions, None])
    expected = np.zeros((rows, heads, length))
    expected[9], expected[3] = turned[1], turned[3]
    np.testing.assert_allclose(cache, expected, atol=2e-3 if narrow else 1e-6)


@pytest.mark.parametrize("name", ["f32", "f16", "bf16", *QUANTISED])
def test_rows_taken_from_a_table(run_kernel, name):
    width = 512 if name in SUPER else 64 if name in LEGACY else 67
    data, values = stored(floats(9, width), name)
    indices = np.array([8, 0, -1, 9, 3], np.int32)
    out = np.full((5, width), 7, np.float32)
    run_kernel(
        f"take_{name}",
        threads=2,
        table=data,
        table_stride=data.nbytes // 9,
        table_rows=9,
        indices=indices,
        wide=0,
        rows=5,
        count=width,
        out=out,
        out_stride=4 * width,
    )
    expected = values[[8, 0, 0, 0, 3]]
    expected[2:4] = 0
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=2e-6)


def test_gate_as_floats_and_as_bytes(run_kernel):
    gate, up = 4 * floats(2, 64), floats(2, 64)
    gate[0, :3] = [-1000, 1000, 0]
    out, blocks = np.zeros((2, 64), np.float32), np.zeros((2, x_row_bytes(2)), np.uint8)
    words = {"gate": gate, "gate_stride": 256, "up": up, "up_stride": 256, "rows": 2}
    run_kernel("swiglu", threads=2, **words, count=64, out=out, out_stride=256)
    wide = gate.astype(np.float64)
    with np.errstate(over="ignore"):
        expected = wide / (1 + np.exp(-wide)) * up
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-6)
    run_kernel("swiglu_quantise", threads=2, **words, blocks=2, out=blocks)
    np.testing.assert_array_equal(blocks, quantised(run_kernel, out))
