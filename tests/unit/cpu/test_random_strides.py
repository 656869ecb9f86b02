"""Kernels of products and of attention whose operands lie at any byte, with any gaps between rows.

As in `test_random_rows`, every call is made twice, at other places, must give the same bits, must
write nothing beside its result, and must not read behind an operand's last byte.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.cpu.guarded import guarded
from tests.unit.cpu.test_attention_kernels import Case
from tests.unit.cpu.test_decode_kernels import quantised, stored, values_of
from tests.unit.cpu.test_gemm import BYTES
from tests.unit.cpu.test_gemm import quantised as as_tiles
from tests.unit.cpu.test_random_rows import SEEDS, THREADS, strewn, twice
from tests.unit.cpu.test_words import parts_of, rounded

from hotplug import dtypes
from hotplug_cpu.kernels import panels
from hotplug_cpu.kernels.sizes import BLOCK
from hotplug_cpu.products import QUANTISED

AS_WORDS = st.sampled_from(["f16", "bf16", "q8_0"])
TYPES = st.sampled_from(["f32", "f16", "bf16", *QUANTISED])


class Operands:
    """A product's operands, strewn, and the words that tell kernels of them."""

    def __init__(self, name, seed, tokens):
        self.random = np.random.default_rng(seed)
        self.dtype, self.tokens = dtypes.get(name), tokens
        step = max(32, self.dtype.block)
        self.rows = int(self.random.integers(1, 50))
        self.width = step * int(self.random.integers(1, 4 if step > 32 else 20))
        data, self.weights = stored(self.normal(self.rows, self.width), name)
        packed = np.ascontiguousarray(data).view(np.uint8).reshape(self.rows, -1)
        self.packed = strewn(packed, self.random)
        self.x = strewn(self.normal(tokens, self.width), self.random)
        self.add = strewn(self.normal(tokens, self.rows), self.random)

    def normal(self, *shape):
        return self.random.standard_normal(shape).astype(np.float32)

    def scratch(self, threads, nbytes):
        return {"scratch": guarded(threads * nbytes), "scratch_stride": nbytes}

    def weight_words(self):
        return {"weights": self.packed, "row_bytes": self.packed.strides[0], "rows": self.rows}

    def result(self, call):
        """What `call(words)` makes of a product's last words, less what was added."""

        def run(out):
            words = {"out": out, "out_stride": out.strides[0]}
            call(words | {"add": self.add, "add_stride": self.add.strides[0]})

        return twice(run, np.zeros((self.tokens, self.rows), np.float32), self.random) - self.add

    def check(self, found, x):
        expected = x.astype(np.float64) @ self.weights.T
        scale = np.abs(x).astype(np.float64) @ np.abs(self.weights).T
        assert (np.abs(found - expected) <= 3e-6 * scale + 1e-6).all()

    def wide(self, run_kernel, kernel, threads, words, nbytes):
        """A product of many tokens."""
        scratch = self.scratch(threads, nbytes)
        return self.result(
            lambda rest: run_kernel(kernel, threads=threads, **words, **rest, **scratch)
        )


