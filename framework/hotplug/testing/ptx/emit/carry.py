"""Sums that set and take the carry flag (PTX ISA, "Extended-precision integer arithmetic")."""

from __future__ import annotations

from hotplug.testing.ptx.syntax import Instruction, Operand, Register
from hotplug.testing.ptx.writer import CARRY, BlockWriter, Modifiers, instruction

__all__ = ["define_with_carry", "old_carry", "write_sum"]

_FLAG = Register(CARRY)
_TYPES = ("u32", "s32", "u64", "s64", "b32", "b64")


@instruction("addc", "subc")
def _sum_of_three(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    keep = bool(modifiers.take("cc"))
    write_sum(block, given, modifiers, old_carry(block), keep=keep)


def write_sum(
    block: BlockWriter, given: Instruction, modifiers: Modifiers, carry: str, *, keep: bool
) -> None:
    """A sum or difference.

    Args:
        block: where to write it.
        given: the instruction.
        modifiers: its modifiers, without `cc`.
        carry: Python for the carry that it takes; "False" for none.
        keep: whether it sets the flag.
    """
    type_ = f"u{modifiers.need(*_TYPES)[1:]}"
    a, b = block.values(given.operands[1:], type_, 2)
    function = "subtract_borrow" if given.opcode in ("sub", "subc") else "add_carry"
    both = f"{function}({a}, {b}, {carry})"
    define_with_carry(block, given.operands[0], type_, both, keep=keep)


def old_carry(block: BlockWriter) -> str:
    """Python for the carry flag."""
    return block.use(_FLAG, "pred")


def define_with_carry(
    block: BlockWriter, target: Operand, type_: str, both: str, *, keep: bool
) -> None:
    """Give a register, and perhaps the flag, the parts of a pair."""
    pair = block.local(both)
    block.define(target, type_, f"{pair}[0]")
    if keep:
        block.define(_FLAG, "pred", f"{pair}[1]")
