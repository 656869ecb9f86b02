"""An entry translated: a Python function per basic block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hotplug.testing.ptx.compute import FUNCTIONS
from hotplug.testing.ptx.emit import emit
from hotplug.testing.ptx.flow import Block, blocks_of, live_registers
from hotplug.testing.ptx.inline import flatten, parameters
from hotplug.testing.ptx.memory import Site
from hotplug.testing.ptx.schedule import Step
from hotplug.testing.ptx.syntax import Function, Variable
from hotplug.testing.ptx.types import SIZES, Value
from hotplug.testing.ptx.writer import BlockWriter

__all__ = ["Program", "translate"]


@dataclass(frozen=True, slots=True)
class Program:
    """What a launch runs.

    Attributes:
        name: of the entry.
        steps: its blocks.
        parameters: (size, alignment) of each.
        offsets: where each lies in the block of parameters.
        shared_bytes: shared memory that the program itself declares.
        local_bytes: local memory of a thread.
        undefined: zeros for registers that a path reads and none before it writes.
        sites: its accesses to memory, by number.
        source: the Python that was generated.
    """

    name: str
    steps: tuple[Step, ...]
    parameters: tuple[tuple[int, int], ...]
    offsets: tuple[int, ...]
    shared_bytes: int
    local_bytes: int
    undefined: dict[str, Value]
    sites: tuple[Site, ...]
    source: str


def translate(
    entry: Function, functions: Mapping[str, Function], variables: Iterable[Variable]
) -> Program:
    """Translate an entry.

    Args:
        entry: what is launched.
        functions: what it may call.
        variables: of the module.

    Raises:
        PTXError: it uses what is not known.
    """
    flat = flatten(entry, functions)
    layout = _Layout(flat, tuple(variables))
    constants: dict[str, Any] = {"np": np, **FUNCTIONS}
    sites: list[Site] = []
    blocks = blocks_of(flat)
    registers = dict(flat.registers)
    writers = [_written(block, registers, layout.symbols, constants, sites) for block in blocks]
    live_out = live_registers(
        [block.successors for block in blocks],
        [writer.uses for writer in writers],
        [writer.defined for writer in writers],
    )
    texts = [
        _function(index, writer, live)
        for index, (writer, live) in enumerate(zip(writers, live_out, strict=True))
    ]
    source = "\n".join(texts)
    names = dict(constants)
    exec(compile(source, f"<ptx {entry.name}>", "exec"), names)  # noqa: S102 (our own text)
    steps = tuple(
        _step(index, block, writer, live, names, registers)
        for index, (block, writer, live) in enumerate(zip(blocks, writers, live_out, strict=True))
    )
    placed = parameters(entry)
    return Program(
        entry.name,
        steps,
        tuple((variable.size, variable.alignment) for variable, _ in placed),
        tuple(at for _, at in placed),
        layout.shared_bytes,
        layout.local_bytes,
        {name: np.zeros((), writers[0].home(name))[()] for name in steps[0].live},
        tuple(sites),
        source,
    )


class _Layout:
    """Where variables lie: the offset in their space, or Python for what a launch knows."""

    def __init__(self, entry: Function, variables: tuple[Variable, ...]) -> None:
        self.symbols: dict[str, int | str] = {}
        self.shared_bytes = 0
        self.local_bytes = 0
        last: list[str] = []
        for variable in (*variables, *entry.variables):
            if variable.space == "shared" and variable.size == 0:
                last.append(variable.name)
            elif variable.space == "shared":
                self.shared_bytes = self._place(variable, self.shared_bytes)
            elif variable.space == "local":
                self.local_bytes = self._place(variable, self.local_bytes)
            else:
                self.symbols[variable.name] = f"m.symbols[{variable.name!r}]"
        self.shared_bytes = -(-self.shared_bytes // 16) * 16 if last else self.shared_bytes
        for name in last:
            self.symbols[name] = self.shared_bytes
        for variable, at in parameters(entry):
            self.symbols[variable.name] = at

    def _place(self, variable: Variable, end: int) -> int:
        at = -(-end // variable.alignment) * variable.alignment
        self.symbols[variable.name] = at
        return at + variable.size


def _written(
    block: Block,
    registers: dict[str, str],
    symbols: dict[str, int | str],
    constants: dict[str, Any],
    sites: list[Site],
) -> BlockWriter:
    writer = BlockWriter(registers, symbols, constants, sites)
    for instruction in block.instructions:
        emit(writer, instruction)
    if block.condition is not None:
        type_ = registers.get(block.condition.name, "")
        plain = type(block.condition)(block.condition.name)
        wanted = "pred" if type_ == "pred" else f"u{8 * SIZES.get(type_, 4)}"
        writer.lines.append(f"# then {block.successors}")
        writer.condition = writer.use(plain, wanted)
    return writer


def _function(index: int, writer: BlockWriter, live: set[str]) -> str:
    body = [*writer.prologue(), *writer.lines, *writer.epilogue(live)]
    body.append(f"return {writer.condition}" if writer.condition else "return None")
    return "\n    ".join([f"def block_{index}(m, lanes):", *body])


def _step(
    index: int,
    block: Block,
    writer: BlockWriter,
    live: set[str],
    names: dict[str, Any],
    registers: dict[str, str],
) -> Step:
    condition = block.condition
    return Step(
        names[f"block_{index}"],
        block.kind,
        block.successors,
        condition is not None and registers[condition.name] != "pred",
        condition is not None and condition.negated,
        frozenset(set(writer.uses) | (live - writer.defined)),
        block.instructions[0] if block.instructions else None,
    )
