"""Basic blocks of an entry, in an order in which threads that parted meet again.

Threads at different blocks are run lowest block first. Blocks are therefore ordered topologically,
with the blocks of a loop next to each other: the strongly connected components of the graph in
topological order, and each component in the same way once the edges into its head are cut. Then a
block that paths join at comes after all blocks of those paths, so that whoever comes first waits
for the others, as at immediate post-dominators.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hotplug.testing.ptx.errors import PTXError
from hotplug.testing.ptx.syntax import (
    Function,
    Instruction,
    Label,
    Register,
    Symbol,
    Targets,
)

__all__ = ["BARRIERS", "Block", "blocks_of", "live_registers"]

BARRIERS = frozenset({"bar", "barrier"})
"""Instructions that wait for threads of the whole block."""

_EXCHANGES = frozenset({"shfl", "vote", "redux", "activemask"})
"""Instructions that need the threads of a warp side by side."""

_ENDS = frozenset({"ret", "exit"})


@dataclass(slots=True)
class Block:
    """Instructions that a thread executes one after the other.

    Attributes:
        instructions: without branches.
        kind: "plain"; "barrier" and "exchange" hold the one instruction that waits for others.
        condition: what decides which successor comes next; None if there is at most one.
        successors: (if it does not hold, if it does), the only one, or all of a brx.idx; empty
            where threads end.
    """

    instructions: list[Instruction] = field(default_factory=list)
    kind: str = "plain"
    condition: Register | None = None
    successors: tuple[int, ...] = ()


def blocks_of(entry: Function) -> list[Block]:
    """An entry's blocks in the order above; the first is where threads begin.

    Raises:
        PTXError: a branch to where nothing is.
    """
    blocks = _Splitter(entry).blocks
    order = _order(blocks)
    place = {old: new for new, old in enumerate(order)}
    for block in blocks:
        block.successors = tuple(place.get(target, -1) for target in block.successors)
    return [blocks[old] for old in order]


class _Splitter:
    def __init__(self, entry: Function) -> None:
        self.blocks = [Block()]
        self._labels: dict[str, int] = {}
        self._tables = {item.name: item.labels for item in entry.body if isinstance(item, Targets)}
        self._jumps: list[tuple[int, Instruction, tuple[str, ...]]] = []
        self._open = True
        for statement in entry.body:
            if isinstance(statement, Label):
                self._labels[statement.name] = self._begin()
            elif isinstance(statement, Instruction):
                self._add(statement)
        self._resolve()

    def _begin(self) -> int:
        """A new block, which the one before falls through to unless it has ended."""
        self.blocks.append(Block())
        new = len(self.blocks) - 1
        if self._open:
            before = self.blocks[-2]
            before.successors = (new, *before.successors)
        self._open = True
        return new

    def _add(self, instruction: Instruction) -> None:
        if instruction.opcode in ("bra", "brx"):
            self._branch(instruction)
        elif instruction.guard is not None:
            self._guarded(instruction)
        elif instruction.opcode in _ENDS:
            self._open = False
            self._begin()
        elif instruction.opcode in BARRIERS or instruction.opcode in _EXCHANGES:
            whole = instruction.opcode in BARRIERS and "warp" not in instruction.modifiers
            kind = "barrier" if whole else "exchange"
            self._begin()
            self.blocks[-1].kind = kind
            self.blocks[-1].instructions.append(instruction)
            self._begin()
        else:
            self.blocks[-1].instructions.append(instruction)

    def _branch(self, branch: Instruction) -> None:
        block = self.blocks[-1]
        target = branch.operands[-1]
        name = target.name if isinstance(target, Symbol) else ""
        if branch.opcode == "brx":
            index = branch.operands[0]
            if not isinstance(index, Register) or name not in self._tables or branch.guard:
                raise PTXError("a branch table", instruction=branch.text, line=branch.line)
            block.condition = index
            self._jumps.append((len(self.blocks) - 1, branch, self._tables[name]))
            self._open = False
        else:
            block.condition = branch.guard
            self._jumps.append((len(self.blocks) - 1, branch, (name,)))
            self._open = branch.guard is not None
        self._begin()

    def _guarded(self, instruction: Instruction) -> None:
        """A guarded instruction is branched around."""
        guard = instruction.guard
        assert guard is not None
        block = self.blocks[-1]
        block.condition = guard
        head = len(self.blocks) - 1
        self._begin()
        inside = len(self.blocks) - 1
        self._add(_unguarded(instruction))
        if self.blocks[-1].instructions or len(self.blocks) - 1 == inside:
            self._begin()
        after = len(self.blocks) - 1
        self.blocks[head].successors = (after, inside)

    def _resolve(self) -> None:
        for index, branch, names in self._jumps:
            block = self.blocks[index]
            for name in names:
                if name not in self._labels:
                    raise PTXError("no such label", instruction=branch.text, line=branch.line)
            targets = tuple(self._labels[name] for name in names)
            block.successors = (*block.successors, *targets)


def _unguarded(instruction: Instruction) -> Instruction:
    return Instruction(
        instruction.opcode,
        instruction.modifiers,
        instruction.operands,
        None,
        instruction.text,
        instruction.line,
    )


def _order(blocks: list[Block]) -> list[int]:
    edges = {index: block.successors for index, block in enumerate(blocks)}
    return _arranged(_reachable(edges), edges, 0)


def _reachable(edges: Mapping[int, tuple[int, ...]]) -> set[int]:
    found: set[int] = set()
    left = [0]
    while left:
        node = left.pop()
        if node not in found:
            found.add(node)
            left += edges[node]
    return found


def _arranged(nodes: set[int], edges: Mapping[int, tuple[int, ...]], head: int) -> list[int]:
    """Nodes in order; all are reached from `head`."""
    order: list[int] = []
    outside = {head}
    for component in _components(nodes, edges, head):
        if len(component) == 1:
            order += component
            outside.update(edges[component[0]])
            continue
        inside = set(component)
        # The head of a loop is where one comes in; of several the first in the text.
        entrance = min((node for node in component if node in outside), default=min(component))
        cut = {
            node: tuple(to for to in edges[node] if to in inside and to != entrance)
            for node in component
        }
        order += _arranged(inside, cut, entrance)
        outside.update(to for node in component for to in edges[node])
    return order


def _components(
    nodes: set[int], edges: Mapping[int, tuple[int, ...]], head: int
) -> list[list[int]]:
    """Strongly connected components in topological order (Tarjan's algorithm without recursion)."""
    number: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    found: list[list[int]] = []

    def visit(root: int) -> None:
        work = [(root, iter(edges[root]))]
        number[root] = low[root] = len(number)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, rest = work[-1]
            for to in rest:
                if to not in nodes:
                    continue
                if to not in number:
                    number[to] = low[to] = len(number)
                    stack.append(to)
                    on_stack.add(to)
                    work.append((to, iter(edges[to])))
                    break
                if to in on_stack:
                    low[node] = min(low[node], number[to])
            else:
                work.pop()
                if work:
                    parent = work[-1][0]
                    low[parent] = min(low[parent], low[node])
                if low[node] == number[node]:
                    component: list[int] = []
                    while not component or component[-1] != node:
                        component.append(stack.pop())
                        on_stack.discard(component[-1])
                    found.append(component)

    visit(head)
    return found[::-1]


def live_registers(
    successors: list[tuple[int, ...]], uses: list[Iterable[str]], defines: list[Iterable[str]]
) -> list[set[str]]:
    """What each block's successors may read, by the usual backward iteration.

    Args:
        successors: of each block.
        uses: registers that a block reads before it writes them.
        defines: registers that a block writes.
    """
    live_in = [set(used) for used in uses]
    live_out: list[set[str]] = [set() for _ in successors]
    written = [set(names) for names in defines]
    changed = True
    while changed:
        changed = False
        for index in reversed(range(len(successors))):
            out = set().union(*(live_in[target] for target in successors[index]))
            if len(out) != len(live_out[index]):
                live_out[index] = out
                live_in[index] |= out - written[index]
                changed = True
    return live_out
