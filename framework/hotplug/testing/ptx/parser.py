"""Reads PTX text into `syntax.Source`."""

from __future__ import annotations

import re
import struct

from hotplug.testing.ptx.errors import PTXError
from hotplug.testing.ptx.syntax import (
    Address,
    Function,
    Immediate,
    Instruction,
    Label,
    Operand,
    Register,
    Source,
    Symbol,
    Targets,
    Variable,
    Vector,
)
from hotplug.testing.ptx.tokens import Tokens
from hotplug.testing.ptx.types import DTYPES, SIZES

__all__ = ["parse"]

_SPACES = ("global", "const", "shared", "local", "param")
_LINKING = ("visible", "extern", "weak", "common")
_PERFORMANCE = ("maxntid", "reqntid", "minnctapersm", "maxnreg", "noreturn", "maxnctapersm")
_UNIT = ("version", "target", "address_size", "file", "section", "alias")


def parse(text: str) -> Source:
    """Read a PTX text.

    Raises:
        PTXError: it is not PTX, or uses what is not known here.
    """
    return _Parser(text).source()


class _Scope:
    """Names of one pair of braces; inner ones get a suffix that no name of PTX has."""

    def __init__(self, number: int) -> None:
        self._suffix = f"~{number}" if number else ""
        self._names: set[str] = set()
        self._families: dict[str, int] = {}

    def declare(self, name: str) -> str:
        self._names.add(name)
        return name + self._suffix

    def declare_family(self, prefix: str, count: int) -> list[str]:
        self._families[prefix] = count
        return [f"{prefix}{index}{self._suffix}" for index in range(count)]

    def find(self, name: str) -> str | None:
        if name in self._names:
            return name + self._suffix
        match = re.fullmatch(r"(.*?)(\d+)", name)
        if match and int(match[2]) < self._families.get(match[1], 0):
            return name + self._suffix
        return None


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = Tokens(text)
        self._functions: dict[str, Function] = {}
        self._variables: list[Variable] = []
        self._scopes: list[_Scope] = []
        self._scope_count = 0
        self._known: dict[str, str] = {}
        # Names as they stand here -> unique ones; forgotten where a scope or declaration begins.
        self._resolved: dict[str, str] = {}

    def source(self) -> Source:
        while self._tokens.peek().kind != "end":
            self._top_level()
        return Source(self._functions, tuple(self._variables))

    def _top_level(self) -> None:
        word = self._tokens.next()
        name = word.text.lstrip(".")
        if word.kind == "dotted" and name in _UNIT:
            self._tokens.skip_line(word.line)
        elif word.kind == "dotted" and name in _LINKING:
            return
        elif word.kind == "dotted" and name in ("entry", "func"):
            self._function(name == "entry", word.line)
        elif word.kind == "dotted" and name in _SPACES:
            self._variables += self._declaration(name)
        else:
            raise PTXError(f"unexpected {word.text!r}", line=word.line)

    def _function(self, is_entry: bool, line: int) -> None:
        returns = self._parameters() if self._tokens.peek().text == "(" else ()
        name = self._tokens.name()
        parameters = self._parameters() if self._tokens.peek().text == "(" else ()
        function = Function(name, is_entry, parameters, returns, line)
        while self._tokens.peek().kind == "dotted":
            self._performance()
        if self._tokens.accept(";"):
            self._functions.setdefault(name, function)
            return
        self._tokens.expect("{")
        self._scopes = []
        self._scope_count = 0
        self._known = function.registers
        self._block(function)
        self._functions[name] = function

    def _performance(self) -> None:
        word = self._tokens.next()
        if word.text.lstrip(".") not in _PERFORMANCE:
            raise PTXError(f"unknown directive {word.text!r}", line=word.line)
        while self._tokens.peek().kind == "int":
            self._tokens.next()
            self._tokens.accept(",")

    def _parameters(self) -> tuple[Variable, ...]:
        self._tokens.expect("(")
        found: list[Variable] = []
        while not self._tokens.accept(")"):
            word = self._tokens.next()
            if word.text == ".reg":
                type_ = self._tokens.next().text.lstrip(".")
                found.append(Variable("param", self._tokens.name(), type_, SIZES[type_], 1))
            elif word.text == ".param":
                found.append(self._variable("param"))
            else:
                raise PTXError(f"unexpected {word.text!r} among parameters", line=word.line)
            self._tokens.accept(",")
        return tuple(found)

    def _declaration(self, space: str) -> list[Variable]:
        """Everything up to the semicolon after a state space."""
        found = [self._variable(space)]
        while self._tokens.accept(","):
            first = found[0]
            name, size, data = self._declarator(first.type)
            found.append(Variable(space, name, first.type, size, first.alignment, data))
        self._tokens.expect(";")
        return found

    def _variable(self, space: str) -> Variable:
        alignment = 0
        elements = 1
        while True:
            word = self._tokens.next()
            name = word.text.lstrip(".")
            if name == "align":
                alignment = self._tokens.integer()
            elif name in ("v2", "v4"):
                elements = int(name[1])
            elif name in ("ptr", "global", "const", "attribute"):
                self._skip_parentheses()
            elif name in DTYPES:
                break
            else:
                raise PTXError(f"unknown type {word.text!r}", line=word.line)
        # `.u64 .ptr .global .align 1 name` tells what a pointer points to.
        while self._tokens.peek().kind == "dotted":
            if self._tokens.next().text == ".align":
                self._tokens.integer()
        label, size, data = self._declarator(name)
        size *= elements
        return Variable(space, label, name, size, alignment or SIZES[name] * elements, data)

    def _skip_parentheses(self) -> None:
        if self._tokens.accept("("):
            while not self._tokens.accept(")"):
                self._tokens.next()

    def _declarator(self, type_: str) -> tuple[str, int, bytes | None]:
        """A name, its array's lengths and its initial value: (name, bytes, data)."""
        name = self._tokens.name()
        count = 1
        open_ended = False
        while self._tokens.accept("["):
            if self._tokens.accept("]"):
                open_ended = True
                continue
            count *= self._tokens.integer()
            self._tokens.expect("]")
        data = None
        if self._tokens.accept("="):
            data = b"".join(_encode(value, type_) for value in self._initial_values())
        if open_ended:
            return name, len(data or b""), data
        size = count * SIZES[type_]
        return name, size, data.ljust(size, b"\0") if data is not None else None

    def _initial_values(self) -> list[Immediate]:
        if not self._tokens.accept("{"):
            return [self._initial_value()]
        values: list[Immediate] = []
        while not self._tokens.accept("}"):
            values += self._initial_values()
            self._tokens.accept(",")
        return values

    def _initial_value(self) -> Immediate:
        word = self._tokens.peek()
        if word.kind == "name":
            raise PTXError(
                f"an address of {word.text!r} in initial data is not known", line=word.line
            )
        return self._tokens.number()

    # Bodies.

    def _block(self, function: Function) -> None:
        """Statements after an opening brace, up to and with the closing one."""
        self._resolved = {}
        self._scopes.append(_Scope(self._scope_count))
        self._scope_count += 1
        while not self._tokens.accept("}"):
            self._statement(function)
        self._scopes.pop()
        self._resolved = {}

    def _statement(self, function: Function) -> None:
        word = self._tokens.peek()
        if word.kind == "end":
            raise PTXError("the text ends within a function", line=word.line)
        if word.text == "{":
            self._tokens.next()
            self._block(function)
        elif word.text == ";":
            self._tokens.next()
        elif word.kind == "dotted":
            self._directive(function)
        elif word.kind == "name" and self._tokens.peek(1).text == ":":
            self._label(function)
        else:
            function.body.append(self._instruction())

    def _directive(self, function: Function) -> None:
        word = self._tokens.next()
        name = word.text.lstrip(".")
        self._resolved = {}
        if name == "reg":
            self._registers(function)
        elif name in _SPACES:
            for variable in self._declaration(name):
                unique = self._scopes[-1].declare(variable.name)
                function.variables.append(
                    Variable(
                        name,
                        unique,
                        variable.type,
                        variable.size,
                        variable.alignment,
                        variable.data,
                    )
                )
        elif name == "pragma":
            self._tokens.next()
            self._tokens.expect(";")
        elif name in ("loc", "file"):
            self._tokens.skip_line(word.line)
        else:
            raise PTXError(f"unknown directive {word.text!r}", line=word.line)

    def _registers(self, function: Function) -> None:
        word = self._tokens.next()
        type_ = word.text.lstrip(".")
        if type_ not in DTYPES:
            raise PTXError(f"unknown type of registers {word.text!r}", line=word.line)
        scope = self._scopes[-1]
        while True:
            name = self._tokens.name()
            if self._tokens.accept("<"):
                count = self._tokens.integer()
                self._tokens.expect(">")
                names = scope.declare_family(name, count)
            else:
                names = [scope.declare(name)]
            function.registers.update(dict.fromkeys(names, type_))
            if not self._tokens.accept(","):
                break
        self._tokens.expect(";")

    def _label(self, function: Function) -> None:
        name = self._tokens.name()
        self._tokens.expect(":")
        if self._tokens.peek().text != ".branchtargets":
            function.body.append(Label(name))
            return
        self._tokens.next()
        labels = [self._tokens.name()]
        while self._tokens.accept(","):
            labels.append(self._tokens.name())
        self._tokens.expect(";")
        function.body.append(Targets(name, tuple(labels)))

    def _instruction(self) -> Instruction:
        start = self._tokens.peek()
        guard = self._guard() if self._tokens.accept("@") else None
        word = self._tokens.next()
        if word.kind != "name":
            raise PTXError(f"expected an instruction, found {word.text!r}", line=word.line)
        operands: list[Operand] = []
        while self._tokens.peek().text != ";":
            operands.append(self._operand())
            if not self._tokens.accept(","):
                break
        end = self._tokens.expect(";")
        opcode, *modifiers = word.text.replace("::", "_").split(".")
        text = self._tokens.between(start, end)
        return Instruction(opcode, tuple(modifiers), tuple(operands), guard, text, start.line)

    def _guard(self) -> Register:
        negated = self._tokens.accept("!")
        return Register(self._resolve(self._tokens.name()), negated)

    def _operand(self) -> Operand:
        if self._tokens.peek().kind == "name" and self._tokens.peek(1).text in (",", ";"):
            return self._named()
        first = self._single_operand()
        if self._tokens.accept("|"):
            return Vector((first, self._single_operand()))
        return first

    def _single_operand(self) -> Operand:
        word = self._tokens.peek()
        if self._tokens.accept("{"):
            return self._list("}")
        if self._tokens.accept("("):
            return self._list(")")
        if self._tokens.accept("["):
            return self._address()
        if self._tokens.accept("!"):
            return Register(self._resolve(self._tokens.name()), negated=True)
        if word.kind == "name":
            return self._named()
        return self._tokens.number()

    def _list(self, closing: str) -> Vector:
        items: list[Operand] = []
        while not self._tokens.accept(closing):
            items.append(self._single_operand())
            self._tokens.accept(",")
        return Vector(tuple(items))

    def _named(self) -> Register | Symbol:
        word = self._tokens.next()
        name = self._resolve(word.text)
        if name[0] == "%" or name == "_" or name in self._known:
            return Register(name)
        return Symbol(name, self._offset())

    def _address(self) -> Address:
        base: Register | Symbol | Immediate
        if self._tokens.peek().kind == "name":
            named = self._named()
            base = Symbol(named.name) if isinstance(named, Symbol) else named
            offset = named.offset if isinstance(named, Symbol) else self._offset()
        else:
            base, offset = self._tokens.number(), 0
        self._tokens.expect("]")
        return Address(base, offset)

    def _offset(self) -> int:
        if self._tokens.accept("+"):
            return self._tokens.integer()
        if self._tokens.peek().text == "-":
            return self._tokens.integer()
        return 0

    def _resolve(self, name: str) -> str:
        resolved = self._resolved.get(name)
        if resolved is None:
            found = (scope.find(name) for scope in reversed(self._scopes))
            resolved = next((unique for unique in found if unique is not None), name)
            self._resolved[name] = resolved
        return resolved


def _encode(constant: Immediate, type_: str) -> bytes:
    if type_ == "f32":
        return struct.pack("<f", constant.value)
    if type_ == "f64":
        return struct.pack("<d", constant.value)
    if not isinstance(constant.value, int):
        raise PTXError(f"{constant.value} is no value of {type_}")
    size = SIZES[type_]
    return (constant.value % (1 << 8 * size)).to_bytes(size, "little")
