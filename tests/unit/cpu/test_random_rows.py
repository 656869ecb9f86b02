"""Kernels that go row by row, one at a time: random sizes, strides, addresses and strange numbers.

Operands lie at any byte and have any number of bytes between their rows. Every call is made twice,
at other places, must give the same bits, must write nothing beside its result, and must not read
behind the last byte of an operand, where other programs' memory, or none, may be.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.cpu.guarded import guarded
from tests.unit.cpu.test_decode_kernels import bits, blocks_of, stored, values_of

from hotplug import dtypes, ops
from hotplug.testing.oracle import evaluate_node
from hotplug_cpu.kernels.sizes import BLOCK, X_BLOCK, X_BYTES, X_SUM, x_row_bytes
from hotplug_cpu.products import QUANTISED
from hotplug_cpu.rotation import _frequencies

SEEDS = st.integers(0, 9999)
THREADS = st.sampled_from([1, 2, 3, 8])
STRANGE = (np.nan, np.inf, -np.inf, 1e-40, -0.0)
FILL = 0xA5


def strewn(values, random):
    """A copy at any address, with any gaps between rows, in memory that is else full of FILL.

    Half of all copies end where that memory ends.
    """
    strides = [values.itemsize]
    for size in values.shape[:0:-1]:
        strides.insert(0, strides[0] * size + int(random.integers(9)))
    before, behind = (int(n) for n in random.integers(64, size=2))
    last = sum((size - 1) * step for size, step in zip(values.shape, strides, strict=True))
    nbytes = before + last + values.itemsize + behind * int(random.integers(2))
    memory = guarded(nbytes, FILL)
    array = np.ndarray(values.shape, values.dtype, memory, before, strides)
    array[...] = values
    return array


def taken(array):
    """What lies in an array of `strewn`, around which nothing was written."""
    values = array.copy()
    array[...] = np.full(array.itemsize, FILL, np.uint8).view(array.dtype)
    assert (array.base == FILL).all()
    return values


def twice(call, before, random):
    """What a call makes of an array, at two places."""
    found = []
    for _ in range(2):
        out = strewn(before, random)
        call(out)
        found.append(taken(out))
    assert found[0].tobytes() == found[1].tobytes()
    return found[0]


def floats(random, *shape):
    """Numbers of which one is strange and one row, or part of one, small beyond normal numbers."""
    values = random.standard_normal(shape).astype(np.float32)
    values[tuple(random.integers(size) for size in shape[:-1])] *= np.float32(1e-39)
    values[tuple(random.integers(size) for size in shape)] = random.choice(STRANGE)
    return values


def numbers_of_rows(random, count, rows):
    """Which of `rows` each of `count` takes; some of none."""
    wide = random.choice([np.int32, np.int64])
    return strewn(random.integers(-1, rows + 1, count).astype(wide), random)


def close(found, expected, **tolerances):
    np.testing.assert_allclose(found, expected, **tolerances)


def put(table, indices, rows):
    """The table with rows put where indices say, the last one of several."""
    table = table.copy()
    for index, row in zip(indices, rows, strict=True):
        if 0 <= index < len(table):
            table[index] = row
    return table


@settings(max_examples=80)
@given(seed=SEEDS, threads=THREADS)
def test_rope(run_kernel, seed, threads):
    random = np.random.default_rng(seed)
    half, narrow, cached, scaled = (bool(flag) for flag in random.integers(2, size=4))
    tokens, heads = (int(n) for n in random.integers(1, 7, 2))
    turned = (16 if half else 8) * int(random.integers(1, 5))
    length = turned + 8 * int(random.integers(3))
    x = strewn(floats(random, tokens, heads, length), random)
    places = random.integers(-1, 50_000, tokens).astype(random.choice([np.int32, np.int64]))
    factors = strewn(random.uniform(0.5, 40, turned // 2).astype(np.float32), random)
    inputs = [
        ops.input(name="x", dtype="f32", shape=x.shape),
        ops.input(name="p", dtype="i32", shape=places.shape),
        *([ops.input(name="f", dtype="f32", shape=factors.shape)] if scaled else []),
    ]
    node = ops.rope(*inputs, layout="half" if half else "interleaved", dims=turned)
    frequencies, magnitude = _frequencies(node)
    words = {"positions": strewn(places, random), "wide": places.itemsize == 8, "tokens": tokens}
    words |= {"frequencies": strewn(frequencies, random), "factors": factors if scaled else 0}
    words |= {"pairs": turned // 2, "magnitude": bits(magnitude), "half": half}
    table = twice(
        lambda out: run_kernel("rope_table", threads=threads, **words, out=out),
        np.zeros(tokens * 2 * turned, np.float32),
        random,
    )
    rows = int(random.integers(1, 9)) if cached else tokens
    indices = numbers_of_rows(random, tokens, rows)

    def rope(out):
        run_kernel(
            "rope",
            threads=threads,
            x=x,
            x_token=x.strides[0],
            x_head=x.strides[1],
            tokens=tokens,
            heads=heads,
            length=length,
            table=strewn(table, random),
            turned=turned,
            half=half,
            out=out,
            out_token=out.strides[0],
            out_head=out.strides[1],
            indices=indices if cached else 0,
            wide=indices.itemsize == 8,
            out_rows=rows,
            narrow=narrow,
        )

    before = np.full((rows, heads, length), 7, np.float16 if narrow else np.float32)
    with np.errstate(invalid="ignore"):
        result = evaluate_node(node, [x.copy(), places, factors.copy() if scaled else None])
    expected = put(before, indices if cached else range(tokens), result)
    close(twice(rope, before, random), expected, rtol=1e-3 if narrow else 1e-6, atol=3e-6)


@settings(max_examples=80)
@given(seed=SEEDS, threads=THREADS, name=st.sampled_from(["f32", "f16", "bf16", *QUANTISED]))
def test_take(run_kernel, seed, threads, name):
    random = np.random.default_rng(seed)
    step = dtypes.get(name).block
    rows, width = int(random.integers(1, 9)), step * int(random.integers(1, 4 if step > 1 else 90))
    numbers = floats(random, rows, width) if step == 1 else random.standard_normal((rows, width))
    data, values = stored(numbers.astype(np.float32), name)
    table = strewn(data.reshape(rows, -1).view(np.uint8), random)
    indices = numbers_of_rows(random, int(random.integers(1, 12)), rows)

    def take(out):
        run_kernel(
            f"take_{name}",
            threads=threads,
            table=table,
            table_stride=table.strides[0],
            table_rows=rows,
            indices=indices,
            wide=indices.itemsize == 8,
            rows=len(indices),
            count=width,
            out=out,
            out_stride=out.strides[0],
        )

    found = twice(take, np.full((len(indices), width), 7, np.float32), random)
    inside = (indices >= 0) & (indices < rows)
    expected = np.where(inside[:, None], values[np.where(inside, indices, 0)], 0)
    close(found, expected, rtol=0 if step == 1 else 1e-6, atol=0 if step == 1 else 2e-6)


@settings(max_examples=60)
@given(seed=SEEDS, threads=THREADS, half=st.booleans())
def test_scatter_rows(run_kernel, seed, threads, half):
    random = np.random.default_rng(seed)
    shape = int(random.integers(1, 9)), 8 * int(random.integers(1, 12))
    # Some are too large for f16, some are subnormal there.
    numbers = floats(random, *shape) * np.float32(10) ** random.uniform(-9, 6, shape)
    x = strewn(numbers.astype(np.float32), random)
    before = np.full((int(random.integers(1, 9)), shape[1]), 7, np.float16 if half else np.float32)
    indices = numbers_of_rows(random, len(x), len(before))

    def scatter(table):
        run_kernel(
            "scatter_rows",
            threads=threads,
            x=x,
            x_stride=x.strides[0],
            rows=len(x),
            count=x.shape[1],
            indices=indices,
            wide=indices.itemsize == 8,
            table=table,
            table_stride=table.strides[0],
            table_rows=len(table),
            half=half,
        )

    with np.errstate(over="ignore"):
        expected = put(before, indices, x)
    np.testing.assert_array_equal(twice(scatter, before, random), expected)


def norm(x, weight):
    x = x.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-5) * weight


def gate(x, up):
    with np.errstate(over="ignore", invalid="ignore"):
        return x.astype(np.float64) / (1 + np.exp(-x.astype(np.float64))) * up


ROWS = {
    "add": lambda x, other: x + other,
    "rms_norm": norm,
    "swiglu": gate,
    "quantise": lambda x, _: x,
    "rms_norm_quantise": norm,
    "swiglu_quantise": gate,
}
"""What kernels make of rows, and others or a weight for each column."""


def words_of(name, x, other):
    """A kernel's arguments up to the number of rows, by name."""
    if name == "quantise":
        words = {"x": x, "x_stride": x.strides[0]}
    elif name.startswith("rms_norm"):
        words = {"x": x, "x_stride": x.strides[0], "weight": other, "eps": bits(1e-5)}
    else:
        a, b = ("a", "b") if name == "add" else ("gate", "up")
        words = {a: x, f"{a}_stride": x.strides[0], b: other, f"{b}_stride": other.strides[0]}
    return words | {"rows": len(x)}


