"""Products of many tokens, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hotplug import quants
from hotplug.dtypes import DType, get
from hotplug.tensor import TensorType
from hotplug_cpu.kernels import panels

Floats = npt.NDArray[np.float32]

BYTES = {
    "q4_0": "gemm_u4",
    "q4_1": "gemm_u4",
    "q4_k": "gemm_u4",
    "q5_0": "gemm_u5",
    "q5_1": "gemm_u5",
    "q5_k": "gemm_u5",
    "q8_0": "gemm_i8",
    "iq4_nl": "gemm_i8",
    "q3_k": "gemm_halves",
    "q6_k": "gemm_halves",
    "q2_k": "gemm_halves",
    "iq4_xs": "gemm_i8",
}
FLOATS = ["f32", "f16", "bf16", *BYTES]
GUARD = 77.0

# Where the f16 factors of a block lie, so that random bytes make finite weights.
FACTORS = {
    "q2_k": (80, 82),
    "q3_k": (108,),
    "q4_k": (0, 2),
    "q5_k": (0, 2),
    "q6_k": (208,),
}


def weights(
    rng: np.random.Generator, dtype: DType, rows: int, width: int
) -> tuple[npt.NDArray[np.uint8], Floats]:
    """Stored bytes of a matrix and what they stand for."""
    if dtype.name in FACTORS:
        blocks = rng.integers(0, 256, (rows * width // dtype.block, dtype.block_bytes), np.uint8)
        for at in FACTORS[dtype.name]:
            factors = rng.uniform(-0.1, 0.1, (len(blocks), 1)).astype(np.float16)
            blocks[:, at : at + 2] = factors.view(np.uint8)
        stored = blocks.reshape(-1)
    else:
        numbers = rng.standard_normal((rows, width)).astype(np.float32)
        stored = quants.encode(numbers, dtype).view(np.uint8).reshape(-1)
    return stored, quants.decode(stored, dtype, (rows, width))


def quantised(x: Floats) -> Floats:
    """Activations as `quantise_tiles` rounds them."""
    blocks = x.reshape(len(x), -1, panels.BLOCK)
    largest = np.abs(blocks).max(-1, keepdims=True)
    factor = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
    rounded: Floats = np.rint(blocks * factor) * (largest / np.float32(127))
    return rounded.reshape(x.shape)


class Product:
    """Operands of one product, and how it is run."""

    def __init__(self, name: str, tokens: int, width: int, rows: int, *, slack: int = 3) -> None:
        rng = np.random.default_rng(0)
        self.dtype = get(name)
        self.tokens, self.width, self.rows, self.slack = tokens, width, rows, slack
        self.stored, self.weights = weights(rng, self.dtype, rows, width)
        self.x = rng.standard_normal((tokens, width)).astype(np.float32)
        self.x[tokens // 2, : min(width, 32)] = 0
        self.residual = rng.standard_normal((tokens, rows)).astype(np.float32)
        self.out = np.full((tokens, rows + slack), GUARD, np.float32)

    def run(
        self, runner: Any, *, integers: bool, threads: int, residual: Floats | None = None
    ) -> Floats:
        dtype, source = self.dtype, self._activations(runner, integers, threads)
        scratch = panels.gemm_int8_scratch() if integers else panels.gemm_f32_scratch()
        chunk = panels.CHUNK_BLOCKS * panels.BLOCK if integers else panels.CHUNK_FLOATS
        family = "weights" if integers else "floats"
        runner(
            BYTES[dtype.name] if integers else "gemm_f32",
            threads=threads,
            unpack=runner.address(f"{family}_{dtype.name}"),
            weights=self.stored,
            row_bytes=TensorType(dtype, (self.rows, self.width)).row_bytes,
            rows=self.rows,
            count=self.width // panels.BLOCK if integers else self.width,
            chunk_bytes=dtype.nbytes(chunk),
            **source,
            tokens=self.tokens,
            out=self.out,
            out_stride=self.out.strides[0],
            add=0 if residual is None else residual,
            add_stride=0 if residual is None else residual.strides[0],
            scratch=np.empty(threads * scratch, np.uint8),
            scratch_stride=scratch,
        )
        assert (self.out[:, self.rows :] == GUARD).all()
        return self.out[:, : self.rows]

    def _activations(self, runner: Any, integers: bool, threads: int) -> dict[str, Any]:
        """Arguments that tell a product of the activations."""
        stride = self.x.strides[0]
        if not integers:
            return {"x": self.x, "x_stride": stride, "x_chunk": 4 * panels.CHUNK_FLOATS}
        tiles = np.empty(panels.quantised_bytes(self.tokens, self.width), np.uint8)
        runner(
            "quantise_tiles",
            threads=threads,
            x=self.x,
            x_stride=stride,
            tokens=self.tokens,
            blocks=self.width // panels.BLOCK,
            tiles=tiles,
        )
        return {"tiles": tiles}

    def expected(self, *, integers: bool) -> npt.NDArray[np.float64]:
        x = quantised(self.x) if integers else self.x
        product: npt.NDArray[np.float64] = x.astype(np.float64) @ self.weights.T.astype(np.float64)
        return product


def assert_close(found: Floats, expected: npt.NDArray[np.float64]) -> None:
    assert np.abs(found - expected).max() <= 3e-6 * np.abs(expected).max()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", BYTES)
def test_integer_products(run_kernel: Any, name: str, threads: int) -> None:
    product = Product(name, 7, 512, 19)
    found = product.run(run_kernel, integers=True, threads=threads)
    assert_close(found, product.expected(integers=True))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", FLOATS)
def test_float_products(run_kernel: Any, name: str, threads: int) -> None:
    product = Product(name, 7, 512, 19)
    found = product.run(run_kernel, integers=False, threads=threads)
    assert_close(found, product.expected(integers=False))


@pytest.mark.parametrize("tokens", [1, 2, 5, 6, 13])
@pytest.mark.parametrize("rows", [1, 8, 9, 16, 40])
def test_tails_of_tokens_and_rows(run_kernel: Any, tokens: int, rows: int) -> None:
    integers = Product("q4_1", tokens, 64, rows)
    found = integers.run(run_kernel, integers=True, threads=2)
    assert_close(found, integers.expected(integers=True))
    floats = Product("f16", tokens, 64, rows)
    found = floats.run(run_kernel, integers=False, threads=2)
    assert_close(found, floats.expected(integers=False))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("integers", [True, False])
@pytest.mark.parametrize(("tokens", "rows"), [(7, 1100), (1200, 40)])
def test_many_panels_are_one_unit_of_work_and_many_tokens_are_several(
    run_kernel: Any, tokens: int, rows: int, integers: bool, threads: int
) -> None:
    product = Product("q4_0", tokens, 32, rows)
    found = product.run(run_kernel, integers=integers, threads=threads)
    assert_close(found, product.expected(integers=integers))


@pytest.mark.parametrize("name", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("width", [1, 7, 33, 259, 520])
def test_plain_weights_have_any_width(run_kernel: Any, name: str, width: int) -> None:
    product = Product(name, 3, width, 10)
    found = product.run(run_kernel, integers=False, threads=1)
    assert_close(found, product.expected(integers=False))


@pytest.mark.parametrize("name", ["q5_1", "q8_0"])
def test_a_contraction_longer_than_a_chunk(run_kernel: Any, name: str) -> None:
    product = Product(name, 4, 2 * panels.CHUNK_BLOCKS * panels.BLOCK + 96, 17)
    for integers in (True, False):
        found = product.run(run_kernel, integers=integers, threads=2)
        assert_close(found, product.expected(integers=integers))


@pytest.mark.parametrize("integers", [True, False])
def test_a_residual_is_added_once(run_kernel: Any, integers: bool) -> None:
    product = Product("q4_0", 8, 1536, 24)
    found = product.run(run_kernel, integers=integers, threads=2, residual=product.residual)
    assert_close(found, product.expected(integers=integers) + product.residual)


@pytest.mark.parametrize("integers", [True, False])
def test_a_residual_is_added_in_place(run_kernel: Any, integers: bool) -> None:
    product = Product("q4_0", 8, 1536, 24)
    product.out[:, :24] = product.residual
    found = product.run(run_kernel, integers=integers, threads=2, residual=product.out)
    assert_close(found, product.expected(integers=integers) + product.residual)


def test_five_bit_products_serve_four_bits(
    run_kernel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BYTES, "q4_1", "gemm_u5")
    product = Product("q4_1", 5, 96, 16)
    found = product.run(run_kernel, integers=True, threads=1)
    assert_close(found, product.expected(integers=True))


def test_extreme_bytes_do_not_overflow(run_kernel: Any) -> None:
    """All products of a block at their largest, with one sign."""
    for name in ("q4_0", "q5_1", "q8_0"):
        product = Product(name, 6, 64, 16)
        product.x[:] = 1
        dtype = get(name)
        largest = np.linspace(-1, 1, 64 * 16).reshape(16, 64).astype(np.float32)
        largest[:, ::32] = -1
        largest[:, 1:32] = largest[:, 33:] = 1
        product.stored = quants.encode(largest, dtype).view(np.uint8).reshape(-1)
        product.weights = quants.decode(product.stored, dtype, (16, 64))
        found = product.run(run_kernel, integers=True, threads=1)
        assert_close(found, product.expected(integers=True))


def test_more_threads_than_work(run_kernel: Any) -> None:
    product = Product("q4_0", 2, 32, 3)
    found = product.run(run_kernel, integers=True, threads=5)
    assert_close(found, product.expected(integers=True))
