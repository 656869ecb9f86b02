"""Products of many tokens with f16, bf16 and Q8_0 weights as words of 16 bits."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug import quants
from hotplug.dtypes import get
from hotplug_cpu.kernels import panels

GUARD = 77.0
LONG = panels.CHUNK_WORDS * panels.BLOCK
BITS = 13
LENGTH = 46363.5
"""How long a block of activations may be as a vector: that of weights times it is under 2^31."""


def rounded(weights, name="f16"):
    """Weights as blocks of words hold them: multiples of a power of two, the largest of 13 bits.

    Of Q8_0 words are the bytes.
    """
    if name == "q8_0":
        return weights
    blocks = weights.reshape(len(weights), -1, panels.BLOCK).astype(np.float64)
    _, exponent = np.frexp(np.abs(blocks).max(-1, keepdims=True))
    words = np.rint(np.ldexp(blocks, BITS - exponent))
    assert np.abs(words).max() * np.sqrt(panels.BLOCK) * LENGTH < 2**31
    return np.ldexp(words, exponent - BITS).reshape(weights.shape)


def parts_of(words, tokens):
    """Scales and words of blocks of activations."""
    blocks = words.reshape(tokens, -1, panels.WORDS_BLOCK)
    scale = np.ascontiguousarray(blocks[..., :4]).view(np.float32).astype(np.float64)
    return scale, np.ascontiguousarray(blocks[..., 4:]).view(np.int16).astype(np.float64)


class Product:
    """Operands of one product, and how it is run."""

    def __init__(self, name, tokens, width, rows):
        rng = np.random.default_rng(tokens + width + rows)
        self.dtype = get(name)
        self.weigh(rng.standard_normal((rows, width)))
        self.x = rng.standard_normal((tokens, width)).astype(np.float32)
        self.residual = rng.standard_normal((tokens, rows)).astype(np.float32)

    def weigh(self, weights):
        weights = np.asarray(weights, np.float32)
        self.stored = quants.encode(weights, self.dtype).view(np.uint8).reshape(-1)
        self.weights = quants.decode(self.stored, self.dtype, weights.shape)

    def run(self, runner, threads, residual=None):
        (tokens, width), rows = self.x.shape, len(self.weights)
        blocks = width // panels.BLOCK
        words = self.words = np.empty(panels.words_bytes(tokens, width), np.uint8)
        activations = {"x": self.x, "x_stride": self.x.strides[0], "tokens": tokens}
        runner("quantise_words", threads=threads, **activations, blocks=blocks, words=words)
        out = np.full((tokens, rows + 3), GUARD, np.float32)
        scratch = panels.gemm_i16_scratch()
        runner(
            "gemm_i16",
            threads=threads,
            unpack=runner.address(f"words_{self.dtype.name}"),
            weights=self.stored,
            row_bytes=self.stored.nbytes // rows,
            rows=rows,
            count=blocks,
            chunk_bytes=self.dtype.nbytes(panels.CHUNK_WORDS * panels.BLOCK),
            x=words,
            x_stride=blocks * panels.WORDS_BLOCK,
            x_chunk=panels.CHUNK_WORDS * panels.WORDS_BLOCK,
            tokens=tokens,
            out=out,
            out_stride=out.strides[0],
            add=0 if residual is None else residual,
            add_stride=0 if residual is None else residual.strides[0],
            scratch=np.empty(threads * scratch, np.uint8),
            scratch_stride=scratch,
        )
        assert (out[:, rows:] == GUARD).all()
        return out[:, :rows]

    def expected(self):
        """Of the words that were made of the activations."""
        scale, words = parts_of(self.words, len(self.x))
        return (scale * words).reshape(self.x.shape) @ rounded(self.weights, self.dtype.name).T


def assert_close(found, expected):
    assert np.abs(found - expected).max() <= 3e-6 * np.abs(expected).max()


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("name", ["f16", "bf16", "q8_0"])
def test_products(run_kernel, name, threads):
    product = Product(name, 13, 3 * LONG + 96, 71)
    found = product.run(run_kernel, threads)
    assert_close(found, product.expected())
    np.testing.assert_array_equal(product.run(run_kernel, threads), found)


@pytest.mark.parametrize("tokens", [1, 2, 5, 6, 7, 20])
@pytest.mark.parametrize("rows", [1, 8, 15, 16, 17, 32, 40])
def test_tails_of_tokens_and_rows(run_kernel, tokens, rows):
    product = Product("f16", tokens, 64, rows)
    assert_close(product.run(run_kernel, 2), product.expected())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("tokens", "rows"), [(7, 1100), (800, 40)])
def test_many_panels_are_one_unit_of_work_and_many_tokens_are_several(
    run_kernel, tokens, rows, threads
):
    product = Product("bf16", tokens, 32, rows)
    assert_close(product.run(run_kernel, threads), product.expected())


def test_a_residual_is_added_once(run_kernel):
    product = Product("bf16", 8, 2 * LONG, 24)
    found = product.run(run_kernel, 2, product.residual)
    assert_close(found, product.expected() + product.residual)


def test_the_largest_words_do_not_overflow(run_kernel):
    product = Product("f16", 6, 64, 16)
    alike = np.linspace(-0.9995, 0.9995, 64)
    product.weigh(np.where(np.arange(16)[:, None] % 2, alike, 0.9995))
    product.x[:3], product.x[3:] = -1, alike
    assert_close(product.run(run_kernel, 1), product.expected())


def test_large_weights_do_not_overflow(run_kernel):
    """What a block's words sum up to, times their scale alone, float32 does not hold."""
    product = Product("bf16", 7, 96, 33)
    product.weigh(product.weights * np.float32(2.0**123))  # 1e37
    product.x *= np.float32(1e-3)
    found = product.run(run_kernel, 2)
    assert np.isfinite(found).all()
    assert_close(found, product.expected())


