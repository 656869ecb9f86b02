"""Barriers, exchanges between threads and atomic operations, and traps."""

from __future__ import annotations

from hotplug.testing.ptx.syntax import Immediate, Instruction, Operand, Register, Vector
from hotplug.testing.ptx.writer import BlockWriter, Modifiers, instruction


@instruction("bar", "barrier")
def _barrier(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    """Barriers of a whole block; that all threads are at it is seen to by the schedule."""
    if modifiers.take("warp"):
        modifiers.need("sync")
        block.lines.append(f"members(m, lanes, {block.use(given.operands[0], 'u32')})")
        return
    modifiers.take("cta")
    kind = modifiers.need("sync", "red")
    modifiers.take("aligned")
    if kind == "sync":
        barrier = given.operands
    else:
        operation = modifiers.need("popc", "and", "or")
        type_ = modifiers.need("u32" if operation == "popc" else "pred")
        target, *barrier_operands, predicate = given.operands
        barrier = tuple(barrier_operands)
        value = f"block_wide(m, lanes, {operation!r}, {block.use(predicate, 'pred')})"
        block.define(target, type_, value)
    if len(barrier) != 1 or not isinstance(barrier[0], Immediate):
        raise modifiers.error("a barrier of a part of the block is not known")


@instruction("shfl")
def _shfl(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    modifiers.need("sync")
    mode = modifiers.need("up", "down", "bfly", "idx")
    modifiers.need("b32")
    target, source, *rest = given.operands
    operands = ", ".join(block.use(operand, "u32") for operand in (source, *rest))
    both = block.local(f"shuffle(m, lanes, {mode!r}, {operands})")
    value: Operand = target
    if isinstance(target, Vector):
        value, valid = target.items
        block.define(valid, "pred", f"{both}[1]")
    block.define(value, "u32", f"{both}[0]")


@instruction("vote")
def _vote(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    modifiers.need("sync")
    mode = modifiers.need("all", "any", "uni", "ballot")
    type_ = modifiers.need("b32" if mode == "ballot" else "pred")
    target, predicate, mask = given.operands
    values = f"{block.use(predicate, 'pred')}, {block.use(mask, 'u32')}"
    result = "u32" if type_ == "b32" else "pred"
    block.define(target, result, f"vote(m, lanes, {mode!r}, {values})")


@instruction("activemask")
def _activemask(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    modifiers.need("b32")
    block.define(given.operands[0], "u32", "active(m, lanes)")


@instruction("redux")
def _redux(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    modifiers.need("sync")
    operation = modifiers.need("add", "min", "max", "and", "or", "xor")
    type_ = modifiers.need("u32", "s32", "b32")
    type_ = "u32" if type_ == "b32" else type_
    target, source, mask = given.operands
    values = f"{block.use(source, type_)}, {block.use(mask, 'u32')}"
    block.define(target, type_, f"reduce(m, lanes, {operation!r}, {values})")


@instruction("trap", "brkpt")
def _trap(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    del modifiers
    block.lines.append(f"trap(m, lanes, {given.line})")


@instruction("atom", "red")
def _atom(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    """Atomic operations (PTX ISA, "atom", "red")."""
    space = modifiers.take("global", "shared") or "generic"
    modifiers.take("relaxed", "acquire", "release", "acq_rel")
    modifiers.take("cta", "gpu", "sys", "cluster")
    operation = modifiers.need("add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec")
    type_ = modifiers.need("u32", "s32", "u64", "s64", "b32", "b64", "f32", "f64")
    target, operands = Register("_"), given.operands
    if given.opcode == "atom":
        first, *others = given.operands
        if isinstance(first, Register):
            target = first
        operands = tuple(others)
    at, *sources = operands
    site = block.site(given, type_, int(type_[1:]) // 8, atomic=True)
    values = ", ".join(block.use(source, type_) for source in sources)
    place = "m.global_" if space == "global" else f"m.{space}"
    block.define(
        target,
        type_,
        f"atomic(m, lanes, {place}, {site}, {operation!r}, {block.address(at)}, {values})",
    )
