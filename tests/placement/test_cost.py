"""Seconds of nodes, parts and copies from a device's rates."""

from __future__ import annotations

import pytest

from hotplug import ops
from hotplug.backend import DeviceInfo, DeviceType
from hotplug.node import Node
from hotplug.placement.cost import (
    NO_LINK,
    Link,
    Rates,
    copy_seconds,
    node_seconds,
    rates,
    work,
    work_seconds,
    worthwhile,
)

PLAIN = Rates(flops=1e9, bandwidth=1e6)


def info(kind: DeviceType = DeviceType.GPU, **properties: float) -> DeviceInfo:
    return DeviceInfo("some", 0, "Some", kind, properties=properties)


def product(rows: int, dtype: str = "q8_0") -> Node:
    x = ops.input(name="x", dtype="f32", shape=(rows, 64))
    return ops.matmul(x, ops.weight(name="w", dtype=dtype, shape=(32, 64)), transpose_b=True)


def test_a_product_of_one_row_takes_as_long_as_its_weights_bytes() -> None:
    node = product(1)
    weight = 32 * (2 + 32) * 64 // 32
    assert work(node).weight_bytes == weight
    moved = 64 * 4 + 32 * 4
    assert node_seconds(node, PLAIN) == pytest.approx((weight + moved) / 1e6)
    faster = Rates(flops=1e9, bandwidth=1e6, gemv={"q8_0": 2e6, "f16": 1.0})
    assert node_seconds(node, faster) == pytest.approx(weight / 2e6 + moved / 1e6)


def test_a_product_of_many_rows_takes_as_long_as_its_operations() -> None:
    node = product(4096)
    slow = Rates(flops=1e6, bandwidth=1e9, gemm={"q8_0": 4e6})
    assert node_seconds(node, slow) == pytest.approx(2 * 4096 * 32 * 64 / 4e6)
    other = Rates(flops=1e6, bandwidth=1e9, gemm={"f16": 4e6})
    assert node_seconds(node, other) == pytest.approx(2 * 4096 * 32 * 64 / 1e6)


def test_a_view_takes_nothing_and_any_other_node_its_step() -> None:
    x = ops.input(name="x", dtype="f32", shape=(2, 2))
    patient = Rates(flops=1e30, bandwidth=1e30, step=0.25)
    assert node_seconds(ops.transpose(x), patient) == 0
    assert node_seconds(ops.relu(x), patient) == pytest.approx(0.25)


def test_only_rows_that_are_touched_count() -> None:
    ids = ops.input(name="ids", dtype="i32", shape=(3,))
    table = ops.weight(name="table", dtype="f32", shape=(1000, 8))
    assert work(ops.take(table, ids)).nbytes == 2 * 3 * 8 * 4 + 3 * 4
    cache = ops.state(name="cache", dtype="f32", shape=(1000, 8))
    rows = ops.input(name="rows", dtype="f32", shape=(3, 8))
    assert work(ops.scatter_rows(cache, ids, rows)).nbytes == 2 * (3 * 8 * 4 + 3 * 4)


def test_attention_reads_the_filled_share_of_a_cache() -> None:
    q = ops.input(name="q", dtype="f32", shape=(1, 2, 16))
    cache = ops.state(name="cache", dtype="f16", shape=(100, 2, 16))
    at = ops.input(name="at", dtype="i32", shape=(1,))
    node = ops.scaled_dot_product_attention(q, cache, cache, positions=at, causal=True)
    full, half = work(node, 1.0), work(node, 0.5)
    assert full.nbytes - half.nbytes == 100 * 2 * 16 * 2
    assert full.flops == 2 * half.flops


def test_experts_that_no_row_is_sent_to_are_not_read() -> None:
    x = ops.input(name="x", dtype="f32", shape=(2, 1, 64))
    ids = ops.input(name="ids", dtype="i32", shape=(2, 1))
    experts = ops.weight(name="experts", dtype="f32", shape=(8, 32, 64))
    assert work(ops.matmul_grouped(x, experts, ids)).weight_bytes == 2 * 32 * 64 * 4


def test_a_copy_goes_down_one_link_and_up_another() -> None:
    a = Rates(1, 1, upload=Link(9, 1), download=Link(0.5, 100))
    b = Rates(1, 1, upload=Link(0.25, 50), download=Link(9, 1))
    assert copy_seconds(100, a, b) == pytest.approx(0.5 + 1 + 0.25 + 2)
    host = Rates(1, 1)
    assert host.upload == NO_LINK
    assert copy_seconds(100, a, host) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("direct", "least"),
    [
        (Link(1.0, 50.0), 0),
        (Link(4.0, 50.0), 100),  # by the host 2 s, and 20 ms a byte more than directly
        (Link(4.0, 50.0, 300), 300),
        (Link(1.0, 20.0), None),
        (Link(2.0, 25.0), 0),
        (Link(3.0, 25.0), None),
    ],
)
def test_a_direct_way_is_for_what_is_slower_by_the_host(direct: Link, least: int | None) -> None:
    way = Link(1.0, 50.0)
    device = Rates(1, 1, upload=way, download=way)
    found = worthwhile(direct, device, device)
    assert (None if found is None else found.least) == least
    if found is not None and found.least:
        by_host = copy_seconds(found.least, device, device)
        assert copy_seconds(found.least, device, device, found) <= by_host + 1e-9


def test_a_device_that_states_nothing_gets_what_is_usual_for_its_type() -> None:
    gpu, cpu = rates(info()), rates(info(DeviceType.CPU))
    assert gpu.source == cpu.source == "usual"
    assert gpu.bandwidth > cpu.bandwidth
    assert cpu.upload == NO_LINK


def test_what_a_device_states_counts() -> None:
    stated = rates(info(flops=5.0, link_latency=2.0, launch_seconds=3.0, step_seconds=0.5))
    assert (stated.flops, stated.upload.latency, stated.launch, stated.step) == (5, 2, 3, 0.5)
    assert stated.bandwidth == rates(info()).bandwidth
    assert stated.source == "stated"
    assert rates(info(link_latency=2.0)).source == "usual"


def test_the_work_of_a_node_serves_all_devices() -> None:
    node = product(3)
    assert work_seconds(work(node), PLAIN) == node_seconds(node, PLAIN)
