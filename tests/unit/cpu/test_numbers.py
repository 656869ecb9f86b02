"""Numbers as kernels read, write and compute them: every one of 16 bits, exponentials, angles."""

from __future__ import annotations

import numpy as np
import pytest
from tests.unit.cpu.test_decode_kernels import bits

from hotplug import dtypes, quants

CODES = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
"""All numbers of 16 bits: signed zeros, subnormal numbers, infinities and NaNs among them."""


def assert_same_bits(found, expected):
    """NaNs have many, of which any will do."""
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    kept = ~np.isnan(expected)
    unsigned = np.dtype(f"u{found.itemsize}")
    np.testing.assert_array_equal(found.view(unsigned)[kept], expected.view(unsigned)[kept])


@pytest.mark.parametrize("width", [256, 7])  # in vectors, and one by one
@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_every_number_of_16_bits_is_read_exactly(run_kernel, name, width):
    table = CODES[: len(CODES) // width * width].reshape(-1, width)
    rows = np.arange(len(table), dtype=np.int32)
    out = np.zeros(table.shape, np.float32)
    run_kernel(
        f"take_{name}",
        table=table,
        table_stride=2 * width,
        table_rows=len(table),
        indices=rows,
        wide=0,
        rows=len(table),
        count=width,
        out=out,
        out_stride=4 * width,
    )
    assert_same_bits(out, quants.decode(table.view(np.uint8), dtypes.get(name), table.shape))


def test_floats_become_the_nearest_half_and_of_two_the_even_one(run_kernel):
    halves = np.unique(CODES.view(np.float16)[np.isfinite(CODES.view(np.float16))])
    halves = halves.astype(np.float32)
    ties = np.append((halves[1:] + halves[:-1]) / 2, [65520, -65520]).astype(np.float32)
    beside = [np.nextafter(ties, np.float32(side)) for side in (-np.inf, np.inf)]
    rest = np.array([np.inf, -np.inf, np.nan, -0.0, 1e-45, -1e-45, 1e-30, 3e38], np.float32)
    values = np.concatenate([halves, ties, *beside, rest])
    values = np.pad(values, (0, -len(values) % 8))
    table = np.zeros((1, len(values)), np.float16)
    run_kernel(
        "scatter_rows",
        x=values,
        x_stride=values.nbytes,
        rows=1,
        count=len(values),
        indices=np.zeros(1, np.int32),
        wide=0,
        table=table,
        table_stride=table.nbytes,
        table_rows=1,
        half=1,
    )
    with np.errstate(over="ignore"):
        assert_same_bits(table[0], values.astype(np.float16))


def test_exponentials_are_right_to_a_few_units_of_the_last_place(run_kernel):
    """A gate of a very negative number is nearly that number times its exponential."""
    gate = np.linspace(-120, 120, 1 << 15).astype(np.float32)
    up, out = np.ones_like(gate), np.zeros_like(gate)
    words = {"gate": gate, "gate_stride": 0, "up": up, "up_stride": 0, "rows": 1}
    run_kernel("swiglu", **words, count=len(gate), out=out, out_stride=0)
    wide = gate.astype(np.float64)
    expected = wide / (1 + np.exp(-wide))
    computed = np.abs(expected) > 1e-36  # where e^-x is beyond float32 it counts as infinite
    np.testing.assert_allclose(out[computed], expected[computed], rtol=4e-7)
    assert (out[~computed] == 0).sum() > 1000
    assert np.abs(out[~computed]).max() < 1e-36


def test_angles_of_a_million_radians_have_exact_sines(run_kernel):
    frequencies = 10000.0 ** (-np.arange(32) / 32)
    positions = np.array([0, 1, 2, 3, 777, 131_071, 524_287, 1_000_000], np.int32)
    table = np.zeros((len(positions), 2, 64), np.float32)
    run_kernel(
        "rope_table",
        positions=positions,
        wide=0,
        tokens=len(positions),
        frequencies=frequencies,
        factors=0,
        pairs=32,
        magnitude=bits(1),
        half=1,
        out=table,
    )
    angles = positions[:, None] * frequencies
    own, partner = np.moveaxis(table.reshape(-1, 2, 2, 32), 1, 0)
    unit = 2.0**-24  # half of the last place of a number near to 1
    np.testing.assert_allclose(own, np.stack([np.cos(angles)] * 2, 1), rtol=0, atol=unit)
    sines = np.sin(angles)
    np.testing.assert_allclose(partner, np.stack([-sines, sines], 1), rtol=0, atol=unit)
