"""Launches that are done by one give what they give one by one, however many threads take part."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hotplug import ops
from hotplug.backend import Partition
from hotplug.errors import KernelCompileError
from hotplug.gpu import series
from hotplug.gpu.cache import BinaryCache
from hotplug.gpu.catalog.table import Launch, LibraryLaunch, Lowering
from hotplug.gpu.driver import Capabilities, Gemm, Operand
from hotplug.gpu.sources import Variant
from hotplug.gpu.tensors import Place
from hotplug.graph import Graph
from hotplug.session import Session
from hotplug.testing.conformance.suite import case_groups
from hotplug.testing.conformance.values import normal, tensor
from hotplug.testing.graphs import DecoderShape, decoder
from hotplug.testing.kernels import launches

PROCESSOR = Capabilities(
    dialect="opencl", identity="test", is_cpu=True, f64=True, alignment=64, max_items=256,
    local_bytes=32768, max_buffer=2**32, threads=2,
)  # fmt: skip
SMALL = DecoderShape(
    layers=4, width=64, hidden=544, heads=2, kv_heads=1, head=32, vocabulary=80, context=8
)


def decoding(device, shape, threads):
    """Logits of some tokens, of a device with so many threads."""
    rng = np.random.default_rng(7)
    graph = decoder(shape)
    weights = {
        node.name: tensor(rng, node.type, normal(0.3))
        for node in graph.nodes
        if node.op == "weight"
    }
    able = device.driver.capabilities
    device.driver.capabilities = dataclasses.replace(able, threads=threads)
    try:
        with Session([device], weights) as session:
            program = session.compile(graph)
            return [program.run(inputs(shape, first))["logits"].copy() for first in (0, 2, 4)]
    finally:
        device.driver.capabilities = able


def inputs(shape, first):
    positions = np.arange(first, first + shape.tokens, dtype=np.int32)
    return {"tokens": positions + 3, "positions": positions, "rows": positions}


@pytest.mark.parametrize("tokens", [1, 2])
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_a_decoder_computes_the_same(device, tokens, threads):
    if not device.driver.capabilities.threads:
        pytest.skip("this device joins no launches")
    shape = dataclasses.replace(SMALL, tokens=tokens)
    together, apart = decoding(device, shape, threads), decoding(device, shape, 0)
    np.testing.assert_array_equal(together, apart)
    assert np.ptp(together) > 0


def test_a_series_is_one_launch(device):
    if not device.driver.capabilities.threads:
        pytest.skip("this device joins no launches")
    y = ops.input(name="x", dtype="f32", shape=(4,))
    for _ in range(20):
        y = ops.softmax(y)
    executable = device.compile(Partition(Graph.build({"y": y})))
    assert executable.launches == 1
    assert len(executable.explain()) == 20


def test_where_the_compiler_refuses_launches_stay_single(device, monkeypatch):
    def refuse(kernel, sources):
        raise KernelCompileError("no", kernel=kernel, source=sources[0])

    apart = decoding(device, SMALL, 0)
    monkeypatch.setattr(device.driver, "link", refuse)
    monkeypatch.setattr(device.programs, "_programs", {})
    monkeypatch.setattr(device.programs, "_cache", BinaryCache(None, "none"))
    np.testing.assert_array_equal(decoding(device, SMALL, 2), apart)


def test_layers_are_rounds_of_one_program():
    graph = decoder(dataclasses.replace(SMALL, layers=14))
    lowering = Lowering(PROCESSOR, launches=list(launches(graph, PROCESSOR)))
    queued = series.join(lowering, {})
    # The first layer has more to do, and so has the last; a series has no more than 100 buffers.
    assert [len(one.variant.buffers) for one in queued] == [1, 8, 4, 1]
    assert len({one.variant.steps for one in queued}) == 3
    done = [launch for one in queued for launch in one.launches]
    assert done == lowering.launches


def one_of_each():
    """A launch of each kernel whose groups' items need not wait for each other."""
    found = {}
    for cases in case_groups(slow=False).values():
        for case in cases:
            for launch in launches(case.graph, PROCESSOR):
                found.setdefault(launch.variant.name, launch)
    return list(found.values())


