"""Integer arithmetic (PTX ISA, "Integer arithmetic instructions")."""

from __future__ import annotations

from hotplug.testing.ptx.emit import floats
from hotplug.testing.ptx.emit.carry import define_with_carry, old_carry, write_sum
from hotplug.testing.ptx.syntax import Instruction, Operand
from hotplug.testing.ptx.types import SIZES, is_float
from hotplug.testing.ptx.writer import BlockWriter, Modifiers, instruction

_TYPES = ("u16", "u32", "u64", "s16", "s32", "s64")
_FUNCTIONS = {
    "min": "np.minimum", "max": "np.maximum", "neg": "np.negative", "abs": "np.abs",
    "div": "divide", "rem": "remainder",
}  # fmt: skip


@instruction("add", "sub", "mul", "mad", "min", "max", "neg", "abs", "div", "rem", "fma")
def _arithmetic(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    """Opcodes that are of integers or of floating point numbers by their type."""
    if any(is_float(name) for name in given.modifiers):
        floats.write(block, given, modifiers)
    elif given.opcode in ("add", "sub"):
        _sum(block, given, modifiers)
    elif given.opcode == "mul":
        _mul(block, given, modifiers)
    elif given.opcode == "mad":
        _mad(block, given, modifiers)
    elif given.opcode in _FUNCTIONS:
        _call(block, given, modifiers)
    else:
        raise modifiers.error("no known type")


def _sum(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    if modifiers.take("cc"):
        write_sum(block, given, modifiers, "False", keep=True)
        return
    saturate = modifiers.take("sat")
    type_ = modifiers.need("s32") if saturate else modifiers.need(*_TYPES)
    a, b = block.values(given.operands[1:], type_, 2)
    mark = "+" if given.opcode == "add" else "-"
    if saturate:
        wide = block.dtype("i8")
        exact = f"{a}.astype({wide}) {mark} {b}.astype({wide})"
        block.define(given.operands[0], type_, f"clamp({exact}, {block.dtype('i4')})")
    else:
        block.define(given.operands[0], type_, f"{a} {mark} {b}")


def _call(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    type_ = modifiers.need(*_TYPES)
    count = 1 if given.opcode in ("neg", "abs") else 2
    values = ", ".join(block.values(given.operands[1:], type_, count))
    block.define(given.operands[0], type_, f"{_FUNCTIONS[given.opcode]}({values})")


def _mul(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    part = modifiers.need("lo", "hi", "wide")
    type_ = modifiers.need(*_TYPES)
    target, a, b = given.operands
    block.define(target, *_product(block, a, b, part, type_))


@instruction("madc")
def _mad(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    part = modifiers.need("lo", "hi", "wide")
    keep = bool(modifiers.take("cc"))
    type_ = modifiers.need(*_TYPES)
    target, a, b, c = given.operands
    wide, product = _product(block, a, b, part, type_)
    if given.opcode == "mad" and not keep:
        block.define(target, wide, f"{product} + {block.use(c, wide)}")
        return
    bare = f"u{wide[1:]}"
    carry = old_carry(block) if given.opcode == "madc" else "False"
    summand = f"({product}).view({block.dtype(f'u{SIZES[wide]}')})"
    both = f"add_carry({summand}, {block.use(c, bare)}, {carry})"
    define_with_carry(block, target, bare, both, keep=keep)


def _product(block: BlockWriter, a: Operand, b: Operand, part: str, type_: str) -> tuple[str, str]:
    """Type of a product, and Python for it."""
    x, y = block.use(a, type_), block.use(b, type_)
    if part == "lo":
        return type_, f"{x} * {y}"
    if part == "hi":
        return type_, f"high_product({x}, {y})"
    if type_.endswith("64"):
        raise ValueError("no type is twice as wide")
    code = block.dtype(f"{'i' if type_[0] == 's' else 'u'}{2 * SIZES[type_]}")
    return f"{type_[0]}{16 * SIZES[type_]}", f"np.multiply({x}, {y}, dtype={code})"
