"""One basic block becomes one Python function over all threads that are at it.

In it every register is a Python variable that holds a NumPy array with a value per thread, or a
scalar where all threads have the same. Registers are bits: a value is kept in the NumPy type that
it was computed in, and seen through another by `view` when an instruction asks for that. Registers
that the block reads first are fetched at its beginning, and those that later blocks read are put
back at its end, in the type of their declaration.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hotplug.testing.ptx.errors import PTXError
from hotplug.testing.ptx.memory import Site
from hotplug.testing.ptx.syntax import Address, Immediate, Instruction, Operand, Register, Symbol
from hotplug.testing.ptx.types import DTYPES, HOMES, SIZES, Value, is_float

__all__ = ["EMITTERS", "BlockWriter", "Modifiers", "instruction"]

CARRY = "%CC.CF"
"""The carry flag, as a predicate register of its own."""

_SPECIAL = re.compile(
    r"%(tid|ntid|ctaid|nctaid)\.[xyz]|%(laneid|warpid|nwarpid|smid|gridid|clock|clock64"
    r"|lanemask_(eq|le|lt|ge|gt)|envreg\d+)"
)

Emitter = Callable[["BlockWriter", Instruction, "Modifiers"], None]

EMITTERS: dict[str, Emitter] = {}
"""Opcode -> what writes its Python."""


def instruction(*opcodes: str) -> Callable[[Emitter], Emitter]:
    """Enter a function as what writes these instructions."""

    def enter(emitter: Emitter) -> Emitter:
        for opcode in opcodes:
            EMITTERS[opcode] = emitter
        return emitter

    return enter


class Modifiers:
    """What follows an opcode; every modifier must be taken."""

    def __init__(self, given: Instruction) -> None:
        self._given = given
        self._left = list(given.modifiers)

    def take(self, *names: str) -> str:
        """The first of these that is there, taken; "" if none is."""
        for name in names:
            if name in self._left:
                self._left.remove(name)
                return name
        return ""

    def need(self, *names: str) -> str:
        """One of these, which must be there.

        Raises:
            PTXError: none is.
        """
        found = self.take(*names)
        if not found:
            raise self.error(f"none of {', '.join(names)}")
        return found

    def type(self) -> str:
        """The next type in the order of the text.

        Raises:
            PTXError: there is none.
        """
        for name in self._left:
            if name in DTYPES:
                self._left.remove(name)
                return name
        raise self.error("no known type")

    def done(self) -> None:
        """Everything must be taken by now.

        Raises:
            PTXError: a modifier is left.
        """
        if self._left:
            raise self.error(f"unknown modifier .{self._left[0]}")

    def error(self, message: str) -> PTXError:
        """An error that names the instruction."""
        return PTXError(message, instruction=self._given.text, line=self._given.line)


class BlockWriter:
    """Writes a block's Python.

    Args:
        registers: name -> declared type.
        symbols: variable -> its address, or Python for it.
        constants: names -> objects of the program, which this adds to.
        sites: accesses to memory of the program, which this adds to.
    """

    def __init__(
        self,
        registers: Mapping[str, str],
        symbols: Mapping[str, int | str],
        constants: dict[str, Any],
        sites: list[Site],
    ) -> None:
        self._registers = registers
        self._symbols = symbols
        self._constants = constants
        self._sites = sites
        self._versions: dict[str, dict[str, str]] = {}
        self._counts: dict[str, int] = {}
        self._aliases: set[str] = set()
        self.lines: list[str] = []
        self.condition = ""
        self.uses: dict[str, str] = {}
        self.defined: set[str] = set()

    # Operands.

    def use(self, operand: Operand, type_: str) -> str:
        """Python for an operand as a value of a type.

        Raises:
            PTXError: it is no value.
        """
        if isinstance(operand, Immediate):
            return self.constant(operand, type_)
        if isinstance(operand, Symbol):
            return self._symbol(operand, type_)
        if not isinstance(operand, Register):
            raise PTXError(f"{operand} is no value")
        if _SPECIAL.fullmatch(operand.name):
            return self._cast(f'm.special("{operand.name[1:]}", lanes)', "i4", DTYPES[type_])
        value = self._read(operand.name, DTYPES[type_])
        return f"~{value}" if operand.negated else value

    def values(self, operands: Sequence[Operand], type_: str, *counts: int) -> list[str]:
        """Python for operands of one type, of which there must be as many as one of the counts.

        Raises:
            PTXError: there are more or fewer.
        """
        if len(operands) not in counts:
            raise PTXError(f"{len(operands)} source operands")
        return [self.use(operand, type_) for operand in operands]

    def constant(self, value: Immediate | float, type_: str) -> str:
        """Python for a constant of a type."""
        if not isinstance(value, Immediate):
            value = Immediate(value, "f64" if isinstance(value, float) else "int")
        name, scalar = _constant(value, DTYPES[type_])
        self._constants[name] = scalar
        return name

    def define(self, operand: Operand, type_: str, expression: str, *, alias: bool = False) -> None:
        """Give a register a value.

        Args:
            operand: the register; _ drops the value.
            type_: of the value; a narrower one is extended to the register's size.
            expression: Python for it.
            alias: whether the value may be the memory of another register.
        """
        if not isinstance(operand, Register):
            raise PTXError(f"{operand} is no register")
        if operand.name == "_":
            self.lines.append(expression)
            return
        code = DTYPES[type_]
        home = self.home(operand.name)
        size = _size(home)
        if size > _size(code):
            code = f"{code[0] if code[0] != 'f' else 'u'}{size}"
            expression = f"({expression}).astype({self.dtype(code)})"
            alias = False
        elif size < _size(code):
            code = f"i{size}"
            expression = f"({expression}).astype({self.dtype(code)})"
            alias = False
        name = self._name(operand.name)
        self.lines.append(f"{name} = {expression}")
        self._versions[operand.name] = {code: name}
        self.defined.add(operand.name)
        (self._aliases.add if alias else self._aliases.discard)(operand.name)

    def local(self, expression: str) -> str:
        """A Python variable for an intermediate value."""
        name = self._name("%t")
        self.lines.append(f"{name} = {expression}")
        return name

    def dtype(self, code: str) -> str:
        """Python for a NumPy type."""
        name = f"_{code}" if code != "?" else "_bool"
        self._constants[name] = np.dtype(code)
        return name

    def object(self, prefix: str, value: object) -> str:
        """Python for an object of the program."""
        name = f"_{prefix}{len(self._constants)}"
        self._constants[name] = value
        return name

    def address(self, operand: Operand) -> str:
        """Python for [base + offset] as a signed 64-bit value."""
        if not isinstance(operand, Address):
            raise PTXError(f"{operand} is no address")
        if isinstance(operand.base, Symbol):
            base = self._symbol(operand.base, "s64")
        elif isinstance(operand.base, Immediate):
            base = self.constant(operand.base, "s64")
        elif SIZES[self._type(operand.base.name)] == 4:
            # The sum has 32 bits, too: NVRTC makes negative bases with offsets that undo them.
            base = self.use(operand.base, "u32")
            if operand.offset:
                base = f"({base} + {self.constant(operand.offset % 2**32, 'u32')})"
            return f"{base}.astype({self.dtype('i8')})"
        else:
            base = self.use(operand.base, "s64")
        return f"{base} + {self.constant(operand.offset, 's64')}" if operand.offset else base

    def site(self, given: Instruction, type_: str, alignment: int, *, atomic: bool = False) -> str:
        """Python for an instruction's access to memory."""
        site = Site(given, len(self._sites), np.dtype(DTYPES[type_]), alignment, atomic)
        self._sites.append(site)
        return self.object("site", site)

    # The block's ends.

    def prologue(self) -> list[str]:
        """Python that fetches what the block reads first."""
        if not self.uses:
            return []
        names = ", ".join(self.uses.values())
        keys = ", ".join(repr(key) for key in self.uses)
        return [f"{names}, = m.get(lanes, ({keys},))"]

    def epilogue(self, live: set[str]) -> list[str]:
        """Python that puts back what later blocks read."""
        kept = sorted(self.defined & live)
        if not kept:
            return []
        values = [self._kept(name) for name in kept]
        pairs = ", ".join(f"({name!r}, {value})" for name, value in zip(kept, values, strict=True))
        return [f"m.put(lanes, ({pairs},))"]

    def _kept(self, name: str) -> str:
        value = self._read(name, self.home(name), declare=False)
        return f"{value}.copy()" if name in self._aliases else value

    # Registers.

    def _type(self, name: str) -> str:
        if name == CARRY:
            return "pred"
        if name not in self._registers:
            raise PTXError(f"no register {name}")
        return self._registers[name]

    def home(self, name: str) -> str:
        """The NumPy type that a register is kept in between blocks."""
        return HOMES[self._type(name)]

    def _read(self, name: str, code: str, *, declare: bool = True) -> str:
        versions = self._versions.get(name)
        if versions is None:
            variable = self._name(name)
            self.uses[name] = variable
            versions = self._versions[name] = {self.home(name): variable}
        if code in versions:
            return versions[code]
        source, variable = next(iter(versions.items()))
        expression = self._cast(variable, source, code)
        if not declare:
            return expression
        versions[code] = f"{variable}_{code}"
        self.lines.append(f"{versions[code]} = {expression}")
        return versions[code]

    def _cast(self, value: str, source: str, code: str) -> str:
        if source == code:
            return value
        if (source == "?") != (code == "?"):
            raise PTXError("a predicate is no number")
        if _size(source) == _size(code):
            return f"{value}.view({self.dtype(code)})"
        # Of a register that is wider than the type, its low bits are meant.
        if source[0] == "f":
            value = f"{value}.view({self.dtype('i' + source[1:])})"
        if code[0] == "f":
            return f"{value}.astype({self.dtype('i' + code[1:])}).view({self.dtype(code)})"
        return f"{value}.astype({self.dtype(code)})"

    def _name(self, register: str) -> str:
        """A new variable for a register: its name and a number. Others begin with an underscore."""
        stem = _stem(register)
        count = self._counts[stem] = self._counts.get(stem, 0) + 1
        return f"{stem}_{count}"

    def _symbol(self, symbol: Symbol, type_: str) -> str:
        if symbol.name == "WARP_SZ":
            return self.constant(32, type_)
        if symbol.name not in self._symbols:
            raise PTXError(f"no variable {symbol.name}")
        base = self._symbols[symbol.name]
        if isinstance(base, int):
            return self.constant(base + symbol.offset, type_)
        if symbol.offset:
            base = f"({base} + {self.constant(symbol.offset, 's64')})"
        return self._cast(base, "i8", DTYPES[type_])


