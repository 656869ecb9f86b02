"""Ways to add up what several devices have: the same sum, and each where it is the fastest."""

from __future__ import annotations

import numpy as np
import pytest

from hotplug import ops
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.placement.cost import NO_LINK, Link
from hotplug.placement.sums import add_up, pairs_pay
from hotplug.testing import oracle

SHAPE = (2, 12)


def partial_results(count: int, shape: tuple[int, ...]) -> list[Node]:
    return [ops.input(name=f"x{n}", dtype="f32", shape=shape) for n in range(count)]


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_the_sum(pairs: bool, count: int) -> None:
    pieces = partial_results(count, SHAPE)
    homes: dict[Node, str] = {}

    def place(node: Node, device: str) -> Node:
        homes[node] = device
        return node

    devices = [f"d:{n}" for n in range(count)]
    total = add_up(pieces, devices, place, pairs=pairs)
    assert total.type == pieces[0].type
    assert homes.get(total, "d:0") == "d:0"
    rng = np.random.default_rng(count)
    values = {f"x{n}": rng.standard_normal(SHAPE).astype(np.float32) for n in range(count)}
    found = oracle.evaluate(Graph.build({"y": total}), values)["y"]
    np.testing.assert_allclose(found, sum(values.values()), rtol=1e-5, atol=1e-6)


def test_in_pairs_each_device_adds_once_a_round() -> None:
    homes: list[str] = []

    def place(node: Node, device: str) -> Node:
        homes.append(device)
        return node

    total = add_up(partial_results(8, SHAPE), list("abcdefgh"), place, pairs=True)
    assert homes == [*"abcd", *"ab", "a"]
    depth = 0
    while not total.is_leaf:
        total, depth = total.operands[0], depth + 1
    assert depth == 3


def test_when_pairs_pay() -> None:
    assert pairs_pay(1 << 20, 8, Link(1e-6, 1e8), 1e-5)
    assert pairs_pay(64, 8, Link(1e-4, 1e10), 1e-6)
    assert not pairs_pay(1 << 20, 2, Link(1e-6, 1e8), 1e-5)  # one round either way
    assert not pairs_pay(1 << 20, 8, NO_LINK, 1e-5)  # parts alone cost anything
