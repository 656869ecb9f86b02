"""Integer arithmetic and comparison (PTX ISA, 9.7.1, 9.7.2 and 9.7.6)."""

from __future__ import annotations

from hotplug.testing.ptx.emit import floats
from hotplug.testing.ptx.syntax import Instruction, Operand, Register, Vector
from hotplug.testing.ptx.types import SIZES, is_float
from hotplug.testing.ptx.writer import CARRY, BlockWriter, Modifiers, instruction

_INTEGERS = ("u16", "u32", "u64", "s16", "s32", "s64")
_CARRY = Register(CARRY)


@instruction("add", "sub", "mul", "min", "max", "neg", "abs", "div", "fma")
def _arithmetic(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    """Opcodes that are of integers or of floating point numbers by their type."""
    if any(is_float(name) for name in given.modifiers):
        floats.write(block, given, modifiers)
    elif given.opcode in _BY_NAME:
        _BY_NAME[given.opcode](block, given, modifiers)
    else:
        raise modifiers.error("no known type")


def _sum(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    if modifiers.take("cc"):
        _add_carry(block, given, modifiers, "False")
        return
    saturate = modifiers.take("sat")
    type_ = modifiers.need(*_INTEGERS)
    target, a, b = given.operands
    x, y = block.use(a, type_), block.use(b, type_)
    mark = "+" if given.opcode == "add" else "-"
    if saturate:
        wide = block.dtype("i8")
        value = f"clamp({x}.astype({wide}) {mark} {y}.astype({wide}), {block.dtype('i4')})"
    else:
        value = f"{x} {mark} {y}"
    block.define(target, type_, value)


def _simple(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    type_ = modifiers.need(*_INTEGERS)
    count = 1 if given.opcode in ("neg", "abs") else 2
    values = ", ".join(block.values(given.operands[1:], type_, count))
    function = {
        "min": "np.minimum", "max": "np.maximum", "neg": "np.negative", "abs": "np.abs",
        "div": "divide", "rem": "remainder",
    }[given.opcode]  # fmt: skip
    block.define(given.operands[0], type_, f"{function}({values})")


def _mul(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    part = modifiers.need("lo", "hi", "wide")
    type_ = modifiers.need(*_INTEGERS)
    target, a, b = given.operands
    block.define(target, *_product(block, a, b, part, type_))


def _product(block: BlockWriter, a: Operand, b: Operand, part: str, type_: str) -> tuple[str, str]:
    x, y = block.use(a, type_), block.use(b, type_)
    if part == "lo":
        return type_, f"{x} * {y}"
    if part == "hi":
        return type_, f"high_product({x}, {y})"
    wide = f"{type_[0]}{16 * SIZES[type_]}"
    code = block.dtype(f"{'i' if type_[0] == 's' else 'u'}{2 * SIZES[type_]}")
    return wide, f"np.multiply({x}, {y}, dtype={code})"


@instruction("mad")
def _mad(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    if any(is_float(name) for name in given.modifiers):
        floats.write(block, given, modifiers)
        return
    part = modifiers.need("lo", "hi", "wide")
    carry = modifiers.take("cc")
    type_ = modifiers.need(*_INTEGERS)
    target, a, b, c = given.operands
    wide, product = _product(block, a, b, part, type_)
    if carry:
        unsigned_type = f"u{8 * SIZES[wide]}"
        _with_carry(block, target, block.local(product), block.use(c, unsigned_type),
                    unsigned_type, "False", keep=True)  # fmt: skip
    else:
        block.define(target, wide, f"{product} + {block.use(c, wide)}")


@instruction("madc")
def _madc(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    part = modifiers.need("lo", "hi")
    keep = bool(modifiers.take("cc"))
    type_ = modifiers.need("u32", "u64", "s32", "s64")
    target, a, b, c = given.operands
    _, product = _product(block, a, b, part, type_)
    unsigned_type = f"u{8 * SIZES[type_]}"
    _with_carry(block, target, block.local(product), block.use(c, unsigned_type), unsigned_type,
                block.use(_CARRY, "pred"), keep=keep)  # fmt: skip


@instruction("addc")
def _addc(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    keep = modifiers.take("cc")
    _add_carry(block, given, modifiers, block.use(_CARRY, "pred"), keep=bool(keep))


def _add_carry(
    block: BlockWriter, given: Instruction, modifiers: Modifiers, carry: str, *, keep: bool = True
) -> None:
    """Sums and differences that set, and with a carry take, the carry flag."""
    type_ = modifiers.need("u32", "s32", "u64", "s64", "b32", "b64")
    unsigned_type = f"u{8 * SIZES[type_]}"
    target, a, b = given.operands
    x, y = block.use(a, unsigned_type), block.use(b, unsigned_type)
    if given.opcode in ("sub", "subc"):
        difference, borrow = block.local(f"subtract_borrow({x}, {y}, {carry})"), True
        value, flag = f"{difference}[0]", f"{difference}[1]"
        assert borrow
        block.define(target, unsigned_type, value)
        if keep:
            block.define(_CARRY, "pred", flag)
    else:
        _with_carry(block, target, x, y, unsigned_type, carry, keep=keep)


def _with_carry(
    block: BlockWriter, target: Operand, x: str, y: str, type_: str, carry: str, *, keep: bool
) -> None:
    both = block.local(f"add_carry({x}.view({block.dtype(f'u{SIZES[type_]}')}), {y}, {carry})")
    block.define(target, type_, f"{both}[0]")
    if keep:
        block.define(_CARRY, "pred", f"{both}[1]")


@instruction("subc")
def _subc(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    keep = modifiers.take("cc")
    _add_carry(block, given, modifiers, block.use(_CARRY, "pred"), keep=bool(keep))


@instruction("rem")
def _rem(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    _simple(block, given, modifiers)


_BY_NAME = {
    "add": _sum, "sub": _sum, "mul": _mul, "min": _simple, "max": _simple, "neg": _simple,
    "abs": _simple, "div": _simple,
}  # fmt: skip

_RELATIONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
              "lo": "<", "ls": "<=", "hi": ">", "hs": ">="}  # fmt: skip
_UNORDERED = {"equ": "!=", "neu": "!=", "ltu": ">=", "leu": ">", "gtu": "<=", "geu": "<"}
"""Comparisons that hold for NaNs -> the one that they are the opposite of."""


@instruction("setp")
def _setp(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    relation = modifiers.need(*_RELATIONS, *_UNORDERED, "num", "nan")
    ftz = modifiers.take("ftz")
    combined = modifiers.take("and", "or", "xor")
    type_ = modifiers.type()
    target, a, b, *rest = given.operands
    x, y = (_flushed(block.use(operand, type_), ftz) for operand in (a, b))
    value = compare(relation, x, y, floating=is_float(type_))
    if not combined:
        block.define(target, "pred", value)
        return
    mark = {"and": "&", "or": "|", "xor": "^"}[combined]
    other = block.use(rest[0], "pred")
    value = block.local(value)
    if isinstance(target, Vector):
        block.define(target.items[1], "pred", f"~{value} {mark} {other}")
        target = target.items[0]
    block.define(target, "pred", f"{value} {mark} {other}")


def _flushed(value: str, ftz: str) -> str:
    return f"flush({value})" if ftz else value


def compare(relation: str, x: str, y: str, *, floating: bool) -> str:
    """Python for a comparison (PTX ISA, 9.3.1 "Comparisons")."""
    if relation == "nan":
        return f"(({x} != {x}) | ({y} != {y}))"
    if relation == "num":
        return f"(({x} == {x}) & ({y} == {y}))"
    if relation == "equ":
        return f"(({x} == {y}) | ({x} != {x}) | ({y} != {y}))"
    if relation == "neu":
        return f"({x} != {y})"
    if relation in _UNORDERED:
        return f"~({x} {_UNORDERED[relation]} {y})"
    if relation == "ne" and floating:
        return f"(({x} < {y}) | ({x} > {y}))"
    return f"({x} {_RELATIONS[relation]} {y})"


@instruction("set")
def _set(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    relation = modifiers.need(*_RELATIONS, *_UNORDERED, "num", "nan")
    ftz = modifiers.take("ftz")
    result, type_ = modifiers.type(), modifiers.type()
    if result not in ("u32", "s32", "f32"):
        raise modifiers.error("a type that is not known")
    x, y = (_flushed(block.use(operand, type_), ftz) for operand in given.operands[1:])
    condition = compare(relation, x, y, floating=is_float(type_))
    yes = block.constant(1.0 if result == "f32" else -1, result)
    no = block.constant(0.0 if result == "f32" else 0, result)
    block.define(given.operands[0], result, f"np.where({condition}, {yes}, {no})")
