"""One case of the suite: a graph, values for its leaves, and how exact its results must be."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.tensor import HostTensor
from hotplug.testing.conformance.values import Recipe, tensor

__all__ = ["Case", "single"]


@dataclass(frozen=True, slots=True)
class Case:
    """A graph to be run, once or several times with its states kept.

    Attributes:
        name: unique, and the seed of its values, such as "add/f32/(3, 4)+(4,)".
        graph: what is run.
        data: recipes by leaf name; leaves without one get what suits their dtype. A tuple holds
            a recipe for each run.
        runs: how often it is run.
        tolerance: how far results may be from the oracle's, as a part of the largest absolute value
            of each result; None where the bounds of `bounds` apply, which need that no more than
            one op between leaves and result rounds.
        slow: whether only the exhaustive set holds it.
    """

    name: str
    graph: Graph
    data: Mapping[str, Recipe | tuple[Recipe, ...]] = field(default_factory=dict)
    runs: int = 1
    tolerance: float | None = None
    slow: bool = False

    def leaf(self, node: Node, run: int = 0) -> HostTensor:
        """The bytes of a leaf in a run; those of weights are the same in all."""
        recipe = self.data.get(node.name)
        if isinstance(recipe, tuple):
            recipe = recipe[run]
        turn = 0 if node.op == "weight" else run
        seed = zlib.crc32(f"{self.name}:{node.name}:{turn}".encode())
        return tensor(np.random.default_rng(seed), node.type, recipe)


def single(
    name: str,
    result: Node,
    data: Mapping[str, Recipe | tuple[Recipe, ...]] | None = None,
    *,
    slow: bool = False,
) -> Case:
    """A case of one result "y"."""
    return Case(name, Graph.build({"y": result}), data or {}, slow=slow)