def test_every_kernel_may_be_one_of_a_series(device):
    if not device.driver.capabilities.threads:
        pytest.skip("this device joins no launches")
    queued = series.join(Lowering(PROCESSOR, launches=one_of_each()), {})
    joined = [one.variant for one in queued if isinstance(one, series.Series)]
    assert sum(len(program.steps) for program in joined) > 30
    for program in joined:
        linked = device.driver.link("series", program.sources(f64=True))
        assert device.driver.binary(linked)


def lowered(*items):
    """A lowering of small launches; numbers are the work-items of their groups."""
    made = [
        Launch(Variant.of("copy", {"N": n}), (1, 1), count, (Place(f"b{n}"),), (f"node{n}",))
        for n, count in enumerate(items)
    ]
    return Lowering(PROCESSOR, launches=list(made))


def lengths(lowering, work=None):
    queued = series.join(lowering, work or {})
    return [len(one.launches) if isinstance(one, series.Series) else 0 for one in queued]


def test_few_launches_stay_as_they_are():
    assert lengths(lowered(*[1] * 15)) == [0] * 15
    assert lengths(lowered(*[1] * 16)) == [16]


def test_what_has_much_to_do_stays_alone():
    assert lengths(lowered(*[1] * 16), {"node3": 1e9, "node4": 1e9}) == [3, 0, 0, 11]


def test_what_a_library_does_stays_alone():
    lowering = lowered(*[1] * 16)
    product = Gemm("f32", 1, 1, 1, Operand(0, 1), Operand(0, 1), Operand(0, 1))
    lowering.launches[8] = LibraryLaunch(product, (Place("a"), Place("b"), Place("y")))
    assert lengths(lowering) == [8, 0, 7]


def test_items_that_wait_for_each_other_stay_a_group():
    lowering = lowered(*[1] * 16)
    sums = Launch(Variant.of("reduce", {"ITEMS": 64}), (1, 1), 64, (Place("y"),))
    lowering.launches[4] = sums
    assert lengths(lowering) == [4, 0, 11]
    lowering.launches[4] = dataclasses.replace(sums, items=1)
    assert lengths(lowering) == [16]


def test_buffers_are_no_more_than_a_kernel_takes():
    lowering = lowered(*[1] * 150)
    assert lengths(lowering) == [100, 50]


def test_a_kernel_that_comes_again_is_a_round():
    lowering = lowered(*[1] * 16)
    lowering.launches[1:] = [
        dataclasses.replace(lowering.launches[0], groups=(n, 1)) for n in range(1, 16)
    ]
    (joined,) = series.join(lowering, {})
    assert joined.variant.buffers == ((0,),) * 16
    counts = np.frombuffer(bytes(lowering.constants), np.int32)
    assert list(counts[::2]) == [1, *range(1, 16)]


def test_numbers_lie_where_the_program_looks_for_them():
    lowering = lowered(*[1] * 16)
    first = dataclasses.replace(
        lowering.launches[0], groups=(3, 2), arguments=(b"\1" * 4, Place("b0"), b"\2" * 8)
    )
    lowering.launches[0] = first
    (joined,) = series.join(lowering, {})
    assert joined.variant.steps[0].sizes == (4, 0, 8)
    assert joined.groups == (2, 1)
    table = bytes(lowering.constants)
    assert table[:8] == np.array([3, 2], np.int32).tobytes()
    assert table[8 * 16 :] == b"\1" * 4 + bytes(4) + b"\2" * 8


def test_counters_are_left_as_they_were(device):
    x = ops.input(name="x", dtype="f32", shape=(4, 32))
    y = x
    for axis in range(12):
        y = ops.softmax(ops.transpose(ops.rms_norm(y, eps=1e-5 + axis)))
    with Session([device]) as session:
        program = session.compile(Graph.build({"y": y}))
        results = [program.run({"x": np.eye(4, 32, dtype=np.float32)})["y"] for _ in range(3)]
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