def operands(name, random, width):
    """Rows, and others or a weight."""
    rows = int(random.integers(1, 9))
    other = random.standard_normal(width if "norm" in name else (rows, width)).astype(np.float32)
    return strewn(3 * floats(random, rows, width), random), strewn(other, random)


@pytest.mark.parametrize("name", ["add", "rms_norm", "swiglu"])
@settings(max_examples=25)
@given(seed=SEEDS, threads=THREADS)
def test_rows_as_floats(run_kernel, name, seed, threads):
    random = np.random.default_rng(seed)
    step = 1 if name == "rms_norm" else 8
    x, other = operands(name, random, step * int(random.integers(1, 100 // step)))

    def call(out):
        words = words_of(name, x, other) | {"count": x.shape[1]}
        run_kernel(name, threads=threads, **words, out=out, out_stride=out.strides[0])

    found = twice(call, np.zeros(x.shape, np.float32), random)
    close(found, ROWS[name](x, other), rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["quantise", "rms_norm_quantise", "swiglu_quantise"])
@settings(max_examples=40)
@given(seed=SEEDS, threads=THREADS)
def test_rows_as_bytes(run_kernel, name, seed, threads):
    """A block with a number that is not finite has no other; the rest are as near as bytes are."""
    random = np.random.default_rng(seed)
    blocks = int(random.integers(1, 8))
    x, other = operands(name, random, BLOCK * blocks)
    nbytes = len(x) * x_row_bytes(blocks)
    alone = name != "swiglu_quantise" and bool(random.integers(2))

    def call(out):
        words = words_of(name, x, other) | {"blocks": blocks, "out": out}
        if name != "swiglu_quantise":
            words["copies"] = nbytes if alone else 0
        run_kernel(name, threads=threads, **words)

    copies = threads if alone else 1
    found = twice(call, np.zeros(copies * nbytes, np.uint8), random).reshape(copies, len(x), -1)
    assert (found == found[0]).all()
    check_bytes(found[0], ROWS[name](x, other).reshape(len(x), blocks, BLOCK))


def check_bytes(rows, expected):
    """Rows of blocks of activations against what they stand for; shape (rows, blocks, BLOCK)."""
    blocks, finite = blocks_of(rows), np.isfinite(expected).all(-1)
    with np.errstate(invalid="ignore"):
        values = values_of(rows).reshape(expected.shape)
    assert not np.isfinite(values[~finite]).any()
    step = np.abs(expected[finite]).max(-1, keepdims=True) / 127
    assert (np.abs(values[finite] - expected[finite]) <= 0.501 * step + 1e-36).all()

    def words(start, dtype=np.float32):
        return np.ascontiguousarray(blocks[..., start : start + 4]).view(dtype)[..., 0]

    numbers = np.ascontiguousarray(blocks[..., X_BYTES:]).view(np.int8).astype(np.int32)
    np.testing.assert_array_equal(words(X_SUM, np.int32), numbers.sum(-1))
    planes = np.ascontiguousarray(rows[:, blocks.shape[1] * X_BLOCK :]).view(np.float32)
    scale, total, *halves = np.moveaxis(planes.reshape(len(rows), 4, -1), 1, 0)
    np.testing.assert_array_equal(scale, words(0))
    np.testing.assert_array_equal(total, words(4))
    with np.errstate(invalid="ignore"):
        for part, held in ((numbers, total), *zip(np.split(numbers, 2, -1), halves, strict=True)):
            np.testing.assert_array_equal(held, scale * part.sum(-1).astype(np.float32))
