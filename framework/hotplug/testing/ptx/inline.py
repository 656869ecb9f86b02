"""Calls replaced by what they call, so that an entry is one flat list of statements.

Device functions that NVRTC leaves un-inlined (PTX ISA, "Function declarations") are few and
never recursive. What callers and callees hand over in .param space lies in the thread's local
memory here, in the caller's variable, which the callee's parameter is another name of.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from hotplug.testing.ptx.errors import PTXError
from hotplug.testing.ptx.syntax import (
    Address,
    Function,
    Instruction,
    Label,
    Operand,
    Register,
    Statement,
    Symbol,
    Targets,
    Variable,
    Vector,
)

__all__ = ["flatten"]


def flatten(entry: Function, functions: Mapping[str, Function]) -> Function:
    """An entry without calls.

    Raises:
        PTXError: a call of what is not defined, of itself, or through a pointer.
    """
    if not any(isinstance(item, Instruction) and item.opcode == "call" for item in entry.body):
        return entry
    flat = _Flat(entry, functions)
    flat.add(entry, "", {}, None, (entry.name,))
    return flat.result


class _Flat:
    def __init__(self, entry: Function, functions: Mapping[str, Function]) -> None:
        self._functions = functions
        self._calls = 0
        self.result = dataclasses.replace(entry, body=[], registers={}, variables=[])

    def add(
        self,
        function: Function,
        prefix: str,
        places: dict[str, str],
        after: str | None,
        callers: tuple[str, ...],
    ) -> None:
        """Append a function's body.

        Args:
            function: what to append.
            prefix: for its own names.
            places: its parameters -> the caller's names for them.
            after: where its `ret` goes; None for the entry, whose `ret` ends a thread.
            callers: names of the functions that are being appended.
        """
        result = self.result
        result.registers.update(
            {prefix + name: type_ for name, type_ in function.registers.items()}
        )
        for variable in function.variables:
            space = "local" if variable.space == "param" else variable.space
            renamed = dataclasses.replace(variable, space=space, name=prefix + variable.name)
            result.variables.append(renamed)
        names = _Names(function, prefix, places)
        for statement in function.body:
            if isinstance(statement, Instruction) and statement.opcode == "call":
                self._call(statement, names, callers)
            elif isinstance(statement, Instruction) and statement.opcode == "ret" and after:
                jump = dataclasses.replace(
                    statement, opcode="bra", modifiers=(), operands=(Symbol(after),)
                )
                result.body.append(names.instruction(jump, keep=after))
            else:
                result.body.append(names.statement(statement))

    def _call(self, call: Instruction, names: _Names, callers: tuple[str, ...]) -> None:
        lists = [operand for operand in call.operands if isinstance(operand, Vector)]
        targets = [operand for operand in call.operands if isinstance(operand, Symbol)]
        callee = self._functions.get(targets[0].name) if len(targets) == 1 else None
        if callee is None or not callee.body:
            raise PTXError("a call of what is not defined", instruction=call.text, line=call.line)
        if callee.name in callers:
            raise PTXError("recursion is not known", instruction=call.text, line=call.line)
        if call.guard is not None:
            raise PTXError("a guarded call is not known", instruction=call.text, line=call.line)
        formal = [*callee.returns, *callee.parameters]
        actual = [name for operand in lists for name in names.handed_over(operand)]
        if len(formal) != len(actual):
            raise PTXError("a call with other parameters", instruction=call.text, line=call.line)
        self._calls += 1
        prefix = f"f{self._calls}."
        after = f"{prefix}return"
        places = {variable.name: name for variable, name in zip(formal, actual, strict=True)}
        self.add(callee, prefix, places, after, (*callers, callee.name))
        self.result.body.append(Label(after))


class _Names:
    """Renames what a function's statements name."""

    def __init__(self, function: Function, prefix: str, places: Mapping[str, str]) -> None:
        self._prefix = prefix
        self._places = places
        self._own = set(function.registers)
        self._own |= {item.name for item in function.variables}
        self._own |= {item.name for item in function.body if isinstance(item, Label | Targets)}
        # In an entry, .param may also mean the launch's arguments.
        self._handed = {item.name for item in function.variables if item.space == "param"}
        self._handed |= set(places)
        self._in_entry = function.is_entry

    def handed_over(self, operand: Operand) -> list[str]:
        """The variables that a list of a call names."""
        assert isinstance(operand, Vector)
        return [self._name(item.name) for item in operand.items if isinstance(item, Symbol)]

    def statement(self, statement: Statement) -> Statement:
        if isinstance(statement, Label):
            return Label(self._name(statement.name))
        if isinstance(statement, Targets):
            labels = tuple(self._name(label) for label in statement.labels)
            return Targets(self._name(statement.name), labels)
        return self.instruction(statement)

    def instruction(self, given: Instruction, keep: str = "") -> Instruction:
        guard = given.guard and Register(self._name(given.guard.name), given.guard.negated)
        operands = tuple(self._operand(operand, keep) for operand in given.operands)
        modifiers = given.modifiers
        if "param" in modifiers and self._is_handed_over(given):
            modifiers = tuple("local" if item == "param" else item for item in modifiers)
        return dataclasses.replace(given, modifiers=modifiers, operands=operands, guard=guard)

    def _is_handed_over(self, given: Instruction) -> bool:
        """Whether .param of an instruction is what calls hand over."""
        at = given.operands[0 if given.opcode == "st" else 1]
        base = at.base if isinstance(at, Address) else at
        return not self._in_entry or (isinstance(base, Symbol) and base.name in self._handed)

    def _operand(self, operand: Operand, keep: str = "") -> Operand:
        if isinstance(operand, Register):
            return Register(self._name(operand.name), operand.negated)
        if isinstance(operand, Symbol):
            name = operand.name if operand.name == keep else self._name(operand.name)
            return Symbol(name, operand.offset)
        if isinstance(operand, Address):
            base = self._operand(operand.base)
            assert not isinstance(base, Address | Vector)
            return Address(base, operand.offset)
        if isinstance(operand, Vector):
            return Vector(tuple(self._operand(item) for item in operand.items))
        return operand

    def _name(self, name: str) -> str:
        if name in self._places:
            return self._places[name]
        return self._prefix + name if name in self._own else name


def parameters(entry: Function) -> tuple[tuple[Variable, int], ...]:
    """An entry's parameters with their places in its block of parameters."""
    placed = []
    at = 0
    for variable in entry.parameters:
        at = -(-at // variable.alignment) * variable.alignment
        placed.append((variable, at))
        at += variable.size
    return tuple(placed)
