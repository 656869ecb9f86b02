"""The rules that every graph keeps, as a table, checked between stages of the pipeline.

`verify(graph)` checks all of them; `verify_hazards` only the one that cannot be broken by hand-made
nodes alone, the order of reads and updates of states; `verify_parts` what has been split.

A state may be updated where it lies, which destroys its old value. That is done when the state's
next value is reached from it by update ops and views alone, each seeing it whole and contiguous:
the state's *chain*. Whoever reads an older value must come earlier in the graph's order.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hotplug import ops
from hotplug.errors import GraphError
from hotplug.graph import Graph
from hotplug.layout import Layout
from hotplug.node import Node
from hotplug.ops.spec import Op

__all__ = [
    "RULES",
    "StateRead",
    "reads_state",
    "state_chains",
    "state_reads",
    "updated_operand",
    "verify",
    "verify_hazards",
    "verify_parts",
]

_QUANTISED_RESULTS = frozenset(
    {"input", "weight", "state", "cast", "contiguous", "index_select", "scatter_rows"}
)


def verify(graph: Graph) -> None:
    """Check every rule of `RULES`.

    Raises:
        GraphError: a rule is broken; names the op, its operands and what is wrong.
    """
    for rule in RULES:
        rule(graph)


def verify_types(graph: Graph) -> None:
    """Each node is what its op's row makes of its operands and parameters."""
    checked: set[object] = set()
    for node in graph.nodes:
        kind = _leaf_kind(node) if node.is_leaf else graph.kinds[node]
        if kind in checked:
            continue
        row = ops.get(node.op)
        _check_arity(node, row)
        inferred = row.infer(node.inputs, dict(node.params))
        if inferred != node.type:
            raise _error(node, f"is said to be {node.type}, but its rule gives {inferred}")
        checked.add(kind)


def _leaf_kind(node: Node) -> tuple[object, ...]:
    """What a leaf is but for its name; of that, whether it has one."""
    params = [(name, bool(value) if name == "name" else value) for name, value in node.params]
    return node.op, *params, len(node.inputs), node.type.dtype.name, node.type.shape


def _check_arity(node: Node, row: Op[...]) -> None:
    if tuple(name for name, _ in node.params) != tuple(p.name for p in row.params):
        raise _error(node, f"has parameters {[name for name, _ in node.params]}")
    if row.operands and row.operands[-1].variadic:
        return
    if len(node.inputs) != len(row.operands):
        raise _error(node, f"has {len(node.inputs)} operands instead of {len(row.operands)}")
    for operand, expected in zip(node.inputs, row.operands, strict=True):
        if operand is None and not expected.optional:
            raise _error(node, f"lacks its operand {expected.name!r}")


def verify_order(graph: Graph) -> None:
    """Each node is there once and after its operands; results are nodes of the graph."""
    at = graph.positions
    for position, node in enumerate(graph.nodes):
        if at[node] != position:
            raise _error(node, "is in the graph twice")
        for operand in node.operands:
            if at.get(operand, position) >= position:
                raise _error(node, f"comes before its operand {operand.name}")
    for name, node in graph.outputs + graph.updates:
        if node not in at:
            raise _error(node, f"is the result {name!r}, but not a node of the graph")


def verify_leaves(graph: Graph) -> None:
    """A leaf's name means one thing; an update fits its state."""
    leaves: dict[str, Node] = {}
    for node in graph.nodes:
        if node.is_leaf and leaves.setdefault(node.name, node) != node:
            raise _error(node, f"shares its name {node.name!r} with {leaves[node.name].type}")
    for name, node in graph.updates:
        state = leaves.get(name)
        if state is None or state.op != "state":
            raise _error(node, f"updates {name!r}, which is no state of the graph")
        if state.type != node.type:
            raise _error(node, f"cannot become state {name!r}, which is {state.type}")


def verify_results(graph: Graph) -> None:
    """Outputs have names, each one once; a state has one update."""
    for what, pairs in (("output", graph.outputs), ("update", graph.updates)):
        names: set[str] = set()
        for name, node in pairs:
            if not name or name in names:
                problem = f"a second {what} {name!r}" if name else f"an {what} without a name"
                raise _error(node, f"would be {problem}")
            names.add(name)


def verify_quantised(graph: Graph) -> None:
    """Only values that are stored, copied or viewed are quantised; arithmetic gives plain ones."""
    for node in graph.nodes:
        if node.dtype.quantised and node.op not in _QUANTISED_RESULTS | _VIEWS:
            raise _error(node, f"cannot make {node.dtype} values")


_VIEWS = frozenset(name for name, row in ops.OPS.items() if row.view)


def verify_hazards(graph: Graph) -> None:
    """Nobody reads a value of a state that was overwritten before."""
    if not graph.updates:
        return
    chains = state_chains(graph)
    steps = graph.positions
    for read in state_reads(graph, chains):
        later = chains[read.state][read.version :]
        if not later:
            continue
        writer = later[0]
        if read.reader is None:
            raise _hazard(read, "a result", writer)
        if steps[read.reader] > steps[writer] or read.reader == writer:
            raise _hazard(read, read.reader.name, writer)
    _verify_late_updates(graph, chains)


def _hazard(read: StateRead, reader: str, writer: Node) -> GraphError:
    return GraphError(
        f"{reader} reads state {read.state!r} after {writer.name} has updated it",
        op=writer.op,
        operands=tuple(str(operand.type) for operand in writer.operands),
        remedy="read the updated value, or a contiguous() copy taken earlier",
    )


