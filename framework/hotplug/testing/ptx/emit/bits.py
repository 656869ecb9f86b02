"""Logic, shifts and other instructions on bits (PTX ISA, "Logic and shift instructions")."""

from __future__ import annotations

from hotplug.testing.ptx.syntax import Immediate, Instruction
from hotplug.testing.ptx.types import SIZES
from hotplug.testing.ptx.writer import BlockWriter, Modifiers, instruction

_BITS = ("b16", "b32", "b64", "pred")


@instruction("and", "or", "xor")
def _logic(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    type_ = modifiers.need(*_BITS)
    target, a, b = given.operands
    mark = {"and": "&", "or": "|", "xor": "^"}[given.opcode]
    block.define(target, type_, f"{block.use(a, type_)} {mark} {block.use(b, type_)}")


@instruction("not", "cnot")
def _not(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    type_ = modifiers.need(*_BITS)
    target, a = given.operands
    value = block.use(a, type_)
    if given.opcode == "cnot":
        block.define(target, type_, f"({value} == 0).astype({block.dtype(f'i{SIZES[type_]}')})")
    else:
        block.define(target, type_, f"~{value}")


@instruction("shl", "shr")
def _shift(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    type_ = modifiers.need("b16", "b32", "b64", "u16", "u32", "u64", "s16", "s32", "s64")
    type_ = f"u{type_[1:]}" if type_[0] == "b" and given.opcode == "shr" else type_
    target, a, amount = given.operands
    value = block.use(a, type_)
    width = 8 * SIZES[type_]
    if isinstance(amount, Immediate) and 0 <= int(amount.value) < width:
        mark = "<<" if given.opcode == "shl" else ">>"
        block.define(target, type_, f"{value} {mark} {block.constant(amount, type_)}")
        return
    name = "shift_left" if given.opcode == "shl" else "shift_right"
    block.define(target, type_, f"{name}({value}, {block.use(amount, 'u32')})")


@instruction("popc", "clz", "bfind", "brev")
def _counts(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    shift = modifiers.take("shiftamt") if given.opcode == "bfind" else ""
    types = ("u32", "s32", "u64", "s64") if given.opcode == "bfind" else ("b32", "b64")
    type_ = modifiers.need(*types)
    target, a = given.operands
    read = type_ if type_[0] == "s" else f"u{type_[1:]}"
    extra = ", shift=True" if shift else ""
    result = f"u{type_[1:]}" if given.opcode == "brev" else "u32"
    block.define(target, result, f"{given.opcode}({block.use(a, read)}{extra})")


@instruction("bfe")
def _bfe(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    type_ = modifiers.need("u32", "u64", "s32", "s64")
    target, a, start, length = given.operands
    values = f"{block.use(a, type_)}, {block.use(start, 'u32')}, {block.use(length, 'u32')}"
    block.define(target, type_, f"bfe({values})")


@instruction("bfi")
def _bfi(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    type_ = f"u{modifiers.need('b32', 'b64')[1:]}"
    target, a, b, start, length = given.operands
    values = f"{block.use(a, type_)}, {block.use(b, type_)}"
    block.define(
        target, type_, f"bfi({values}, {block.use(start, 'u32')}, {block.use(length, 'u32')})"
    )


@instruction("prmt")
def _prmt(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    modifiers.need("b32")

    target, a, b, selector = given.operands
    values = ", ".join(block.use(operand, "u32") for operand in (a, b, selector))
    block.define(target, "u32", f"prmt({values})")


@instruction("lop3")
def _lop3(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    modifiers.need("b32")
    target, a, b, c, table = given.operands
    if not isinstance(table, Immediate):
        raise modifiers.error("the table must be a constant")
    values = ", ".join(block.use(operand, "u32") for operand in (a, b, c))
    block.define(target, "u32", f"lop3({values}, {int(table.value)})")


@instruction("shf")
def _shf(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    direction = modifiers.need("l", "r")
    mode = modifiers.need("clamp", "wrap")
    modifiers.need("b32")
    target, low, high, amount = given.operands
    values = ", ".join(block.use(operand, "u32") for operand in (low, high, amount))
    block.define(target, "u32", f"funnel({values}, {direction!r}, {mode!r})")


@instruction("dp4a", "dp2a")
def _dp(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    half = modifiers.need("lo", "hi") if given.opcode == "dp2a" else ""
    a_type, b_type = modifiers.type(), modifiers.type()
    if not {a_type, b_type} <= {"u32", "s32"}:
        raise modifiers.error("a type that is not known")
    target, a, b, c = given.operands
    result = "s32" if "s32" in (a_type, b_type) else "u32"
    values = f"{block.use(a, a_type)}, {block.use(b, b_type)}, {block.use(c, result)}"
    extra = f", {half!r}" if half else ""
    block.define(target, result, f"{given.opcode}({values}{extra})")


@instruction("sad")
def _sad(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    type_ = modifiers.need("u16", "u32", "u64", "s16", "s32", "s64")
    a, b, c = (block.use(operand, type_) for operand in given.operands[1:])
    block.define(given.operands[0], type_, f"{c} + np.where({a} < {b}, {b} - {a}, {a} - {b})")
