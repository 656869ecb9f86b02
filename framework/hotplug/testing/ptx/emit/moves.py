"""Data movement: moves, selections, loads and stores, addresses."""

from __future__ import annotations

from hotplug.testing.ptx.spaces import WINDOWS
from hotplug.testing.ptx.syntax import Instruction, Operand, Register, Vector
from hotplug.testing.ptx.types import SIZES, is_signed
from hotplug.testing.ptx.writer import BlockWriter, Modifiers, instruction

_SPACES = ("global", "shared", "local", "param", "const")
_CACHE = (
    "nc", "relaxed", "weak", "volatile", "acquire", "release", "ca", "cg", "cs", "lu", "cv", "wb",
    "wt", "L1_evict_last", "L1_evict_first", "L1_no_allocate", "L2_64B", "L2_128B", "L2_256B",
    "gpu", "cta", "sys", "shared_cta",
)  # fmt: skip
"""Hints about caches and order; here every access is done at once and in order."""


@instruction("mov")
def _mov(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    type_ = modifiers.type()
    target, source = given.operands
    if isinstance(source, Vector):
        _pack(block, target, source, type_)
    elif isinstance(target, Vector):
        _unpack(block, target, source, type_)
    else:
        block.define(target, type_, block.use(source, type_), alias=True)


def _pack(block: BlockWriter, target: Operand, source: Vector, type_: str) -> None:
    bits = 8 * SIZES[type_]
    part = bits // len(source.items)
    wide = block.dtype(f"u{bits // 8}")
    terms = []
    for index, item in enumerate(source.items):
        value = f"{block.use(item, f'u{part}')}.astype({wide})"
        shift = block.constant(index * part, f"u{bits}")
        terms.append(f"({value} << {shift})" if index else value)
    block.define(target, f"u{bits}", " | ".join(terms))


def _unpack(block: BlockWriter, target: Vector, source: Operand, type_: str) -> None:
    bits = 8 * SIZES[type_]
    part = bits // len(target.items)
    value = block.use(source, f"u{bits}")
    for index, item in enumerate(target.items):
        if item == Register("_"):
            continue
        shifted = f"({value} >> {block.constant(index * part, f'u{bits}')})" if index else value
        block.define(item, f"u{part}", f"{shifted}.astype({block.dtype(f'u{part // 8}')})")


@instruction("selp")
def _selp(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    type_ = modifiers.type()
    target, yes, no, predicate = given.operands
    condition = block.use(predicate, "pred")
    block.define(
        target, type_, f"np.where({condition}, {block.use(yes, type_)}, {block.use(no, type_)})"
    )


@instruction("slct")
def _slct(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    ftz = modifiers.take("ftz")
    type_, sign = modifiers.type(), modifiers.need("s32", "f32")
    target, yes, no, decides = given.operands
    condition = f"{block.use(decides, sign)} >= 0"
    if ftz:
        condition = f"flush({block.use(decides, sign)}) >= 0"
    block.define(
        target, type_, f"np.where({condition}, {block.use(yes, type_)}, {block.use(no, type_)})"
    )


def space_of(modifiers: Modifiers) -> str:
    """Python for the state space that an instruction names."""
    space = modifiers.take(*_SPACES) or "generic"
    return {"global": "global_", "const": "global_"}.get(space, space)


@instruction("ld", "ldu")
def _ld(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    space = space_of(modifiers)
    while modifiers.take(*_CACHE):
        pass
    count = int((modifiers.take("v2", "v4", "v8") or "v1")[1:])
    type_ = modifiers.type()
    targets = _elements(given.operands[0], count)
    address = block.address(given.operands[1])
    size = SIZES[type_]
    loaded = []
    if count > 1:
        address = block.local(address)
    for index in range(count):
        site = block.site(given, _extended(type_), size if index else size * count)
        at = f"{address} + {block.constant(index * size, 's64')}" if index else address
        loaded.append(f"m.{space}.load({site}, {at}, lanes)")
    if count > 1:
        loaded = [block.local(value) for value in loaded]
    for target, value in zip(targets, loaded, strict=True):
        block.define(target, _extended(type_), value)


def _extended(type_: str) -> str:
    """What a value is loaded as: into a wider register, bits are extended by zeros."""
    return type_ if is_signed(type_) or type_[0] == "f" else f"u{8 * SIZES[type_]}"


@instruction("st")
def _st(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    space = space_of(modifiers)
    while modifiers.take(*_CACHE):
        pass
    count = int((modifiers.take("v2", "v4", "v8") or "v1")[1:])
    type_ = modifiers.type()
    address = block.address(given.operands[0])
    if count > 1:
        address = block.local(address)
    size = SIZES[type_]
    for index, source in enumerate(_elements(given.operands[1], count)):
        site = block.site(given, type_, size if index else size * count)
        at = f"{address} + {block.constant(index * size, 's64')}" if index else address
        value = block.use(source, type_)
        block.lines.append(f"m.{space}.store({site}, {at}, {value}, lanes)")


def _elements(operand: Operand, count: int) -> tuple[Operand, ...]:
    items = operand.items if isinstance(operand, Vector) else (operand,)
    if len(items) != count:
        raise ValueError(f"{len(items)} elements for a vector of {count}")
    return items


@instruction("cvta")
def _cvta(block: BlockWriter, given: Instruction, modifiers: Modifiers) -> None:
    to_space = modifiers.take("to")
    space = modifiers.need(*_SPACES)
    type_ = modifiers.need("u64", "u32")
    target, source = given.operands
    value = block.use(source, "s64" if type_ == "u64" else "u32")
    window = WINDOWS.get(space, 0)
    if window:
        value = f"{value} {'-' if to_space else '+'} {block.constant(window, 's64')}"
    block.define(target, "s64" if type_ == "u64" else "u32", value, alias=not window)


@instruction("prefetch", "prefetchu", "membar", "fence", "nanosleep")
def _nothing(_block: BlockWriter, _given: Instruction, modifiers: Modifiers) -> None:
    """Order and speed of memory, which are no matter here."""
    while modifiers.take("global", "local", "L1", "L2", "cta", "gl", "gpu", "sys", "acq_rel", "sc",
                         "u32", "proxy"):  # fmt: skip
        pass