def _verify_late_updates(graph: Graph, chains: Mapping[str, tuple[Node, ...]]) -> None:
    """States copied at the end of a run must not be copied from one another."""
    late = {name for name, _ in graph.updates if name not in chains}
    for name, node in graph.updates:
        source = _path_to_leaf(node)[0]
        if name in late and source.op == "state" and source.name in late:
            raise _error(
                node,
                f"becomes state {name!r}, but shares memory with state {source.name!r}, "
                "which changes in the same run",
                remedy="use contiguous() of it",
            )


RULES: tuple[Callable[[Graph], None], ...] = (
    verify_order,
    verify_leaves,
    verify_results,
    verify_types,
    verify_quantised,
    verify_hazards,
)
"""The table: each rule a function that raises GraphError where it is broken."""


@dataclass(frozen=True, slots=True)
class StateRead:
    """Somebody reads a state of a chain.

    Attributes:
        state: the state's name.
        version: how many ops of the chain have been applied to the value that is read.
        reader: the node that reads; None for a result of the graph.
    """

    state: str
    version: int
    reader: Node | None


def state_chains(graph: Graph) -> Mapping[str, tuple[Node, ...]]:
    """For each state that is updated where it lies: the update ops that do it, the first one first.

    A state that a graph gives back unchanged has an empty chain; one whose next value is computed
    elsewhere and copied into it at the end of a run has none.
    """
    found = _chains.get(graph)
    if found is None:
        found = _chains[graph] = _state_chains(graph)
    return found


_chains: weakref.WeakKeyDictionary[Graph, Mapping[str, tuple[Node, ...]]]
_chains = weakref.WeakKeyDictionary()


def _state_chains(graph: Graph) -> dict[str, tuple[Node, ...]]:
    chains: dict[str, tuple[Node, ...]] = {}
    for name, last in graph.updates:
        path = _path_to_leaf(last)
        if path[0] == graph.states[name] and _keeps_layout(path):
            chains[name] = tuple(node for node in path if updated_operand(node) is not None)
    return chains


def state_reads(graph: Graph, chains: Mapping[str, tuple[Node, ...]]) -> Iterator[StateRead]:
    """Every read of a state of a chain, through views too, in graph order; results come last."""
    at = graph.positions
    versions: dict[int, tuple[str, int]] = {}  # by position of a node
    writers: set[int] = set()
    for name, chain in chains.items():
        if chain:
            versions[at[graph.states[name]]] = (name, 0)
        for version, node in enumerate(chain, start=1):
            versions[at[node]] = (name, version)
            writers.add(at[node])
    for position, (node, reads) in enumerate(zip(graph.nodes, graph.reads, strict=True)):
        if versions.keys().isdisjoint(reads):
            continue
        row = ops.get(node.op)
        for place, operand in enumerate(node.inputs):
            read = None if operand is None else versions.get(at[operand])
            if read is None:
                continue
            if row.view:
                versions[position] = read
            elif position not in writers or place != row.updates:
                yield StateRead(*read, node)
    for _, node in graph.outputs + graph.updates:
        if at[node] in versions:
            yield StateRead(*versions[at[node]], None)


def reads_state(node: Node) -> bool:
    """Whether a node sees a state, so that it may not be computed later than where it stands."""
    return any(_path_to_leaf(operand)[0].op == "state" for operand in node.operands)


def updated_operand(node: Node) -> Node | None:
    """The operand of which the node is an update, if its op is one that updates."""
    position = ops.get(node.op).updates
    return None if position is None else node.inputs[position]


def _path_to_leaf(node: Node) -> list[Node]:
    """The node, what it is a view or an update of, and so on; the origin comes first."""
    path = [node]
    while True:
        operand = updated_operand(node) or (node.operands[0] if ops.get(node.op).view else None)
        if operand is None:
            return path[::-1]
        path.append(operand)
        node = operand


def _keeps_layout(path: Sequence[Node]) -> bool:
    """Whether updates along a path of views and updates see the origin whole and in place."""
    layout = Layout.contiguous(path[0].shape)
    for node in path[1:]:
        if ops.get(node.op).view:
            seen = ops.view_layout(node, layout)
            if seen is None:
                return False
            layout = seen
        elif not layout.is_contiguous:
            return False
    return layout.is_contiguous and layout.shape == path[0].shape


def verify_parts(parts: Sequence[Graph], copies: Mapping[int, Sequence[str]]) -> None:
    """Check graphs that were cut out of one: every value made elsewhere arrives.

    Args:
        parts: graphs in the order in which they run; a value that crosses is an output of one and
            an input of others, by one name.
        copies: for each part, by position, the names of the values brought from other devices.

    Raises:
        GraphError: a value is missing, or made twice, or read before it is made.
    """
    made: set[str] = set()
    for position, part in enumerate(parts):
        for name in copies.get(position, ()):
            if name not in part.inputs:
                raise GraphError(f"part {position} is sent {name!r} and has no use for it")
        for name, node in part.inputs.items():
            if name.startswith(CROSSING) and name not in made:
                raise _error(node, f"{name!r} is needed by part {position} and not made before")
        for name, node in part.outputs:
            if name in made:
                raise _error(node, f"{name!r} is made by part {position} and before it")
            made.add(name)


CROSSING = "@"
"""First character of the names of values that cross between parts."""


def _error(node: Node, what: str, *, remedy: str | None = None) -> GraphError:
    return GraphError(
        f"{node.name} {what}",
        op=node.op,
        operands=tuple(str(operand.type) for operand in node.operands),
        remedy=remedy,
    )
