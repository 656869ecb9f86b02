"""Tensor parallelism: a graph rewritten so that several devices work at each of its products.

A product with a weight is cut by the weight's rows: each device makes a run of the result's columns
(column parallelism). What follows element by element, or head by head, stays cut. A product whose
operand is cut along the axis that is summed takes the columns of its weight that belong to it, and
makes a part of every sum (row parallelism); these are then added up, see `sums`. For a decoder this
gives two sums a layer, heads of attention with their own keys and values, and weights of which each
device holds its share (Shoeybi et al., "Megatron-LM", arXiv 1909.08053, section 3).

Nothing here knows a model: `_RULES` says for each op how it can work on pieces. Where an op cannot,
pieces are joined first. So any graph may be rewritten, and what is gained depends on the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import gcd, prod
from typing import TypeAlias

from hotplug import ops
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.placement.cost import NO_LINK, Link
from hotplug.placement.shards import WHOLE, Cut, Groups, Piece, Spec
from hotplug.placement.sums import add_up, pairs_pay

__all__ = ["Parallel", "parallelise"]

_LEAST = 1 << 16
"""Bytes of a weight from which it is worth several devices' while."""

_ROWS = 32
"""Rows of a weight that stay together where that is possible: kernels take several at once."""


@dataclass(frozen=True, slots=True)
class Parallel:
    """A graph for several devices at once.

    Attributes:
        graph: it computes the same outputs from the same inputs.
        devices: node -> the device it belongs to, for nodes and leaves that are pieces.
        cuts: name of a piece of a weight or state -> what it is a piece of.
    """

    graph: Graph
    devices: Mapping[Node, str]
    cuts: Mapping[str, Cut]


def parallelise(
    graph: Graph,
    shares: Mapping[str, float],
    *,
    least: int | None = None,
    link: Link = NO_LINK,
    launch: float = 0.0,
    whole: Collection[str] = (),
) -> Parallel:
    """Cut what can be cut.

    Args:
        graph: any graph.
        shares: device -> how much of each product it should do, in any unit. The first one gets
            what is whole.
        least: bytes of a weight from which it is cut; None for what is usually worth it.
        link: between two of the devices.
        launch: seconds of one more part on any of them.
        whole: names of weights and states that are not to be cut.
    """
    outline = _Outline(graph, _LEAST if least is None else least, whole)
    return _Emitter(graph, outline, shares, link, launch).result()


class _Outline:
    """First step: in what form every value will be there.

    Attributes:
        specs: form of each value that a node makes; leaves are whole until somebody wants a piece.
        taken: node -> the forms in which it takes its operands.
        groups: of axes that are cut alike.
    """

    def __init__(self, graph: Graph, least: int, whole: Collection[str]) -> None:
        self.specs: dict[Node, Spec] = {}
        self.taken: dict[Node, tuple[Spec, ...]] = {}
        self.groups = Groups()
        self.least = least
        self.graph = graph
        self._whole = whole
        self._states = _sole_updates(graph)
        for node in graph.nodes:
            self.specs[node] = WHOLE if node.is_leaf else self._form(node)

    def _form(self, node: Node) -> Spec:
        rule = _rule(node)
        found = None if rule is None else rule(self, node)
        if found is None:
            self.taken[node] = (WHOLE,) * len(node.operands)
            return WHOLE
        self.taken[node], spec = found
        return spec

    def spec(self, node: Node) -> Spec:
        """Form of a value; one whose sum is still to be made counts as whole."""
        found = self.specs[node]
        return WHOLE if found.partial else found

    def can_slice(self, node: Node, axis: int) -> bool:
        """Whether pieces of a whole value cost nothing: of a weight, or a cast of one."""
        if node.op == "cast":
            return self.can_slice(node.operands[0], axis)
        if node.op != "weight" or node.name in self._whole:
            return False
        packed = node.dtype.quantised and axis == len(node.shape) - 1
        return not (packed and node.shape[axis] % node.dtype.block)

    def owns(self, state: Node, update: Node) -> bool:
        """Whether an update is all that is ever done with a state, so that it can be cut."""
        return state.name not in self._whole and self._states.get(state) == update


_Found: TypeAlias = "tuple[tuple[Spec, ...], Spec] | None"
_Rule: TypeAlias = "Callable[[_Outline, Node], _Found]"


def _sole_updates(graph: Graph) -> dict[Node, Node]:
    """State -> the one node that uses it, and that becomes its next value."""
    renewed = {(graph.states[name], node) for name, node in graph.updates}
    sole = {state: users[0] for state, users in graph.consumers.items() if len(users) == 1}
    return {state: user for state, user in sole.items() if (state, user) in renewed}


