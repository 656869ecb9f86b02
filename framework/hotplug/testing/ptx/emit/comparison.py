"""Comparisons (PTX ISA, "Comparison and selection instructions")."""

from __future__ import annotations

from hotplug.testing.ptx.syntax import Instruction, Vector
from hotplug.testing.ptx.types import is_float
from hotplug.testing.ptx.writer import BlockWriter, Modifiers, instruction

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
    """Python for a comparison (PTX ISA, "Comparisons")."""
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
