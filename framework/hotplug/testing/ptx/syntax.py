"""PTX text -> functions, variables and instructions (PTX ISA, "Syntax").

What is read is what compilers write: one statement after the other. Names of inner scopes are made
unique here, so that later steps know one flat list per function.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = [
    "Address",
    "Function",
    "Immediate",
    "Instruction",
    "Label",
    "Operand",
    "Register",
    "Source",
    "Statement",
    "Symbol",
    "Targets",
    "Variable",
    "Vector",
]


@dataclass(frozen=True, slots=True)
class Register:
    """A register by name, such as %r1 or the special %tid.x; `!%p1` is negated."""

    name: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Immediate:
    """A constant; floating point ones have their type in `kind`, decimal integers "int"."""

    value: int | float
    kind: str = "int"


@dataclass(frozen=True, slots=True)
class Symbol:
    """A variable's address plus bytes, a label or a function."""

    name: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Address:
    """[base + offset]."""

    base: Register | Symbol | Immediate
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Vector:
    """{a, b, ...}, the parts of `d|p`, or the parenthesised lists of a call."""

    items: tuple[Operand, ...]


Operand: TypeAlias = "Register | Immediate | Symbol | Address | Vector"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction.

    Attributes:
        opcode: its name without modifiers.
        modifiers: what follows the name, types included.
        operands: in the order of the text.
        guard: the predicate of `@%p`, or None.
        text: as it stands in the file.
        line: where, from 1.
    """

    opcode: str
    modifiers: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: Register | None
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Label:
    """A place that branches go to."""

    name: str


@dataclass(frozen=True, slots=True)
class Targets:
    """The table of labels of a brx.idx."""

    name: str
    labels: tuple[str, ...]


Statement: TypeAlias = "Instruction | Label | Targets"


@dataclass(frozen=True, slots=True)
class Variable:
    """Memory with a name.

    Attributes:
        space: global, const, shared, local or param.
        name: its name.
        type: type of an element.
        size: bytes; 0 for an array whose length the launch gives.
        alignment: bytes.
        data: what it holds at first, or None for zeros.
    """

    space: str
    name: str
    type: str
    size: int
    alignment: int
    data: bytes | None = None


@dataclass(slots=True)
class Function:
    """An entry or a device function.

    Attributes:
        name: its name.
        is_entry: whether it can be launched.
        parameters: what it takes, in order.
        returns: what it gives back.
        body: its statements; empty for a declaration.
        registers: name -> type.
        variables: its own shared, local and param variables.
        line: where it begins.
    """

    name: str
    is_entry: bool
    parameters: tuple[Variable, ...]
    returns: tuple[Variable, ...]
    line: int
    body: list[Statement] = field(default_factory=list)
    registers: dict[str, str] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Source:
    """All of a PTX text."""

    functions: dict[str, Function]
    variables: tuple[Variable, ...]
