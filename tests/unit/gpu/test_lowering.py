"""What graphs become: how often something is computed, and how much an item moves at once."""

from __future__ import annotations

import pytest

from hotplug import ops
from hotplug.gpu.driver import Capabilities
from hotplug.graph import Graph
from hotplug.testing.kernels import launches

GPU = Capabilities(
    dialect="opencl", identity="test", is_cpu=False, f64=True, alignment=64, max_items=256,
    local_bytes=32768, max_buffer=2**32,
)  # fmt: skip


def leaf(name, *shape, dtype="f32"):
    return ops.input(name=name, dtype=dtype, shape=shape)


def files(graph):
    return [launch.variant.file for launch in launches(graph, GPU)]


def test_angles_are_computed_once_for_all_that_turn_alike():
    at = leaf("at", 20, dtype="i32")
    heads = [leaf(name, 20, 2, 16) for name in "abc"]
    alike = Graph.build({x.name: ops.rope(x, at) for x in heads})
    assert files(alike) == ["turns", "rope", "rope", "rope"]
    bases = {x.name: ops.rope(x, at, base=base) for x, base in zip(heads, (1e4, 1e6), strict=False)}
    assert files(Graph.build(bases)) == ["turns", "rope", "turns", "rope"]
    places = {"a": ops.rope(heads[0], at), "b": ops.rope(heads[1], leaf("other", 20, dtype="i32"))}
    assert files(Graph.build(places)) == ["turns", "rope", "turns", "rope"]


def part(dtype, start, stop):
    x = leaf("x", 6, 64, dtype=dtype)
    return ops.slice(x, starts=(1, start), stops=(6, stop))


@pytest.mark.parametrize(
    ("view", "width"),
    [
        (ops.transpose(leaf("x", 8, 8)), 4),
        (part("f32", 0, 64), 16),
        (part("f32", 4, 12), 16),
        (part("f32", 2, 12), 8),
        (part("f32", 1, 9), 4),
        (part("i8", 0, 33), 1),
        (part("f16", 2, 64), 4),
    ],
)
def test_an_item_copies_what_lies_beside_each_other(view, width):
    (launch,) = launches(Graph.build({"y": ops.contiguous(view)}), GPU)
    assert dict(launch.variant.defines)["WIDTH"] == str(width)
    assert launch.groups == (1, 1)