def _size(code: str) -> int:
    return 1 if code == "?" else int(code[1:])


@functools.cache
def _stem(register: str) -> str:
    return re.sub(r"\W", "_", register).lstrip("_")


def _constant(value: Immediate, code: str) -> tuple[str, Value]:
    """A constant and its name, which tells its type and bits."""
    scalar = _scalar(value, code)
    digits = scalar.tobytes()[::-1].hex().lstrip("0") or "0"
    return f"_{code.replace('?', 'p')}_{digits}", scalar


def _scalar(value: Immediate, code: str) -> Value:
    dtype = np.dtype(code)
    if code == "?":
        return np.bool_(value.value)
    if value.kind == "int":
        if is_float(f"f{8 * dtype.itemsize}") and code[0] == "f":
            raise PTXError("an integer where a floating point number is meant")
        raw = int(value.value) % (1 << 8 * dtype.itemsize)
        return np.frombuffer(raw.to_bytes(dtype.itemsize, "little"), dtype)[0]
    source = np.dtype("f4" if value.kind == "f32" else "f8")
    number = np.asarray(value.value, source)
    if code[0] == "f":
        return number.astype(dtype)[()]
    if dtype.itemsize != source.itemsize:
        raise PTXError("a floating point number of another size")
    return number.view(dtype)[()]
