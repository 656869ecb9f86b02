"""Bytes and operations of a step, and the least time that a machine could take for them."""

from __future__ import annotations

import pytest
from work import Roof, Work, work_of

from hotplug import ops

ROOF = Roof(bandwidth=100.0, peak_f32=1000.0, peak_i8=4000.0)


def value(*shape, name="x", dtype="f32"):
    return ops.input(name=name, dtype=dtype, shape=shape)


def weight(*shape, dtype="q4_0"):
    return ops.weight(name="w", dtype=dtype, shape=shape)


@pytest.mark.parametrize(
    ("work", "seconds"),
    [
        (Work(200, 100), 2),  # bound by memory
        (Work(200, 5000), 5),  # by multiplying floats
        (Work(200, 12000, on="bytes"), 3),  # by multiplying bytes
    ],
)
def test_the_roof_is_whichever_takes_longer(work, seconds):
    assert ROOF.seconds(work) == seconds


def test_a_product_reads_weights_and_activations_and_writes_results():
    product = ops.matmul(value(2, 64), weight(96, 64), transpose_b=True)
    found = work_of("matvec_q4_0", [product], 0)
    assert found.operations == 2 * 2 * 96 * 64
    assert found.nbytes == 96 * 64 // 32 * 18 + 2 * 64 * 1.125 + 2 * 96 * 4
    assert found.on == "bytes"


def test_a_sum_within_a_product_reads_what_is_added():
    product = ops.matmul(value(1, 64), weight(96, 64), transpose_b=True)
    added = ops.add(product, value(1, 96, name="y"))
    more = work_of("matvec_q4_0", [product, added], 0).nbytes
    assert more - work_of("matvec_q4_0", [product], 0).nbytes == 4 * 96


def test_float_kernels_are_held_to_the_peak_of_floats():
    product = ops.matmul(value(1, 64), weight(96, 64, dtype="f32"), transpose_b=True)
    assert work_of("matvec_f32_f32", [product], 0).on == "floats"
    assert work_of("gemm_f32", [product], 0).on == "floats"
    assert work_of("gemm_i16", [product], 0).on == "words"


def test_attention_counts_what_each_token_sees_and_reads_that_part_of_the_cache():
    caches = (ops.state(name=name, dtype="f16", shape=(100, 2, 16)) for name in ("k", "v"))
    positions = value(3, name="p", dtype="i32")
    q = value(3, 4, 16)
    node = ops.scaled_dot_product_attention(q, *caches, positions=positions, causal=True)
    found = work_of("attention_f16", [node], 10)
    assert found.operations == 2 * 4 * (16 + 16) * (11 + 12 + 13)
    assert found.nbytes == 2 * (3 * 4 * 16 * 4) + 13 * 2 * (2 * 16 * 2)


def test_a_table_is_read_only_where_rows_are_taken():
    ids = value(3, name="ids", dtype="i32")
    taken = ops.take(weight(1000, 32, dtype="q8_0"), ids)
    assert work_of("take_q8_0", [taken], 0).nbytes == 3 * 34 + 3 * 32 * 4


def test_a_cache_is_written_only_where_rows_are_put():
    cache = ops.state(name="k", dtype="f16", shape=(100, 2, 16))
    rows = value(3, 2, 16)
    put = ops.scatter_rows(cache, value(3, name="at", dtype="i32"), rows)
    assert work_of("scatter_rows", [put], 0).nbytes == 3 * 32 * 4 + 3 * 32 * 2


def test_other_steps_read_their_operands_once_and_write_their_result():
    added = ops.add(value(2, 8), value(2, 8, name="y"))
    assert work_of("add", [added], 0) == Work(3 * 64, 0)