def _product(outline: _Outline, node: Node) -> _Found:
    """Columns of the result where x is whole; parts of the sum where x is cut along it."""
    x, w = node.operands[:2]
    rest = (WHOLE,) * (len(node.operands) - 2)
    grouped = node.op == "matmul_grouped"
    if w.op != "weight" or len(w.shape) != (3 if grouped else 2):
        return None
    rows, inner = (-2, -1) if grouped or node.param("transpose_b") else (-1, -2)
    rows, inner = rows % len(w.shape), inner % len(w.shape)
    spec = outline.spec(x)
    if spec.whole and w.type.nbytes >= outline.least and outline.can_slice(w, rows):
        length = w.shape[rows]
        group = outline.groups.new(length // _together(length))
        return (WHOLE, Spec(group, rows), *rest), Spec(group, len(node.shape) - 1)
    if spec.axis == len(x.shape) - 1 and outline.can_slice(w, inner):
        length = w.shape[inner]
        block = w.dtype.block if w.dtype.quantised else _together(length)
        outline.groups.limit(spec.group, length // block)
        return (spec, Spec(spec.group, inner), *rest), Spec(spec.group)
    return None


def _together(length: int) -> int:
    """How many elements of an axis stay together, unless that would leave few runs of them."""
    run = gcd(length, _ROWS)
    while run > 1 and length // run < 2 * _ROWS:
        run //= 2
    return run


def _elementwise(outline: _Outline, node: Node) -> _Found:
    """Operands of the result's shape cut alike; one that is broadcast is whole or a weight."""
    specs = [outline.spec(operand) for operand in node.operands]
    cut = next((spec for spec in specs if not spec.whole), None)
    if cut is None:
        return None
    taken = []
    for operand, spec in zip(node.operands, specs, strict=True):
        axis = cut.axis - (len(node.shape) - len(operand.shape))
        if spec.whole and (axis < 0 or operand.shape[axis] == 1):
            taken.append(WHOLE)
        elif spec.whole and outline.can_slice(operand, axis):
            taken.append(Spec(cut.group, axis))
        elif not spec.whole and spec.axis == axis and operand.shape[axis] == node.shape[cut.axis]:
            outline.groups.join(cut.group, spec.group)
            taken.append(spec)
        else:
            return None
    return tuple(taken), cut


def _first_operand(outline: _Outline, node: Node) -> _Found:
    """Ops that work on rows along the last axis: rope, norms. All else they take is whole."""
    spec = outline.spec(node.operands[0])
    if spec.whole or spec.axis == len(node.shape) - 1:
        return None
    return (spec, *(WHOLE,) * (len(node.operands) - 1)), spec


def _reshape(outline: _Outline, node: Node) -> _Found:
    """A run of the cut axis is a run of that axis of the result at which as much lies before it."""
    x = node.operands[0]
    spec = outline.spec(x)
    if spec.whole:
        return None
    before = prod(x.shape[: spec.axis])
    axes = range(len(node.shape))
    axis = next((i for i in axes if prod(node.shape[:i]) == before and node.shape[i] > 1), None)
    if axis is None:
        return None
    outline.groups.limit(spec.group, node.shape[axis])
    return (spec,), Spec(spec.group, axis)


def _permute(outline: _Outline, node: Node) -> _Found:
    spec = outline.spec(node.operands[0])
    axes = node.param("axes")
    if spec.whole or not isinstance(axes, tuple):
        return None
    return (spec,), Spec(spec.group, axes.index(spec.axis))


def _cache(outline: _Outline, node: Node) -> _Found:
    """A cache of rows that are cut is cut like them, if nothing else is done with it."""
    state, _, rows = node.operands
    spec = outline.spec(rows)
    packed = state.dtype.quantised and spec.axis == len(state.shape) - 1
    if spec.whole or spec.axis == 0 or not outline.owns(state, node):
        return None
    length = state.shape[spec.axis]
    outline.groups.limit(spec.group, length // state.dtype.block if packed else length)
    return (spec, WHOLE, spec), spec


def _attention(outline: _Outline, node: Node) -> _Found:
    """Heads apart: query heads with the key heads that they share."""
    q, k, v, mask, _, sinks = node.inputs
    assert q is not None
    assert k is not None
    assert v is not None
    specs = [outline.spec(operand) for operand in (q, k, v)]
    by_heads = all(
        not spec.whole and spec.axis == len(operand.shape) - 2
        for spec, operand in zip(specs, (q, k, v), strict=True)
    )
    masked = mask is not None and len(mask.shape) > 2 and mask.shape[-3] > 1
    if not by_heads or masked or node.param("max_bias"):
        return None
    if sinks is not None and not outline.can_slice(sinks, 0):
        return None
    for spec in specs[1:]:
        outline.groups.join(specs[0].group, spec.group)
    outline.groups.limit(specs[0].group, k.shape[-2])
    others = [Spec(specs[0].group, 0) if item is sinks else WHOLE for item in node.operands[3:]]
    return (*specs, *others), specs[0]


_RULES: dict[str, _Rule] = {
    "matmul": _product,
    "matmul_grouped": _product,
    "rope": _first_operand,
    "rms_norm": _first_operand,
    "l2_norm": _first_operand,
    "reshape": _reshape,
    "permute": _permute,
    "scatter_rows": _cache,
    "scaled_dot_product_attention": _attention,
    "cast": _elementwise,
}
_ELEMENTWISE = frozenset({"activation", "arithmetic"})  # families of the op table


def _rule(node: Node) -> _Rule | None:
    rule = _RULES.get(node.op)
    if rule is None and ops.get(node.op).family in _ELEMENTWISE:
        return _elementwise
    return rule


class _Emitter:
    """Second step: the nodes, once it is known where every axis is cut."""

    def __init__(
        self,
        graph: Graph,
        outline: _Outline,
        shares: Mapping[str, float],
        link: Link,
        launch: float,
    ) -> None:
        self._link, self._launch = link, launch
        self._graph = graph
        self._outline = outline
        self._shares = shares
        self._main = next(iter(shares))
        self._wholes: dict[Node, Node] = {}
        self._pieces: dict[Node, list[Node]] = {}
        self._devices: dict[Node, str] = {}
        self._cuts: dict[str, Cut] = {}

    def result(self) -> Parallel:
        """The graph."""
        for node in self._graph.nodes:
            if not node.is_leaf:
                self._emit(node)
        outputs = {name: self._whole(node) for name, node in self._graph.outputs}
        updates: dict[str, Node] = {}
        for name, node in self._graph.updates:
            updates |= self._update(name, node)
        graph = Graph.build(outputs, updates)
        there = set(graph.nodes)
        devices = {node: device for node, device in self._devices.items() if node in there}
        return Parallel(graph, devices, self._cuts)

    def _emit(self, node: Node) -> None:
        taken = self._outline.taken[node]
        group = max((spec.group for spec in taken), default=-1)
        if group < 0:
            inputs = [None if item is None else self._whole(item) for item in node.inputs]
            self._wholes[node] = self._again(node, inputs)
            return
        forms = iter(taken)
        columns = [
            None if item is None else self._operand(item, next(forms), group)
            for item in node.inputs
        ]
        made = []
        for number, piece in enumerate(self._where(group)):
            inputs = [None if column is None else column[number] for column in columns]
            one = self._again(node, inputs, piece)
            made.append(one)
            self._devices[one] = piece.device
        self._pieces[node] = made

    def _again(self, node: Node, inputs: list[Node | None], piece: Piece | None = None) -> Node:
        """The same op over other operands; the piece says how much of a shape it takes."""
        params = dict(node.params)
        if node.op == "reshape" and piece is not None:
            axis = self._outline.specs[node].axis
            start, stop = piece.range(node.shape[axis])
            params["shape"] = (*node.shape[:axis], stop - start, *node.shape[axis + 1 :])
        return ops.get(node.op).build(tuple(inputs), params)

    def _where(self, group: int) -> tuple[Piece, ...]:
        return self._outline.groups.pieces(group, self._shares)

    def _operand(self, node: Node, spec: Spec, group: int) -> list[Node]:
        """An operand for each piece of a group."""
        pieces = self._where(group)
        if spec.whole:
            return [self._whole(node)] * len(pieces)
        if node in self._pieces:
            return self._pieces[node]
        return [self._sliced(node, spec.axis, piece) for piece in pieces]

    def _sliced(self, node: Node, axis: int, piece: Piece) -> Node:
        """A piece of a weight, of a state, or of a cast of a weight."""
        if node.op == "cast":
            inner = self._sliced(node.operands[0], axis, piece)
            return self._placed(self._again(node, [inner]), piece)
        start, stop = piece.range(node.shape[axis])
        if (start, stop) == (0, node.shape[axis]):
            return self._placed(node, piece)
        cut = Cut(node.name, axis, start, stop)
        self._cuts[cut.name] = cut
        shape = (*node.shape[:axis], stop - start, *node.shape[axis + 1 :])
        leaf = ops.get(node.op)(name=cut.name, dtype=node.dtype.name, shape=shape)
        return self._placed(leaf, piece)

    def _placed(self, node: Node, piece: Piece) -> Node:
        return self._put(node, piece.device)

    def _whole(self, node: Node) -> Node:
        """A value in one piece, joined or added up if need be."""
        if node.is_leaf:
            return node
        if node not in self._wholes:
            pieces = self._pieces[node]
            spec = self._outline.specs[node]
            self._wholes[node] = self._sum(pieces) if spec.partial else _joined(pieces, spec.axis)
        return self._wholes[node]

    def _sum(self, pieces: list[Node]) -> Node:
        devices = [self._main, *[self._devices[piece] for piece in pieces[1:]]]
        pairs = pairs_pay(pieces[0].type.nbytes, len(pieces), self._link, self._launch)
        return add_up(pieces, devices, self._put, pairs=pairs)

    def _put(self, node: Node, device: str) -> Node:
        self._devices[node] = device
        return node

    def _update(self, name: str, node: Node) -> dict[str, Node]:
        """States' next values by their names: those of its pieces, if the state was cut."""
        state = self._graph.states[name]
        if not (node in self._pieces and self._outline.owns(state, node)):
            return {name: self._whole(node)}
        return {piece.operands[0].name: piece for piece in self._pieces[node]}


def _joined(pieces: list[Node], axis: int) -> Node:
    return pieces[0] if len(pieces) == 1 else ops.concat(*pieces, axis=axis)
