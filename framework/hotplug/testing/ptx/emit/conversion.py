"""Conversions between types (PTX ISA, "cvt")."""

from __future__ import annotations

from hotplug.testing.ptx.syntax import Instruction
from hotplug.testing.ptx.types import SIZES, is_float
from hotplug.testing.ptx.writer import BlockWriter, Modifiers, instruction

_TO_INTEGRAL = ("rni", "rzi", "rmi", "rpi")
_TO_FLOAT = ("rn", "rz", "rm", "rp")


@instruction("cvt")
def _cvt(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    rounding = modifiers.take(*_TO_INTEGRAL, *_TO_FLOAT)
    ftz = bool(modifiers.take("ftz"))
    saturate = bool(modifiers.take("sat"))
    to, source = modifiers.type(), modifiers.type()
    target, operand = given.operands
    value = block.use(operand, source)
    if source == "bf16":
        value, source = f"from_bf16({value})", "f32"
    if ftz and source == "f32":
        value = f"flush({value})"
    wide = _is_float(to), is_float(source)
    if wide == (False, False):
        _between_integers(block, given, to, value, saturate=saturate)
        return
    if wide == (True, False):
        value = _from_integer(value, to, rounding, modifiers)
    elif wide == (False, True):
        if rounding not in _TO_INTEGRAL:
            raise modifiers.error("no rounding to an integer")
        code = block.dtype(f"{'i' if to[0] == 's' else 'u'}{SIZES[to]}")
        value = f"to_integer({value}, {rounding!r}, {code})"
    else:
        value = _between_floats(value, to, source, rounding, modifiers)
    if ftz and to == "f32":
        value = f"flush({value})"
    if saturate and _is_float(to):
        value = f"saturate({value})"
    block.define(target, to, value)


def _is_float(type_: str) -> bool:
    return is_float(type_) or type_ == "bf16"


def _between_integers(
    block: BlockWriter, given: Instruction, to: str, value: str, *, saturate: bool
) -> None:
    code = block.dtype(f"{'i' if to[0] == 's' else 'u'}{SIZES[to]}")
    value = f"clamp({value}, {code})" if saturate else f"{value}.astype({code})"
    block.define(given.operands[0], to, value)


def _from_integer(value: str, to: str, rounding: str, modifiers: Modifiers) -> str:
    if rounding not in _TO_FLOAT:
        raise modifiers.error("no rounding to a floating point number")
    if to == "bf16":
        raise modifiers.error("a conversion that is not known")
    return f"from_integer({value}, {to!r}, {rounding!r})"


def _between_floats(value: str, to: str, source: str, rounding: str, modifiers: Modifiers) -> str:
    if rounding in _TO_INTEGRAL:
        if to != source:
            raise modifiers.error("a rounding to integral values of another type")
        return f"integral({value}, {rounding!r})"
    if to == "bf16":
        if source != "f32" or rounding not in ("rn", "rz"):
            raise modifiers.error("a conversion that is not known")
        return f"to_bf16({value}, {rounding!r})"
    if SIZES[to] < SIZES[source] and not rounding:
        raise modifiers.error("no rounding to a narrower type")
    return f"to_float({value}, {to!r}, {rounding or 'rn'!r})"
