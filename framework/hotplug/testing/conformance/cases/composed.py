"""Cases of `hotplug.ops.composed`: chains of ops, so that only the size of errors is bounded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.ops import composed
from hotplug.testing.conformance.case import Case
from hotplug.testing.conformance.cases.operands import leaf
from hotplug.testing.conformance.values import Recipe, uniform

__all__ = ["cases"]

# A handful of roundings of f32 each; angles up to 1000 lose three of its seven digits.
_CHAIN = 1e-4
_ANGLES = 2e-3


def cases() -> Iterator[Case]:
    """All of them."""
    times: dict[str, Recipe] = {"t": uniform(0, 1000)}
    for dim in (2, 7, 16):
        result = composed.timestep_embedding(leaf("t", "f32", (3,)), dim=dim)
        yield _case(f"timestep_embedding of {dim}", result, times, _ANGLES)
    x, w = leaf("x", "f32", (2, 5, 7)), leaf("w", "f32", (5, 4))
    yield _case("causal_conv1d", composed.causal_conv1d(x, w))
    logits, targets = leaf("logits", "f32", (2, 3, 37)), leaf("targets", "f32", (2, 3, 37))
    shares = {"targets": uniform(0, 2 / 37)}
    yield _case("cross_entropy_loss", composed.cross_entropy_loss(logits, targets), shares)
    for name, function in (
        ("set_slice", composed.set_slice),
        ("add_to_slice", composed.add_to_slice),
    ):
        result = function(leaf("x", "f32", (4, 5)), leaf("v", "f32", (2, 3)), starts=(1, 2))
        yield _case(name, result)
    image = leaf("x", "f32", (2, 5, 7, 3))
    windows = composed.window_partition(image, window=4)
    yield _case("window_partition", windows)
    yield _case("window_unpartition", composed.window_unpartition(windows, size=(5, 7)))
    table = leaf("table", "f16", (8, 3))
    yield _case("get_rel_pos", composed.get_rel_pos(table, queries=4, keys=5))
    scores = leaf("scores", "f32", (2, 6, 12))
    rows, columns = leaf("rows", "f32", (2, 6, 3)), leaf("columns", "f32", (2, 6, 4))
    yield _case("add_rel_pos", composed.add_rel_pos(scores, rows, columns))
    yield from _model_parts()


def _model_parts() -> Iterator[Case]:
    q, weights = leaf("q", "f32", (2, 3, 4, 32)), leaf("weights", "f32", (2, 3, 4))
    for dtype in ("f32", "q8_0"):
        k, mask = leaf("k", dtype, (2, 6, 32)), leaf("mask", "f16", (1, 3, 6))
        result = composed.lightning_indexer(q, k, weights, mask)
        yield _case(f"lightning_indexer with {dtype}", result)
    mix = composed.hyper_connection_mix(leaf("logits", "f32", (3, 4, 4)), iterations=5)
    yield _case("hyper_connection_mix", mix)
    streams, shares = leaf("streams", "f32", (3, 4, 5)), leaf("shares", "f32", (3, 4))
    yield _case("hyper_connection_read", composed.hyper_connection_read(streams, shares))
    result = composed.hyper_connection_combine(leaf("x", "f32", (3, 5)), streams, shares, mix)
    yield _case("hyper_connection_combine", result)


def _case(
    name: str, result: Node, data: Mapping[str, Recipe] | None = None, tolerance: float = _CHAIN
) -> Case:
    graph = Graph.build({"y": result})
    return Case(f"composed/{name}", graph, data or {}, tolerance=tolerance)
