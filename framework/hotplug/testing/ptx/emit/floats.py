"""Floating point arithmetic (PTX ISA, "Floating point instructions")."""

from __future__ import annotations

from hotplug.testing.ptx.syntax import Instruction
from hotplug.testing.ptx.writer import BlockWriter, Modifiers, instruction

_ROUNDINGS = ("rn", "rz", "rm", "rp")
_FLOATS = ("f32", "f64", "f16")
_OPERANDS = {"neg": (1,), "abs": (1,), "fma": (3,), "mad": (3,), "min": (2, 3), "max": (2, 3)}
"""How many sources an instruction has, if not two."""
_MARKS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}


def write(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    """An arithmetic instruction of a floating point type."""
    ftz = bool(modifiers.take("ftz"))
    saturate = bool(modifiers.take("sat"))
    rounding = modifiers.take(*_ROUNDINGS, "approx", "full") or "rn"
    nan = bool(modifiers.take("NaN")) if given.opcode in ("min", "max") else False
    type_ = modifiers.need(*_FLOATS)
    if (ftz and type_ == "f64") or (rounding in ("approx", "full") and type_ != "f32"):
        raise modifiers.error("a modifier that the type does not have")
    if given.opcode in ("fma", "mad") and rounding != "rn" and type_ != "f32":
        raise modifiers.error("a rounding that is not known")
    values = block.values(given.operands[1:], type_, *_OPERANDS.get(given.opcode, (2,)))
    if ftz:
        values = [f"flush({value})" for value in values]
    result = _value(given.opcode, values, rounding, type_, nan=nan)
    if ftz:
        result = f"flush({result})"
    block.define(given.operands[0], type_, f"saturate({result})" if saturate else result)


def _value(opcode: str, values: list[str], rounding: str, type_: str, *, nan: bool) -> str:
    listed = ", ".join(values)
    if opcode in ("min", "max"):
        function = "smaller" if opcode == "min" else "larger"
        result = values[0]
        for value in values[1:]:
            result = f"{function}({result}, {value}, nan={nan})"
        return result
    if opcode == "neg":
        return f"(-{values[0]})"
    if opcode == "abs":
        return f"np.abs({listed})"
    if opcode in ("fma", "mad"):
        if rounding != "rn":
            return f"fma_directed({listed}, {rounding!r})"
        return f"fma_double({listed})" if type_ == "f64" else f"fma_narrow({listed})"
    if rounding in ("rz", "rm", "rp"):
        return f"directed({opcode!r}, {listed}, {rounding!r})"
    return f"({f' {_MARKS[opcode]} '.join(values)})"


@instruction("rcp", "sqrt", "rsqrt", "sin", "cos", "lg2", "ex2", "tanh")
def _function(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    approximate = bool(modifiers.take("approx"))
    ftz = bool(modifiers.take("ftz"))
    rounding = modifiers.take("rn")
    type_ = modifiers.need(*_FLOATS)
    if bool(rounding) == approximate or (rounding and given.opcode not in ("rcp", "sqrt")):
        raise modifiers.error("a rounding that the instruction does not have")
    value = block.use(given.operands[1], type_)
    name = (
        "rcp_double" if given.opcode == "rcp" and approximate and type_ == "f64" else given.opcode
    )
    value = f"flush({value})" if ftz and type_ != "f64" else value
    value = f"{name}({value})"
    block.define(given.operands[0], type_, f"flush({value})" if ftz and type_ != "f64" else value)


@instruction("copysign")
def _copysign(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    type_ = modifiers.need("f32", "f64")
    target, sign, size = given.operands
    block.define(target, type_, f"np.copysign({block.use(size, type_)}, {block.use(sign, type_)})")


@instruction("testp")
def _testp(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    kind = modifiers.need("finite", "infinite", "number", "notanumber", "normal", "subnormal")
    type_ = modifiers.need("f32", "f64")
    value = block.use(given.operands[1], type_)
    block.define(given.operands[0], "pred", f"testp({value}, {kind!r})")