@settings(max_examples=60)
@given(seed=SEEDS, threads=THREADS, name=TYPES, tokens=st.integers(1, 6))
def test_few_tokens_as_floats(run_kernel, seed, threads, name, tokens):
    its = Operands(name, seed, tokens)
    words = its.weight_words() | {"count": its.width // (BLOCK if name in QUANTISED else 8)}
    words |= {"x": its.x, "x_stride": its.x.strides[0], "tokens": tokens}
    ends = {"x_copies": 0, "grain": 4}
    found = its.result(
        lambda rest: run_kernel(f"matvec_{name}_f32", threads=threads, **words, **rest, **ends)
    )
    its.check(found, its.x)


@settings(max_examples=60)
@given(seed=SEEDS, threads=THREADS, name=st.sampled_from(QUANTISED), tokens=st.integers(1, 6))
def test_few_tokens_as_bytes(run_kernel, seed, threads, name, tokens):
    its = Operands(name, seed, tokens)
    blocks = strewn(quantised(run_kernel, its.x.copy()), its.random)
    words = its.weight_words() | {"count": its.width // BLOCK}
    words |= {"x": blocks, "x_stride": blocks.strides[0], "tokens": tokens}
    ends = {"x_copies": 0, "grain": 4}
    found = its.result(
        lambda rest: run_kernel(f"matvec_{name}", threads=threads, **words, **rest, **ends)
    )
    its.check(found, values_of(blocks))


@settings(max_examples=60)
@given(seed=SEEDS, threads=THREADS, name=st.sampled_from(QUANTISED), tokens=st.integers(1, 20))
def test_many_tokens_as_bytes(run_kernel, seed, threads, name, tokens):
    its = Operands(name, seed, tokens)
    words = {"x": its.x, "x_stride": its.x.strides[0], "tokens": tokens}
    words |= {"blocks": its.width // BLOCK}
    tiles = twice(
        lambda out: run_kernel("quantise_tiles", threads=threads, **words, tiles=out),
        np.zeros(panels.quantised_bytes(tokens, its.width), np.uint8),
        its.random,
    )
    tiles = strewn(tiles, its.random)
    words = {"unpack": run_kernel.address(f"weights_{name}"), **its.weight_words()}
    words |= {"count": its.width // BLOCK}
    words |= {"chunk_bytes": its.dtype.nbytes(panels.CHUNK_BLOCKS * BLOCK)}
    words |= {"tiles": tiles, "tokens": tokens}
    nbytes = panels.gemm_int8_scratch()
    its.check(its.wide(run_kernel, BYTES[name], threads, words, nbytes), as_tiles(its.x.copy()))


@settings(max_examples=60)
@given(seed=SEEDS, threads=THREADS, name=TYPES, tokens=st.integers(1, 30), packs=st.booleans())
def test_many_tokens_as_floats(run_kernel, seed, threads, name, tokens, packs):
    its = Operands(name, seed, tokens)
    x, stride, chunk = its.x, its.x.strides[0], 4 * panels.CHUNK_FLOATS
    if packs:
        words = {"x": x, "x_stride": stride, "tokens": tokens, "width": its.width}
        x = strewn(np.zeros(panels.packed_bytes(tokens, its.width), np.uint8), its.random)
        run_kernel("pack_rows", threads=threads, **words, out=x)
        stride, chunk = panels.PACKED_STRIDE, tokens * panels.PACKED_STRIDE
    words = {"unpack": run_kernel.address(f"floats_{name}"), **its.weight_words()}
    words |= {"count": its.width, "chunk_bytes": its.dtype.nbytes(panels.CHUNK_FLOATS)}
    words |= {"x": x, "x_stride": stride, "x_chunk": chunk, "tokens": tokens}
    nbytes = panels.gemm_f32_scratch()
    its.check(its.wide(run_kernel, "gemm_f32", threads, words, nbytes), its.x)


@settings(max_examples=40)
@given(seed=SEEDS, threads=THREADS, name=AS_WORDS, tokens=st.integers(1, 30))
def test_many_tokens_as_words(run_kernel, seed, threads, name, tokens):
    its = Operands(name, seed, tokens)
    count, chunk = its.width // BLOCK, panels.CHUNK_WORDS
    words = {"x": its.x, "x_stride": its.x.strides[0], "tokens": tokens, "blocks": count}
    x = twice(
        lambda out: run_kernel("quantise_words", threads=threads, **words, words=out),
        np.zeros(panels.words_bytes(tokens, its.width), np.uint8),
        its.random,
    ).reshape(tokens, -1)
    scale, numbers = parts_of(x, tokens)
    x = strewn(x, its.random)
    words = {"unpack": run_kernel.address(f"words_{name}"), **its.weight_words(), "count": count}
    words |= {"chunk_bytes": its.dtype.nbytes(chunk * BLOCK), "x": x, "x_stride": x.strides[0]}
    words |= {"x_chunk": chunk * panels.WORDS_BLOCK, "tokens": tokens}
    found = its.wide(run_kernel, "gemm_i16", threads, words, panels.gemm_i16_scratch())
    its.weights = rounded(its.weights, name)
    its.check(found, (scale * numbers).reshape(its.x.shape))


@settings(max_examples=60)
@given(seed=SEEDS, threads=THREADS, dtype=st.sampled_from(["f16", "f32"]), few=st.booleans())
def test_attention(run_kernel, seed, threads, dtype, few):
    random = np.random.default_rng(seed)
    kv_heads, group, start = int(random.integers(1, 4)), int(random.integers(1, 5)), 90
    case = Case(
        tokens=int(random.integers(1, 12)),
        heads=kv_heads * group,
        kv_heads=kv_heads,
        width=8 * int(random.integers(1, 6)),
        value_width=8 * int(random.integers(1, 6)),
        rows=start + 12,
        start=start,
        dtype=dtype,
        sinks=bool(random.integers(2)),
        seed=seed,
    )
    expected = case.expected().reshape(case.tokens, -1)
    for name in ("q", "k", "v"):
        rows = getattr(case, name)
        setattr(case, name, strewn(rows.reshape(len(rows), -1), random))
    case.positions = strewn(case.positions, random)
    if case.sink_scores is not None:
        case.sink_scores = strewn(case.sink_scores, random)

    splits = int(random.integers(1, 5))

    def attend(out):
        case.out = out
        if few:
            case.split(run_kernel, threads, splits)
        else:
            case.whole(run_kernel, threads)

    found = twice(attend, np.zeros(expected.shape, np.float32), random)
    assert np.abs(found - expected).max() <= 2e-5