def test_activations_have_as_many_bits_as_sums_allow(run_kernel):
    product = Product("f16", 9, 96, 1)
    product.x[0], product.x[1] = 1, -1
    product.x[2:4, 5] *= [300, 1e30]  # longer by one number than by all others
    product.x[4, :32] = 0
    product.run(run_kernel, 2)
    scale, words = parts_of(product.words, 9)
    blocks = product.x.reshape(9, 3, 32).astype(np.float64)
    assert (np.abs(scale * words - blocks) <= 0.501 * scale).all()
    assert np.linalg.norm(words, axis=-1).max() < LENGTH
    assert np.abs(words).max() == 32767
    needed = np.maximum(np.abs(blocks).max(-1) / 32767, np.linalg.norm(blocks, axis=-1) / 46360)
    np.testing.assert_allclose(scale[..., 0], needed, rtol=1e-6)


def test_small_numbers_become_nothing(run_kernel):
    product = Product("f16", 3, 64, 8)
    product.x[1, :32] = 1e-41
    product.x[2] = 0
    found = product.run(run_kernel, 1)
    assert_close(found, product.expected())
    assert (parts_of(product.words, 3)[0][1, 0] == 0).all()
    assert (found[2] == 0).all()


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_token_and_row(run_kernel, strange):
    product = Product("f16", 4, 96, 10)
    product.x[1, 40] = strange
    stored = product.stored.view(np.float16).reshape(10, 96)
    stored[7, 3] = strange
    found = product.run(run_kernel, 2)
    assert np.isnan(found[1]).all()
    assert np.isnan(found[:, 7]).all()
    product.x[1, 40] = 0
    rest = np.ix_([0, 2, 3], [*range(7), 8, 9])
    assert_close(found[rest], product.expected()[rest])


def test_words_are_nearer_than_what_others_round_to(run_kernel):
    """llama.cpp rounds activations to the type of the weights."""
    product = Product("bf16", 16, 576, 64)
    exact = product.x.astype(np.float64) @ product.weights.T.astype(np.float64)
    halves = product.x.astype(np.float16).astype(np.float64) @ product.weights.T
    error = np.square(product.run(run_kernel, 2) - exact).mean()
    assert error < np.square(halves - exact).mean()
